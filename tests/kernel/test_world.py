"""The ground that kernel tests stand on is what it claims to be."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel


def test_the_machine_s_own_interfaces_are_out_of_reach(world):
    assert world.ip("-br link").split()[0] == "lo"
    assert len(world.ip("-br link").splitlines()) == 1


def test_bpffs_is_private_and_empty():
    assert {path for path in Path("/sys/fs/bpf").iterdir() if path.suffix != ".debug"} == set()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    assert ["/sys/fs/bpf", "bpf"] in mounts


def test_a_veth_pair_spans_two_namespaces_and_goes_with_them(world):
    left, right = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=left, netns_b=right)
    assert "LOWER_UP" in world.ip("link show va", left)
