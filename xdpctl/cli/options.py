"""Options that many commands have, declared once: interfaces, their namespace, JSON."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xdpctl.cli import complete

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def interfaces(says: str, metavar: str = "[IFACE...]") -> Any:
    """The argument that takes names or globs of interfaces, completed in the namespace of ``--netns``."""
    return typer.Argument(metavar=metavar, help=says, autocompletion=complete.interface)


def only() -> Any:
    """``--iface IFACE``, which may be repeated."""
    return typer.Option(
        "--iface", metavar="IFACE", help="Only these (names or globs).", autocompletion=complete.interface
    )


def netns(says: str) -> Any:
    """``--netns NAME``; read before the others, because their completion depends on it."""
    return typer.Option(
        "--netns", metavar="NAME", help=says, autocompletion=complete.namespace, is_eager=True
    )
