"""A command pays only for what it needs: slow packages are not imported before they are wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xdpctl.cli.main import COMMANDS

SLOW = (
    *("pyroute2", "rich", "elftools", "pydantic", "asyncio", "tomli", "prometheus_client"),
    "xdpctl.doctor.explain",
)
"""Packages that cost 20 to 150 ms each, or data that only one command reads."""


def imported_by(code: str) -> set[str]:
    """Modules in memory after running `code` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"explain"}))
def test_importing_a_command_imports_nothing_slow(command):
    loaded = imported_by(f"import xdpctl.cli.main, {COMMANDS[command]}")
    assert sorted(loaded & set(SLOW)) == []


def test_the_command_line_itself_imports_no_room():
    loaded = imported_by("import xdpctl.cli.main")
    rooms = {name for name in loaded if name.startswith("xdpctl.") and name.count(".") == 1}
    assert rooms <= {"xdpctl.cli", "xdpctl.errors"}
