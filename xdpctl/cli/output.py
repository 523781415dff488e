"""Rendering shared by the commands: JSON, errors, tables; rich on a terminal, plain when piped."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.errors import XdpctlError


def plain(text: str) -> str:
    """The text with control characters spelled out: names come from files and the kernel."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    import json

    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_line(text: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(plain(text) + "\n")


def print_error(error: XdpctlError, *, as_json: bool) -> None:
    """One line and its hint to stderr; with --json also ``{"error": {...}}`` to stdout."""
    if as_json:
        print_json({"error": error.to_json()})
    red, bold, off = ("\033[31m", "\033[1m", "\033[0m") if sys.stderr.isatty() else ("", "", "")
    lines = [f"{red}{bold}xdpctl: error:{off} {plain(error.message)}"]
    diagnostics = getattr(error, "diagnostics", "")
    if diagnostics:
        lines.append(plain(diagnostics.rstrip()))
    if error.hint:
        lines.append(f"{bold}hint:{off} {plain(error.hint)}")
    sys.stderr.write("\n".join(lines) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """A table: rich on a terminal, aligned plain text when piped (no colour, no wrapping)."""
    rows = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            *columns, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False
        )
        for row in rows:
            table.add_row(*map(Text, row))  # Text: a "[" in a name is no markup
        Console().print(table)
        return
    if title:
        sys.stdout.write(title + "\n")
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    for line in [columns, *rows]:
        sys.stdout.write(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        )


def note(text: str) -> None:
    """A remark for people, on stderr so that it never mixes with data."""
    with contextlib.suppress(OSError):  # whoever reads it may have gone: no reason to stop
        sys.stderr.write(plain(text) + "\n")
