"""``xdpctl inspect`` against this kernel, as root and as nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

HEAD = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nchar l[] SEC("license") = "GPL";\n'
PINNED = """
struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, %d); __type(key, int); __type(value, int);
  __uint(pinning, 1); } table SEC(".maps");
SEC("xdp") int prog(struct xdp_md *c) { return XDP_PASS; }
"""


def test_as_root_helpers_are_tried(xdpctl, compile_c):
    path = compile_c(HEAD + 'SEC("xdp") int prog(void *c) { return bpf_skb_vlan_pop(c); }')
    done = xdpctl("inspect", "--json", path)
    assert done.returncode == 1
    (found,) = done.json()["objects"]
    assert found["kernel"]["tried"] is True
    assert [one["id"] for one in found["problems"]] == ["helper"]


def test_without_capabilities_it_answers_what_files_tell(compile_c):
    path = compile_c(HEAD + 'SEC("fentry/no_such_function") int prog(void *c) { return 0; }')
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "xdpctl.cli", "inspect", "--json", path],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    (found,) = json.loads(done.stdout)["objects"]
    assert found["kernel"]["tried"] is False
    assert [one["id"] for one in found["problems"]] == ["missing-function"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("HASH", 4), ("HASH", 4), []),
        (("HASH", 4), ("HASH", 8), ["pin-mismatch"]),
        (("HASH", 4), ("ARRAY", 4), ["pin-mismatch"]),
        (
            ("DEVMAP", 4),
            ("DEVMAP", 4),
            ["pin-mismatch"],
        ),  # libbpf before 1.7 never finds its own devmap again
    ],
)
def test_a_map_that_is_pinned_already_is_compared(xdpctl, compile_c, first, second, expected):
    from xdpctl.attach.ownership import maps_folder
    from xdpctl.bpf.object import Object
    from xdpctl.errors import XdpctlError
    from xdpctl.libbpf.library import version

    if first[0] == "DEVMAP" and version() >= (1, 7):
        expected = []
    before, after = (compile_c(HEAD + PINNED % one) for one in (first, second))
    with Object.open(before, pin_root=maps_folder()) as obj:
        obj.load()
    done = xdpctl("inspect", "--json", after)
    (found,) = done.json()["objects"]
    assert [one["id"] for one in found["problems"]] == expected
    assert found["pins"][0]["exists"] is True
    try:
        with Object.open(after, pin_root=maps_folder()) as obj:
            obj.load()
        happened = []
    except XdpctlError:
        happened = ["pin-mismatch"]
    assert happened == expected


def test_inspecting_leaves_nothing_behind(xdpctl, compile_c):
    path = compile_c(HEAD + PINNED % ("HASH", 4))
    xdpctl("inspect", path, check=True)
    assert not Path("/sys/fs/bpf/xdpctl").exists()
