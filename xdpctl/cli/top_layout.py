"""Tables and bars as lines of a screen of any width and height. Pure: styles are words, nothing is drawn here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BAD, WARN, DIM, BOLD, BAR = "bold red", "yellow", "dim", "bold", "reverse"
"""Styles, in the words of rich."""


class Cell(NamedTuple):
    """One cell."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """One column."""

    head: str
    right: bool = True
    rank: int = 0
    """The highest goes first where the screen is too narrow; 0: never."""


class Table(NamedTuple):
    """One section of the screen. Rows are made when they are shown: there may be hundreds."""

    title: str
    columns: tuple[Column, ...]
    length: int
    row: Callable[[int], list[Cell]]
    remark: str = ""
    """Instead of rows, where there are none."""

    def rows(self, start: int = 0, most: int | None = None) -> list[list[Cell]]:
        """Those of a part of the table."""
        end = self.length if most is None else min(self.length, start + most)
        return [self.row(number) for number in range(start, end)]


def number(value: float) -> str:
    """``0.4``, ``12,345``, ``123k``, ``1.23M``, ``45.6G``."""
    if value < 10 and value != int(value):
        return f"{value:.1f}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return f"{value / 1000:.0f}k" if value >= 99_999.5 else f"{value:,.0f}"


Line = list[Cell]
"""Pieces of one line, from left to right."""


def laid_out(table: Table, width: int, start: int, most: int) -> list[Line]:
    """The head and some rows of a table within a width: columns of the highest rank are left out first."""
    rows = [[Cell(plain(one.text), one.style) for one in row] for row in table.rows(start, most)]
    columns = list(enumerate(table.columns))
    widths = [max([len(one.head), *(len(row[place].text) for row in rows)]) for place, one in columns]
    while sum(widths[place] + 2 for place, _ in columns) - 2 > width:
        rank = max(one.rank for _, one in columns)
        if not rank:
            break
        columns = [(place, one) for place, one in columns if one.rank != rank]
    heads = [Cell(one.head, "bold") for one in table.columns]
    lines = []
    for row in [heads, *rows]:
        line: Line = []
        for place, one in columns:
            text = row[place].text
            aligned = text.rjust(widths[place]) if one.right else text.ljust(widths[place])
            # the gap belongs to the cell before it: half as many pieces to draw
            line.append(Cell(aligned + ("" if place == columns[-1][0] else "  "), row[place].style))
        lines.append(cut(line, width))
    return lines


def cut(line: Line, width: int) -> Line:
    """A line that fits; what is cut off shows as ``…``."""
    kept: Line = []
    for one in line:
        if len(one.text) > width:
            kept.append(Cell(one.text[: max(0, width - 1)] + "…" if width else "", one.style))
            return kept
        kept.append(one)
        width -= len(one.text)
    return kept


def bar(left: str, right: str, width: int) -> Line:
    """A line across the screen; what is to the right goes first where there is no room."""
    if len(left) + 2 + len(right) > width:
        return cut([Cell(left.ljust(width), BAR)], width)
    return [Cell(left + right.rjust(width - len(left)), BAR)]


def rooms(wanted: Sequence[int], lines: int) -> list[int]:
    """How many lines each section gets of those there are.

    The first is the one that scrolls: it gets what the others leave, and they at most four each until it is content.

    Args:
        wanted: lines that each would fill, without its bar.
        lines: without the bars.
    """
    if not wanted:
        return []
    first, *others = wanted
    least = max(3, lines * 2 // 5)
    given = [min(one, 4) for one in others]
    while given and sum(given) > max(0, lines - min(first, least)):
        given[max(range(len(given)), key=lambda place: (given[place], place))] -= 1
    given = [0 if one == 1 else one for one in given]  # a head without a row says nothing
    free = max(0, lines - sum(given) - first)
    for place, one in enumerate(others):
        more = min(free, one - given[place])
        given[place] += more if given[place] or more > 1 else 0
        free = max(0, lines - sum(given) - first)
    return [max(0, min(first, lines - sum(given))), *given]


def screen(
    tables: Sequence[Table], head: str, foot: str, size: tuple[int, int], scroll: int
) -> tuple[list[Line], int]:
    """The lines of a screen, and how far its first table is scrolled at most.

    Args:
        tables: sections, the one that scrolls first.
        head: first line.
        foot: last line.
        size: width and height.
        scroll: rows of the first table to leave out.
    """
    width, height = size
    kept = list(tables)
    while len(kept) > 1 and height < len(kept) + 2 + 3:
        kept.pop()
    given = rooms(
        [one.length + 1 if one.length else 0 for one in kept],
        max(0, height - 2 - len(kept)),
    )
    lines = [bar(head, "", width)]
    most = max(0, kept[0].length - max(0, given[0] - 1)) if kept else 0
    start = min(scroll, most)
    for place, (table, room) in enumerate(zip(kept, given, strict=True)):
        at = start if place == 0 else 0
        shown = max(0, room - 1)
        lines.append(cut(_title(table, at, shown), width))
        if room:
            lines += laid_out(table, width, at, shown)
    lines = lines[: max(1, height - 1)]
    lines += [[] for _ in range(height - 1 - len(lines))]
    if height > 1:
        lines.append(cut([Cell(foot, DIM)], width))
    return lines, most


def _title(table: Table, start: int, shown: int) -> Line:
    if not table.length:
        return [Cell(table.title, BOLD), Cell(f"  {table.remark}", DIM)]
    if shown >= table.length:
        return [Cell(table.title, BOLD)]
    if not shown:
        return [Cell(table.title, BOLD), Cell(f"  {table.length}, no room here", DIM)]
    end = min(table.length, start + shown)
    return [Cell(table.title, BOLD), Cell(f"  {start + 1} to {end} of {table.length}", DIM)]
