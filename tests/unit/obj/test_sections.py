"""Section names: libbpf's table, and the aliases that are safe."""

from __future__ import annotations

import pytest

from xdpctl.obj.kinds import ATTACH_TYPE_NUMBERS, PROGRAM_TYPE_NUMBERS
from xdpctl.obj.sections import SECTION_NAMES, alias, attach_function, from_type, lookup, meaning, type_names


def test_every_row_names_a_type_and_attach_type_that_exist():
    for row in SECTION_NAMES:
        assert row.type in PROGRAM_TYPE_NUMBERS, row
        assert row.attach_type is None or row.attach_type in ATTACH_TYPE_NUMBERS, row


@pytest.mark.parametrize(
    ("section", "type_", "attach_type", "target"),
    [
        ("xdp", "xdp", "xdp", None),
        ("?xdp", "xdp", "xdp", None),
        ("xdp.frags/devmap", "xdp", "xdp/devmap", None),
        ("tcx/egress", "sched_cls", "tcx/egress", None),
        ("tc", "sched_cls", None, None),
        ("fentry/vfs_read", "tracing", "trace_fentry", "vfs_read"),
        ("kprobe/a+0x10", "kprobe", None, "a+0x10"),
        ("kprobe", "kprobe", None, None),
        ("freplace/xdp_pass", "ext", None, "xdp_pass"),
        ("cgroup/connect_unix", "cgroup_sock_addr", "cgroup_unix_connect", None),
    ],
)
def test_names_that_libbpf_knows(section, type_, attach_type, target):
    found = lookup(section)
    assert (found.type, found.attach_type, found.target) == (type_, attach_type, target)
    assert found.origin == "section"


def test_frags_and_sleepable_come_from_the_name():
    assert lookup("xdp.frags").frags
    assert not lookup("xdp").frags
    assert lookup("fentry.s/f").sleepable


@pytest.mark.parametrize(
    ("section", "since"),
    [
        ("tcx/ingress", "1.3"),
        ("netkit/peer", "1.3"),
        ("netfilter", "1.3"),
        ("struct_ops.s/x", "1.2"),
        ("sk_skb/verdict", "1.4"),
        ("kprobe.session/x", "1.5"),
        ("uprobe.session/x", "1.6"),
        ("fsession/x", "1.7"),
        ("xdp", None),
    ],
)
def test_newer_names_say_since_when(section, since):
    assert lookup(section).since == since
    assert lookup(section, libbpf=(1, 7)) is not None
    if since:
        major, minor = map(int, since.split("."))
        assert lookup(section, libbpf=(major, minor - 1)) is None
        assert lookup(section, libbpf=(major, minor)) is not None


@pytest.mark.parametrize(
    "section", ["xdp_root", "xdp/upf", "xdpx", "tc-ingress", "kprobes/x", "tracepoint_x", "fentryx"]
)
def test_libbpf_is_strict(section):
    assert lookup(section) is None


@pytest.mark.parametrize(
    ("section", "type_", "attach_type"),
    [
        ("xdp_root", "xdp", "xdp"),
        ("xdp/upf", "xdp", "xdp"),
        ("xdp-filter", "xdp", "xdp"),
        ("xdp1", "xdp", "xdp"),
        ("xdp.frags/upf", "xdp", "xdp"),
        ("xdp_devmap/prog", "xdp", "xdp/devmap"),
        ("xdp_cpumap/prog", "xdp", "xdp/cpumap"),
        ("classifier/x", "sched_cls", None),
        ("classifier_egress", "sched_cls", None),
        ("tc-ingress", "sched_cls", None),
        ("tc/x", "sched_cls", None),
        ("tcx-ingress", "sched_cls", "tcx/ingress"),
        ("action/drop", "sched_act", None),
        ("socket1", "socket_filter", None),
        ("socket/http_filter", "socket_filter", None),
        ("sk_msg/x", "sk_msg", "sk_msg_verdict"),
        ("cgroup_skb/egress/x", "cgroup_skb", "cgroup_inet_egress"),
        ("sockops/x", "sock_ops", "cgroup_sock_ops"),
    ],
)
def test_aliases_that_are_safe(section, type_, attach_type):
    found = alias(section)
    assert (found.type, found.attach_type, found.origin) == (type_, attach_type, "alias")
    assert meaning(section) == found


@pytest.mark.parametrize(
    "section",
    "prog|ingress|egress|filter|main|2/1|xdpfoo|tcp_filter|tcpdump|xdp_devmap_x|xdp/devmap2|socketpair|from-container"
    "|maps|.text||actionable|XDP_root|lirc_mode".split("|"),
)
def test_names_that_say_nothing_safe(section):
    assert alias(section) is None
    assert meaning(section) is None


def test_frags_survive_an_alias_and_tc_names_tell_their_hook():
    assert alias("xdp.frags/upf").frags
    assert not alias("xdp/frags").frags
    assert alias("tc-ingress").hook == "ingress"
    assert alias("classifier/egress_main").hook == "egress"
    assert alias("classifier/ingress_to_egress").hook is None
    assert alias("xdp_ingress").hook is None


def test_type_option_takes_sections_and_program_types():
    assert from_type("xdp").attach_type == "xdp"
    assert from_type("tc").type == "sched_cls"
    assert from_type("xdp.frags").frags
    assert from_type("sched_cls").attach_type is None
    assert from_type("BPF_PROG_TYPE_SOCKET_FILTER").type == "socket_filter"
    assert from_type("prog") is None
    assert from_type("unspec") is None
    assert {"xdp", "tc", "tcx/ingress", "sched_cls"} <= set(type_names())
    assert all(from_type(name) is not None for name in type_names())


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("fentry/vfs_read", "vfs_read"),
        ("?fexit.s/vfs_read", "vfs_read"),
        ("tp_btf/xdp_exception", "btf_trace_xdp_exception"),
        ("lsm/file_open", "bpf_lsm_file_open"),
        ("iter/tcp", "bpf_iter_tcp"),
        ("freplace/f", None),
        ("kprobe/f", None),
        ("xdp", None),
    ],
)
def test_what_the_kernels_btf_calls_a_target(section, name):
    assert attach_function(section) == name
