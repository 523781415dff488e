"""Objects of our own in every style that fails or seems to: the verdict beforehand, then the real load."""

from __future__ import annotations

import os
import re

import pytest
from kernels import CONFIG, FRAGS, NETDEV, RELEASE, SYSCALL_PROGRAMS

from xdpctl.bpf.object import Object
from xdpctl.errors import XdpctlError
from xdpctl.libbpf.library import version
from xdpctl.obj import reader, sections
from xdpctl.obj.kernel import gather
from xdpctl.obj.kinds import ATTACH_TYPE_NUMBERS
from xdpctl.obj.verdict import fails, verdict

pytestmark = pytest.mark.kernel

OLDER = {
    "frags": (FRAGS, {"frags"}),
    "xdp_cpumap": (FRAGS, {"frags"}),
    "metadata_kfunc_without_device": (NETDEV, {"missing-kfunc", "device-bound"}),
    "helper_of_another_type": (RELEASE >= (6, 10), {"helper"}),
    "sleepable_syscall": (SYSCALL_PROGRAMS, {"program-type"}),
    "kconfig": (CONFIG, {"missing-kconfig"}),
    "missing_weak_kconfig": (CONFIG, {"missing-kconfig"}),
    "netfilter": (RELEASE >= (6, 4), {"program-type"}),
}
"""Specimen -> (this kernel has what it takes, what is said where it doesn't)."""

HEAD = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif
#define MAP(t, k, v, n) { __uint(type, t); __type(key, k); __type(value, v); __uint(max_entries, n); }
"""
GPL = 'char _license[] SEC("license") = "GPL";\n'
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { return XDP_PASS; }\n'
LOOKUP = (
    'SEC("xdp") int prog(struct xdp_md *ctx) { int k = 0; return bpf_map_lookup_elem(&m, &k) ? 1 : 2; }\n'
)


def program(section: str, body: str = "return 2;", context: str = "void") -> str:
    return f'SEC("{section}") int prog({context} *ctx) {{ {body} }}\n'


def table(kind: str, key: str = "int", value: str = "int", entries: str = "4", more: str = "") -> str:
    return (
        f"struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __type(key, {key}); __type(value, {value});"
        f' __uint(max_entries, {entries}); {more} }} m SEC(".maps");\n'
    )


CPUS = len(os.sched_getaffinity(0))
SPECIMENS: dict[str, tuple[str, set[str]]] = {
    # name: (source, ids of the failures that loading "with xdpctl without options" meets)
    "plain_xdp": (XDP, set()),
    "no_license_and_no_gpl_helper": (XDP, set()),
    "alias_xdp_root": (program("xdp_root"), set()),
    "alias_xdp_upf": (program("xdp/upf"), set()),
    "alias_xdp_frags": (program("xdp.frags/upf"), set()),
    "alias_xdp_devmap_old": (program("xdp_devmap/x"), set()),
    "alias_tc_ingress": (program("tc-ingress"), set()),
    "alias_classifier": (program("classifier/x"), set()),
    "alias_action": (program("action/x"), set()),
    "alias_socket": (program("socket/x"), set()),
    "alias_sockops": (program("sockops/x", "return 1;"), set()),
    "alias_sk_msg": (program("sk_msg/x"), set()),
    "alias_perf_event": (program("perf_event/x"), set()),
    "alias_lwt_xmit": (program("lwt_xmit/x", "return 0;"), set()),
    "alias_cgroup_skb": (program("cgroup_skb/egress/x", "return 1;"), set()),
    "section_prog": ('SEC("prog") int main_(void *ctx) { return 2; }\n', {"unknown-section"}),
    "section_ingress": (program("ingress"), {"unknown-section"}),
    "section_numbers_of_iproute2": (program("2/1"), {"unknown-section"}),
    "section_xdp_devmap_alone": (program("xdp_devmap_x"), {"unknown-section"}),
    "section_text": ("int prog(void *ctx) { return 0; }\n", {"unknown-section"}),
    "tcx_before_libbpf_1_3": (program("tcx/ingress"), set()),
    "tc_ingress_before_libbpf_1_3": (program("tc/ingress"), set()),
    "netkit_before_libbpf_1_3": (program("netkit/primary"), set()),
    "frags": (program("xdp.frags"), set()),
    "xdp_devmap": (program("xdp/devmap"), set()),
    "xdp_cpumap": (program("xdp.frags/cpumap"), set()),
    "not_loaded_by_default": (XDP + 'SEC("?prog") int other(void *ctx) { return 0; }\n', set()),
    "static_program": (
        (
            'SEC("xdp") static int prog(struct xdp_md *c) { return 2; }\nSEC("xdp") int other(struct xdp_md *c)'
            " { return 2; }\nvoid *keep = prog;\n"
        ),
        {"static-program"},
    ),
    "legacy_maps": (
        "struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };\n"
        'struct bpf_map_def m SEC("maps") = { .type = 1, .key_size = 4, .value_size = 4, .max_entries = 4 };\n'
        + LOOKUP,
        {"legacy-maps"},
    ),
    "legacy_maps_of_gobpf": (
        "struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };\n"
        'struct bpf_map_def m SEC("maps/m") = { .type = 1, .key_size = 4, .value_size = 4, .max_entries = 4 };\n'
        + LOOKUP,
        {"legacy-maps"},
    ),
    "max_entries_zero": (table("HASH", entries="0") + LOOKUP, {"max-entries-zero"}),
    "perf_event_array_without_size": (table("PERF_EVENT_ARRAY", entries="0") + XDP, set()),
    "unused_map_is_made_all_the_same": (table("HASH", entries="0") + XDP, {"max-entries-zero"}),
    "array_key_of_8_bytes": (table("ARRAY", key="long") + LOOKUP.replace("int k", "long k"), {"map-sizes"}),
    "devmap_of_8_bytes": (table("DEVMAP", value="long") + XDP, set()),
    "devmap_of_16_bytes": (table("DEVMAP", value="__int128") + XDP, {"map-sizes"}),
    "xskmap": (table("XSKMAP") + XDP, set()),
    "lpm_without_no_prealloc": (table("LPM_TRIE", key="long") + XDP, {"map-sizes"}),
    "lpm": (table("LPM_TRIE", key="long", more="__uint(map_flags, BPF_F_NO_PREALLOC);") + XDP, set()),
    "percpu_value_too_large": (table("PERCPU_ARRAY", value="struct { char x[40000]; }") + XDP, {"map-sizes"}),
    "ringbuf_odd_size_is_rounded": (
        'struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 5000); } m SEC(".maps");\n' + XDP,
        set(),
    ),
    "ringbuf_zero": (
        'struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 0); } m SEC(".maps");\n' + XDP,
        {"max-entries-zero"},
    ),
    "ringbuf_with_value": (table("RINGBUF", entries="4096") + XDP, {"map-sizes"}),
    "queue_with_key": (table("QUEUE") + XDP, {"map-sizes"}),
    "sk_storage": (
        table("SK_STORAGE", entries="0", more="__uint(map_flags, BPF_F_NO_PREALLOC);") + XDP,
        set(),
    ),
    "sk_storage_with_size": (
        table("SK_STORAGE", more="__uint(map_flags, BPF_F_NO_PREALLOC);") + XDP,
        {"map-sizes"},
    ),
    "cpumap_beyond_possible_cpus": (table("CPUMAP", entries=str(CPUS + 1)) + XDP, set()),
    "cpumap_beyond_nr_cpus": (table("CPUMAP", entries="100000") + XDP, {"cpumap-too-large"}),
    "map_of_unknown_field": (
        "struct { __uint(type, 1); __uint(max_entries, 1); __type(key, int); __type(value, int);"
        ' __uint(color, 3); } m SEC(".maps");\n' + XDP,
        {"map-definition"},
    ),
    "map_without_type": (
        'struct { __uint(max_entries, 1); __type(key, int); __type(value, int); } m SEC(".maps");\n' + XDP,
        {"map-definition"},
    ),
    "static_map": (
        "static struct { __uint(type, 1); __uint(max_entries, 1); __type(key, int); __type(value, int); }"
        ' m SEC(".maps");\n' + LOOKUP,
        {"map-definition"},
    ),
    "map_of_maps": (
        "struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int);"
        ' __type(value, int); } one SEC(".maps");\n'
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, int);"
        ' __array(values, struct inner); } m SEC(".maps") = { .values = { &one } };\n' + LOOKUP,
        set(),
    ),
    "map_of_maps_without_inner": (table("ARRAY_OF_MAPS") + XDP, {"no-inner-map"}),
    "map_of_maps_inner_of_zero": (
        "struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 0); __type(key, int);"
        " __type(value, int); };\n"
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, int);"
        ' __array(values, struct inner); } m SEC(".maps");\n' + XDP,
        {"map-sizes"},
    ),
    "tail_call": (
        table("PROG_ARRAY") + program("xdp", "bpf_tail_call(ctx, &m, 1); return 2;", "struct xdp_md"),
        set(),
    ),
    "tail_call_through_an_array": (
        table("ARRAY") + program("xdp", "bpf_tail_call(ctx, &m, 1); return 2;", "struct xdp_md"),
        {"map-misused"},
    ),
    "tail_call_slots_given": (
        'SEC("xdp") int one(struct xdp_md *c) { return 2; }\n'
        "struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4);"
        ' __array(values, int (void *)); } m SEC(".maps") = { .values = { [1] = (void *)&one } };\n'
        + program("xdp", "bpf_tail_call(ctx, &m, 1); return 2;", "struct xdp_md"),
        set(),
    ),
    "redirect_map_through_a_hash": (
        table("HASH") + program("xdp", "return bpf_redirect_map(&m, 1, 0);", "struct xdp_md"),
        {"map-misused"},
    ),
    "redirect_map_through_a_devmap_hash": (
        table("DEVMAP_HASH") + program("xdp", "return bpf_redirect_map(&m, 1, 0);", "struct xdp_md"),
        set(),
    ),
    "freplace_without_target": (program("freplace/xdp_pass"), {"freplace-target"}),
    "fentry_of_a_missing_function": (program("fentry/no_such_function", "return 0;"), {"missing-function"}),
    "fentry_without_function": (program("fentry", "return 0;"), {"no-target"}),
    "tp_btf": (program("tp_btf/xdp_exception", "return 0;"), set()),
    "tp_btf_missing": (program("tp_btf/no_such_event", "return 0;"), {"missing-function"}),
    "iterator": (program("iter/bpf_map", "return 0;"), set()),
    "missing_kfunc": (
        "extern int bpf_no_such_kfunc(void) __ksym;\n" + program("xdp", "return bpf_no_such_kfunc();"),
        {"missing-kfunc"},
    ),
    "missing_weak_kfunc": (
        "extern int bpf_no_such_kfunc(void) __ksym __weak;\n"
        + program("xdp", "return bpf_no_such_kfunc ? bpf_no_such_kfunc() : 2;"),
        set(),
    ),
    "metadata_kfunc_without_device": (
        "extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *t) __ksym;\n"
        + program("xdp", "__u64 t; return bpf_xdp_metadata_rx_timestamp(ctx, &t) ? 1 : 2;", "struct xdp_md"),
        {"device-bound"},
    ),
    "missing_kernel_variable": (
        "extern const void no_such_symbol __ksym;\n" + program("xdp", "return (long)&no_such_symbol;"),
        {"missing-ksym"},
    ),
    "undefined_function": (
        "int defined_elsewhere(void *ctx);\n" + program("xdp", "return defined_elsewhere(ctx);"),
        {"extern-without-btf"},
    ),
    "kconfig": (
        "extern unsigned long CONFIG_HZ __kconfig;\nextern int LINUX_KERNEL_VERSION __kconfig;\n"
        + program("xdp", "return CONFIG_HZ > 1000 && LINUX_KERNEL_VERSION ? 1 : 2;"),
        set(),
    ),
    "missing_kconfig": (
        "extern int CONFIG_NO_SUCH_THING __kconfig;\n" + program("xdp", "return CONFIG_NO_SUCH_THING;"),
        {"missing-kconfig"},
    ),
    "missing_weak_kconfig": (
        "extern int CONFIG_NO_SUCH_THING __kconfig __weak;\n"
        + program("xdp", "return CONFIG_NO_SUCH_THING ? 1 : 2;"),
        set(),
    ),
    "unknown_virtual_kconfig": (
        "extern int LINUX_NO_SUCH_THING __kconfig;\n" + program("xdp", "return LINUX_NO_SUCH_THING;"),
        {"missing-kconfig"},
    ),
    "helper_of_another_type": (program("xdp", "return bpf_get_current_pid_tgid();"), set()),
    "helper_not_for_xdp": (
        program("xdp", "return bpf_skb_vlan_pop((void *)ctx);", "struct xdp_md"),
        {"helper"},
    ),
    "gpl_helper_without_license": (program("xdp", 'bpf_printk("x"); return 2;'), {"license"}),
    "dual_license": (
        program("xdp", 'bpf_printk("x"); return 2;') + 'char l[] SEC("license") = "Dual MIT/GPL";\n',
        set(),
    ),
    "bsd_license": (
        program("xdp", 'bpf_printk("x"); return 2;') + 'char l[] SEC("license") = "Dual BSD/MIT";\n',
        {"license"},
    ),
    "core_missing_field": (
        "struct net_device { int no_such_member; } __attribute__((preserve_access_index));\n"
        + program(
            "tp_btf/xdp_exception", "struct net_device *d = (void *)*(long *)ctx; return d->no_such_member;"
        ),
        {"core-missing"},
    ),
    "core_missing_field_asked_before": (
        "struct net_device { int no_such_member; unsigned int mtu; } __attribute__((preserve_access_index));\n"
        + program(
            "tp_btf/xdp_exception",
            "struct net_device *d = (void *)*(long *)ctx;"
            " if (__builtin_preserve_field_info(d->no_such_member, 2)) return d->no_such_member; return d->mtu;",
        ),
        set(),
    ),
    "core_missing_field_behind_a_constant": (
        "struct net_device { int no_such_member; unsigned int mtu; } __attribute__((preserve_access_index));\n"
        "const volatile _Bool old = 0;\n"
        + program(
            "tp_btf/xdp_exception",
            "struct net_device *d = (void *)*(long *)ctx; if (old) return d->no_such_member; return d->mtu;",
        ),
        set(),
    ),
    "long_program_name": (
        f'SEC("xdp") int {"p" * 100}(struct xdp_md *ctx) {{ return 2; }}\n',
        set(),
    ),
    "very_long_program_name": (
        f'SEC("xdp") int {"p" * 600}(struct xdp_md *ctx) {{ return 2; }}\n',
        set(),
    ),
    "long_map_name": (re.sub(r"\bm\b", "m" * 100, table("HASH") + LOOKUP), set()),
    "long_map_name_pinned": (
        re.sub(r"\bm\b", "m" * 250, table("HASH", more="__uint(pinning, 1);") + LOOKUP),
        set(),
    ),
    "map_name_too_long_for_a_file": (
        re.sub(r"\bm\b", "m" * 256, table("HASH", more="__uint(pinning, 1);") + LOOKUP),
        {"pin-name"},
    ),
    "pinned_map": (table("HASH", more="__uint(pinning, 1);") + LOOKUP, set()),
    "pinning_of_another_kind": (table("HASH", more="__uint(pinning, 2);") + LOOKUP, {"map-definition"}),
    "sleepable_syscall": (program("syscall", "return 0;"), set()),
    "kprobe": (program("kprobe/do_unlinkat", "return 0;"), set()),
    "tracepoint": (program("tracepoint/xdp/xdp_exception", "return 0;"), set()),
    "uprobe_multi_before_libbpf_1_3": (program("uprobe.multi//bin/sh:main", "return 0;"), set()),
    "netfilter": (program("netfilter", "return 1;"), set()),
    "struct_in_bss": (
        "struct { int a; long b; } state;\n" + program("xdp", "return state.a++ ? 1 : 2;"),
        set(),
    ),
    "two_programs_one_section": (XDP + 'SEC("xdp") int other(struct xdp_md *c) { return 1; }\n', set()),
    "subprograms": (
        "static __attribute__((noinline)) int sub(int x) { return x * 3; }\n"
        "__attribute__((noinline)) int glob(int x) { return sub(x) + 1; }\n"
        + program("xdp", "return glob(ctx->rx_queue_index) ? 1 : 2;", "struct xdp_md"),
        set(),
    ),
}


def load(path, pins, *, loader: str, obj) -> str | None:
    """Load as the verdict means it: None, or why it was refused."""
    try:
        with Object.open(path, pin_root=pins) as opened:
            if loader == "xdpctl":
                for one in obj.programs:
                    since = sections.version(one.since_libbpf or "1.0")
                    if one.type_from == "alias" or since > version():
                        number = ATTACH_TYPE_NUMBERS[one.attach_type] if one.attach_type else None
                        opened.program(one.name).set_type(one.type, number)
            opened.load()
            return None if opened.programs else "no program"
    except XdpctlError as error:
        return f"{type(error).__name__}: {error.message}"


@pytest.fixture
def pins(tmp_path_factory):
    from pathlib import Path

    folder = Path("/sys/fs/bpf/specimens")
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", SPECIMENS)
def test_verdict_of_a_specimen_is_what_loading_does(name, compile_c, pins):
    source, expected = SPECIMENS[name]
    has, older = OLDER.get(name, (True, expected))
    expected = expected if has else older
    license_ = "" if "license" in name else GPL
    path = compile_c(HEAD + source + license_, f"specimen_{name}", "-Wno-everything")
    obj = reader.read(path)
    facts = gather(obj, pin_root=pins)
    for loader in ("libbpf", "xdpctl"):
        problems = verdict(obj, facts, loader=loader)
        said = {one.id: one.message for one in problems if one.severity == "fail"}
        happened = load(path, pins, loader=loader, obj=obj)
        for left in pins.iterdir():
            left.unlink()
        assert fails(problems) == (happened is not None), (loader, said, happened)
        if loader == "xdpctl":
            assert set(said) == expected, (said, happened)
