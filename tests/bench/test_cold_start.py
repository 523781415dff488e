"""How long a command takes from nothing, against an interpreter that imports typer and does no more."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from bench import ROOT, SHORT, batch, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PASS = str(ROOT / "build/bpf/pass.bpf.o")
ROUNDS = 7 if SHORT else 25


def seconds(*argv: str) -> float:
    """Wall time of a command that must end with 0."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=30)
    return time.perf_counter() - start


def import_typer() -> float:
    return seconds(sys.executable, "-c", "import typer")


@pytest.fixture
def veth():
    """A veth whose both ends are up."""
    batch("link add cold0 type veth peer name cold1", "link set cold0 up", "link set cold1 up")
    yield "cold0"
    batch("link del cold0")


def test_version_takes_hardly_longer_than_importing_typer():
    compare(
        "xdpctl --version",
        lambda: seconds(XDPCTL, "--version"),
        "python -c 'import typer'",
        import_typer,
        limit=1.5,
        rounds=ROUNDS,
    )


def test_status_stays_within_four_imports_of_typer(veth):
    run(XDPCTL, "attach", "--mode", "native", veth, PASS)
    compare(
        "xdpctl status",
        lambda: seconds(XDPCTL, "status"),
        "python -c 'import typer'",
        import_typer,
        limit=4,
        rounds=ROUNDS,
    )
    run(XDPCTL, "detach", veth)


def test_attach_stays_within_four_imports_of_typer(veth):
    def attach() -> float:
        taken = seconds(XDPCTL, "attach", "--mode", "native", veth, PASS)
        run(XDPCTL, "detach", veth)
        return taken

    compare("xdpctl attach", attach, "python -c 'import typer'", import_typer, limit=4, rounds=ROUNDS)
