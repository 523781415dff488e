"""`doctor --probe` on real veths: what is measured agrees with what happens, and nothing is left behind."""

from pathlib import Path

import pytest
from kernels import LIVE_FRAMES, LOST
from live import until

pytestmark = pytest.mark.kernel

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
DEVMAP = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u32); } ports SEC(".maps");
SEC("xdp") int by_map(struct xdp_md *ctx) { return bpf_redirect_map(&ports, 2, 0); }
"""
)
PASS = HEAD + 'SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }'
PLAIN = (
    HEAD
    + 'const volatile int target = 0; SEC("xdp") int out(struct xdp_md *c) { return bpf_redirect(target, 0); }'
)


@pytest.fixture
def path(world):
    """eth (wire elsewhere) and out (far elsewhere) in one namespace."""
    here, there = world.namespace(), world.namespace()
    world.veth("eth", "wire", netns_a=here, netns_b=there)
    world.veth("out", "far", netns_a=here, netns_b=there)
    return here, there


def measured(xdpctl, *argv):
    done = xdpctl("doctor", *argv, "--probe", "--json")
    assert done.returncode in (0, 1), done.stderr
    (finding,) = [one for one in done.json()["findings"] if one["id"].startswith("probe.")]
    assert done.returncode == (1 if finding["status"] == "fail" else done.returncode)
    return finding


def not_proven(finding):
    """Whether that is all that a kernel without live frames lets one say."""
    if LIVE_FRAMES:
        return False
    assert (finding["id"], finding["status"]) == ("probe.not-proven", "unknown")
    return True


@pytest.mark.shared(4)
def test_a_veth_alone_is_probed_as_a_target(path, xdpctl, world):
    here, there = path
    lost = measured(xdpctl, "out", "--netns", here)
    if not_proven(lost):
        return
    assert (lost["id"], lost["errno"], lost["shows_in"]) == (
        "probe.lost",
        *LOST,
    )
    assert any(f"err=-{95 if LOST[0] == 'EOPNOTSUPP' else 6}" in one["fact"] for one in lost["evidence"])
    world.run("ethtool", "-K", "far", "gro", "on", netns=there)
    assert measured(xdpctl, "out", "--netns", here)["id"] == "probe.delivered"


@pytest.mark.shared(4)
def test_a_target_that_is_down_is_measured_as_such(path, xdpctl, world):
    here, there = path
    world.run("ethtool", "-K", "far", "gro", "on", netns=there)
    world.ip("link set out down", here)
    finding = measured(xdpctl, "eth", "--netns", here, "--redirect-to", "out")
    assert not_proven(finding) or finding["errno"] == "ENETDOWN"


def test_an_object_is_probed_with_its_own_devmap_filled(path, xdpctl, world, compile_c):
    here, there = path
    asked = ("eth", "--netns", here, "--prog", str(compile_c(DEVMAP)))
    nowhere = measured(xdpctl, *asked)
    if not_proven(nowhere):
        return
    assert (nowhere["id"], nowhere["status"]) == ("probe.not-redirected", "unknown")
    assert measured(xdpctl, *asked, "--redirect-to", "out")["id"] == "probe.lost"
    world.run("ethtool", "-K", "far", "gro", "on", netns=there)
    assert measured(xdpctl, *asked, "--redirect-to", "out")["id"] == "probe.delivered"


@pytest.mark.shared(4)
def test_a_program_that_does_not_redirect_is_unknown(path, xdpctl, compile_c):
    finding = measured(xdpctl, "eth", "--netns", path[0], "--prog", str(compile_c(PASS)))
    assert not_proven(finding) or (finding["id"], finding["status"]) == ("probe.not-redirected", "unknown")


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_an_attached_program_is_probed_in_the_mode_it_runs_in(path, xdpctl, compile_c, mode):
    here, _ = path
    setting = ("--set", "target=out", "--mode", mode, "--force")
    xdpctl("attach", "--netns", here, *setting, "eth", str(compile_c(PLAIN)), check=True)
    finding = measured(xdpctl, "eth", "--netns", here)
    if mode == "native":
        assert (finding["id"], finding["errno"]) == ("probe.lost", LOST[0])
    else:
        assert finding["id"] == "probe.delivered", "generic redirects need no NAPI"
    xdpctl("detach", "--netns", here, "eth", check=True)


@pytest.mark.shared(4)
def test_a_probe_leaves_nothing(path, xdpctl, world, compile_c):
    def state():
        shown = world.run("bpftool", "prog", "show").stdout.splitlines()
        instances = [  # those of others are at work
            one.name
            for one in Path("/sys/kernel/tracing/instances").glob("xdpctl-*-*")
            if not Path("/proc", one.name.split("-")[1]).exists()
        ]
        return (
            {one for one in shown if "xdpctl_probe" in one},
            set(instances),
            world.ip("-o link", path[0]).count("xdp"),
        )

    def more():
        """What came since; programs of an earlier test may be on their way out still, or of another's at work."""
        programs, instances, attached = state()
        return programs - before[0], instances - before[1], attached - before[2]

    before = state()
    measured(xdpctl, "eth", "--netns", path[0], "--redirect-to", "out")
    measured(xdpctl, "eth", "--netns", path[0], "--prog", str(compile_c(DEVMAP)), "--redirect-to", "out")
    assert until(lambda: more() == (set(), set(), 0)), more()
    assert not any(Path("/sys/fs/bpf").rglob("ports"))


@pytest.mark.shared(4)
def test_without_an_interface_there_is_nothing_to_prove(xdpctl):
    done = xdpctl("doctor", "--probe")
    assert done.returncode == 2
    assert "xdpctl doctor IFACE --probe" in done.stderr
