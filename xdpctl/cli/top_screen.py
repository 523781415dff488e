"""The live screen of ``xdpctl top``: drawn by rich on the terminal's other page, steered by keys."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

from xdpctl.cli.keys import Keys
from xdpctl.cli.top_layout import Line, number, screen
from xdpctl.cli.top_view import SORTS, home, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderResult

    from xdpctl.cli.top import Looks
    from xdpctl.trace.tick import Tick

FOOT = (
    "q end  p packets  b bytes  l lost  t time  c cost  n name  1-5 verdicts  r reverse  blank hold  arrows"
)
STEP = {
    "up": -1,
    "k": -1,
    "down": 1,
    "j": 1,
    "page-up": -10,
    "page-down": 10,
    "home": -(1 << 30),
    "end": 1 << 30,
}


class Frame:
    """Lines for rich to draw as they are: no markup, no wrapping."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for place, line in enumerate(self._lines):
            if place:
                yield Segment.line()
            for text, style in line:
                yield Segment(text, console.get_style(style) if style else None)


class View:
    """What the user chose to see.

    Args:
        sort: one of `SORTS`.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self.reverse = False
        self.held = False
        self.ended = False
        self.scroll = 0
        self._most = 0

    def press(self, key: str) -> None:
        """Do what a key means; unknown ones mean nothing."""
        wanted = next((name for name, one in SORTS.items() if one == key), None)
        if key in ("q", "Q"):
            self.ended = True
        elif wanted is not None:
            self.sort, self.scroll = wanted, 0
        elif key == "r":
            self.reverse = not self.reverse
        elif key == " ":
            self.held = not self.held
        elif key in STEP:
            self.scroll = max(0, min(self._most, self.scroll + STEP[key]))

    def frame(self, tick: Tick | None, width: int, height: int) -> Frame:
        """The screen."""
        if tick is None:
            lines, _ = screen([], "xdpctl top  looking ...", FOOT, (width, height), 0)
            return Frame(lines)
        made = tables(tick, self.sort, reverse=self.reverse)
        lines, self._most = screen(made, self._head(tick), FOOT, (width, height), self.scroll)
        self.scroll = min(self.scroll, self._most)
        return Frame(lines)

    def _head(self, tick: Tick) -> str:
        counts = [one.counts for one in tick.interfaces]
        seconds = tick.seconds
        inode = home(tick)
        where = tick.labels.get(inode, "") if inode is not None else ""
        parts = [
            f"xdpctl top  {time.strftime('%H:%M:%S', time.localtime(tick.time))}",
            f"{len(counts)} interfaces" + (f" in {where}" if where else ""),
            f"rx {number(sum(one.rx_packets for one in counts) / seconds)}/s",
            f"tx {number(sum(one.tx_packets for one in counts) / seconds)}/s",
            f"by {self.sort}{' (least first)' if self.reverse else ''}",
        ]
        if self.held:
            parts.append("HELD")
        if tick.lost:
            parts.append(f"{tick.lost} events not counted")
        if tick.notes:
            parts.append(
                tick.notes[0] + (f" (and {len(tick.notes) - 1} more)" if len(tick.notes) > 1 else "")
            )
        return "  ".join(parts)


@contextlib.contextmanager
def _unstoppable() -> Iterator[None]:
    """Ctrl-Z would leave the shell on the wrong page, without echo."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def live(looks: Looks, sort: str, count: int) -> None:
    """Draw until the user ends it, or so many looks are done (0: no end)."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    view, number_of, shown = View(sort), 0, None
    with (
        _unstoppable(),
        Keys() as keys,
        Live(
            view.frame(None, *console.size),
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as drawn,
    ):

        def wait(seconds: float) -> bool:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                pressed = keys.wait(left)
                for key in pressed:
                    view.press(key)
                if pressed:
                    return False
            return True

        while not view.ended and (not count or number_of < count):
            found = looks.next(wait)
            if found is not None:
                number_of += 1
                shown = shown if view.held else found
            drawn.update(view.frame(shown, *console.size), refresh=True)
