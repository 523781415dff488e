"""`driver show` of many interfaces, against the shell loop over ethtool that it replaces."""

from __future__ import annotations

import json
import shutil

import pytest
from bench import ROOT, batch, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PAIRS = 256
LINKS = 2 * PAIRS
"""In the short form too: with fewer, what Python takes to start is a larger part than what is claimed."""
ROUNDS = 3
LOOP = (
    'for d in shown*; do for o in -i -g -l -k -S; do ethtool $o "$d" >/dev/null 2>&1; n=$((n+1)); done; done'
)


@pytest.fixture(scope="module", autouse=True)
def veths():
    """Veth pairs whose both ends are looked at."""
    batch(*(f"link add shown{n}a type veth peer name shown{n}b" for n in range(PAIRS)))
    batch(*(f"link set shown{n}{end} up" for n in range(PAIRS) for end in "ab"))
    yield
    batch(*(f"link del shown{n}a" for n in range(PAIRS)))


def ethtool_loop() -> None:
    """What a veth does not have (rings), ethtool refuses: the loop goes on, as a person's would."""
    assert int(run("sh", "-c", f"cd /sys/class/net; n=0; {LOOP}; echo $n")) == 5 * LINKS


def test_512_interfaces_take_a_third_of_a_loop_of_ethtool():
    assert shutil.which("ethtool"), "the package ethtool is missing: .ci/setup dev installs it"
    shown = json.loads(run(XDPCTL, "driver", "show", "shown*", "--json"))["devices"]
    assert len(shown) == LINKS
    assert all(one["driver"] == "veth" and one["channels"]["rx"] for one in shown)
    compare(
        f"driver show of {LINKS} veths",
        lambda: run(XDPCTL, "driver", "show", "shown*") and None,
        "shell loop of ethtool -i -g -l -k -S",
        ethtool_loop,
        limit=1 / 3,
        rounds=ROUNDS,
        note="wall time of the whole command against one shell that starts ethtool five times a device",
    )
