"""What older kernels lack: using it is refused with a word that names the version, where it is there it works.

Tests of such features carry ``@pytest.mark.needs(NAME)`` and are not collected where the kernel lacks them; here is
what holds instead. On each kernel some of it is seen from the one side, some from the other.
"""

from __future__ import annotations

import pytest
from kernels import NEEDS, RELEASE

from xdpctl.bpf import features, query
from xdpctl.bpf.link import link_netkit, link_tcx
from xdpctl.bpf.object import Object
from xdpctl.btf import kernel
from xdpctl.errors import AttachError, UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.skeleton import modes
from xdpctl.trace.tracer import arguments_of

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("{section}") int p({context} *ctx) {{ return {verdict}; }}
char _license[] SEC("license") = "GPL";
"""
LO = 1


@pytest.fixture
def load(compile_c):
    """``load("xdp", "struct xdp_md") -> Program``, closed at the end."""
    opened = []

    def make(section: str, context: str, verdict: int = 2):
        opened.append(
            Object.open(compile_c(SOURCE.format(section=section, context=context, verdict=verdict)))
        )
        opened[-1].load()
        return opened[-1].programs["p"]

    yield make
    for one in opened:
        one.close()


def frags(load):
    load("xdp.frags", "struct xdp_md")


def live_frames(load):
    load("xdp", "struct xdp_md", 1).test_run(bytes(64), live_frames=True, repeat=4)


def run_context(load):
    load("xdp", "struct xdp_md").test_run(bytes(64), ifindex=LO)


def tcx(load):
    link_tcx(load("tc", "struct __sk_buff", 0).fd, LO, uapi.TCX_INGRESS).close()


def tcx_query(load):
    assert query.tcx_query(LO, uapi.TCX_EGRESS).entries == ()


def netkit(load):
    with pytest.raises(AttachError, match=r"EINVAL|ENXIO"):  # lo is none
        link_netkit(load("tc", "struct __sk_buff", 0).fd, LO, uapi.NETKIT_PRIMARY)


USES = {
    "frags": frags, "live_frames": live_frames, "test_run_context": run_context, "tcx": tcx, "netkit": netkit,
    "tcx query": tcx_query,
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_what_the_kernel_lacks_is_refused_with_the_version_that_brought_it(load, use):
    feature = features.FEATURES[use.split()[0]]
    if features.probe(feature.name):
        USES[use](load)
        return
    with pytest.raises(UnsupportedError) as refused:
        USES[use](load)
    assert feature.since in refused.value.message


def test_why_a_link_was_refused_is_told_by_a_tracepoint_or_by_asking_again(load):
    """Before Linux 6.6 no tracepoint tells it; netlink, asked the same, does."""
    with pytest.raises(AttachError) as refused:
        modes.link(load("xdp", "struct xdp_md").fd, LO, "native")
    assert "native" in refused.value.extack.lower()


def test_kernels_have_what_tests_need_from_their_version_on():
    """What is no feature of xdpctl's is known by its version: seen here, so that no test is left out for nothing."""
    types = kernel.vmlinux()
    assert NEEDS["drop_reasons"]() == ((arguments_of(types, "kfree_skb") or 0) > 2)
    assert NEEDS["module_types"]() == (RELEASE >= (5, 11))
    assert NEEDS["live_frames"]() == NEEDS["frags"]() == (RELEASE >= (5, 18))
    assert NEEDS["tcx"]() == NEEDS["link_extack"]() == (RELEASE >= (6, 6))
