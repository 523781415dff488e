"""Rooms import only what stands below them: read from the source, imports inside functions included."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "xdpctl"

ORDER = (
    "cli", "lab", "deploy", "doctor", "trace", "attach", "skeleton", "host",
    "build", "obj", "bpf", "btf", "netlink", "libbpf", "errors", "records",
)  # fmt: skip
"""Top to bottom, as docs/architecture.md draws it; a room may import itself and what stands further right."""

DOTTED = re.compile(r"xdpctl(?:\.[a-z_]\w*)+")

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Room of a file: its folder below xdpctl/, or its own name where it stands directly there."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(source: str) -> list[tuple[int, str]]:
    """(line, room) of every import of xdpctl; dotted names in strings count too (import_module)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; name the room"
            if node.module == "xdpctl":
                names = [f"xdpctl.{alias.name}" for alias in node.names]
            elif node.module:
                names = [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            names = [node.value]
        found += [
            (node.lineno, name.split(".")[1])
            for name in names
            if name.startswith("xdpctl.") and name != "xdpctl.__version__"
        ]
    return found


def upward(path: Path, source: str) -> list[str]:
    """Imports of `source` that point up, as sentences."""
    mine = room_of(path)
    if mine == "__init__":  # gives Skeleton to whoever asks for it, and test_lazy_imports sees that it waits
        return [
            f"line {line}: xdpctl/__init__.py imports {room}"
            for line, room in imported_rooms(source)
            if room != "skeleton"
        ]
    below = ORDER[ORDER.index(mine) :]
    return [
        f"line {line}: {mine} imports {room}, which stands above it"
        for line, room in imported_rooms(source)
        if room not in below
    ]


def test_every_room_has_its_place_in_the_order():
    rooms = {room_of(path) for path in MODULES} - {"__init__"}
    assert rooms <= set(ORDER), f"place these in ORDER: {sorted(rooms - set(ORDER))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_downward(path):
    assert upward(path, path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import xdpctl.cli.main",
        "from xdpctl.cli.main import main",
        "from xdpctl import cli",
        "def f():\n    from xdpctl.cli.main import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from xdpctl.doctor.finding import Finding",
        "importlib.import_module('xdpctl.attach.run')",
    ],
)
def test_an_upward_import_is_seen_wherever_it_hides(line):
    assert upward(PACKAGE / "bpf" / "x.py", line)


@pytest.mark.parametrize(
    "line", ["from xdpctl.errors import MapError", "from xdpctl import __version__", "import os"]
)
def test_a_downward_import_is_not_accused(line):
    assert upward(PACKAGE / "bpf" / "x.py", line) == []
