"""The verdict as a function of an object and of facts about a kernel that need not be this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xdpctl.btf.parse import parse as parse_btf
from xdpctl.obj import core, reader
from xdpctl.obj.kernel import KernelFacts, PinnedMap, gather
from xdpctl.obj.maprules import RULES, broken
from xdpctl.obj.model import ObjMap
from xdpctl.obj.sections import from_type
from xdpctl.obj.verdict import concerning, fails, verdict, with_type

HEALTHY = KernelFacts(
    release="6.18.0",
    libbpf=(1, 7),
    byte_order="little",
    possible_cpus=2,
    nr_cpus=256,
    btf=True,
    privileged=True,
)
PASS = 'SEC("xdp") int prog(struct xdp_md *c) { return XDP_PASS; }'


def judge(obj, facts=HEALTHY, **more):
    return {one.id: one for one in verdict(obj, replace(facts, **more))}


def read(compiled, source=PASS, *flags):
    return reader.read(compiled(source, *flags))


def test_a_plain_program_has_no_problem(compiled):
    assert judge(read(compiled)) == {}


def test_without_libbpf_nothing_loads(compiled):
    assert judge(read(compiled), libbpf=None)["no-libbpf"].severity == "fail"


def test_an_alias_loads_with_us_and_not_with_libbpf_alone(compiled):
    obj = read(compiled, PASS.replace('"xdp"', '"xdp_root"'))
    assert judge(obj)["alias-section"].severity == "warn"
    alone = verdict(obj, HEALTHY, loader="libbpf")
    assert [(one.id, one.severity) for one in alone] == [("alias-section", "fail")]
    assert 'SEC("xdp")' in alone[0].hint


def test_a_name_that_tells_nothing_needs_a_type_and_with_it_is_fine(compiled):
    obj = read(compiled, PASS.replace('"xdp"', '"main"'))
    assert "--type" in judge(obj)["unknown-section"].hint
    typed = with_type(obj, from_type("xdp"))
    assert judge(typed) == {}
    assert typed.programs[0].type_from == "type"


def test_type_is_for_programs_that_have_none(compiled):
    obj = with_type(read(compiled), from_type("tc"))
    assert obj.programs[0].type == "xdp"


def test_an_older_libbpf_is_told_apart_from_one_that_we_can_help(compiled):
    obj = read(compiled, 'SEC("tcx/ingress") int prog(struct __sk_buff *s) { return 0; }')
    assert judge(obj) == {}
    assert judge(obj, libbpf=(1, 2))["libbpf-too-old"].severity == "warn"
    traced = read(compiled, 'SEC("fsession/vfs_read") int prog(void *c) { return 0; }')
    assert judge(traced, libbpf=(1, 6))["libbpf-too-old"].severity == "fail"


def test_programs_not_loaded_by_default_are_not_judged(compiled):
    obj = read(compiled, PASS + 'SEC("?main") int other(void *c) { return 0; }')
    assert judge(obj) == {}


def test_trampolines_that_the_kernel_refuses(compiled):
    obj = read(compiled, 'SEC("fentry/vfs_read") int prog(void *c) { return 0; }')
    targets = {("trace_fentry", "vfs_read"): "EPERM"}
    assert "EPERM" in judge(obj, targets=targets)["target-refused"].message
    targets = {("trace_fentry", "vfs_read"): "missing"}
    assert "does not have" in judge(obj, targets=targets)["missing-function"].message
    assert judge(obj, btf=False)["no-btf"].severity == "fail"
    assert judge(obj, targets={("trace_fentry", "vfs_read"): None}) == {}


def test_helpers_and_types_that_the_kernel_lacks(compiled):
    obj = read(compiled, 'SEC("xdp") int prog(struct xdp_md *c) { return bpf_xdp_get_buff_len(c) ? 1 : 2; }')
    helpers = {("xdp", "bpf_xdp_get_buff_len"): False}
    assert "bpf_xdp_get_buff_len" in judge(obj, helpers=helpers)["helper"].message
    assert judge(obj, program_types={"xdp": False})["program-type"].where == "prog"
    assert judge(obj, helpers={("xdp", "bpf_xdp_get_buff_len"): True}) == {}


def test_frags_on_a_kernel_without(compiled):
    obj = read(compiled, PASS.replace('"xdp"', '"xdp.frags"'))
    assert judge(obj, frags=False)["frags"].severity == "fail"
    assert judge(obj, frags=None) == {}


def test_weak_externs_may_be_missing_and_strong_ones_not(compiled):
    source = (
        'extern int one(void) __attribute__((section(".ksyms"), weak));'
        'extern int two(void) __attribute__((section(".ksyms")));'
        'SEC("xdp") int prog(void *c) { return (one ? one() : 0) + two(); }'
    )
    obj = read(compiled, source)
    found = verdict(obj, replace(HEALTHY, externs={"one": False, "two": False}))
    assert {(one.id, one.severity) for one in found} == {("missing-kfunc", "fail"), ("missing-kfunc", "warn")}
    assert verdict(obj, replace(HEALTHY, externs={"one": True, "two": True})) == []


def cpumap(compiled, entries):
    return read(
        compiled,
        "struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __type(key, int); __type(value, int);"
        f' __uint(max_entries, {entries}); }} cpus SEC(".maps");' + PASS,
    )


@pytest.mark.parametrize(("entries", "expected"), [(2, None), (3, "warn"), (256, "warn"), (257, "fail")])
def test_a_cpumap_may_exceed_the_cpus_but_not_what_the_kernel_was_built_for(compiled, entries, expected):
    found = list(judge(cpumap(compiled, entries)).values())
    assert [one.severity for one in found] == ([expected] if expected else [])
    if found:
        assert found[0].hint == "--map cpus=max_entries=2"


def pinned(compiled, kind="HASH"):
    return read(
        compiled,
        f"struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __type(key, int); __type(value, int);"
        ' __uint(max_entries, 4); __uint(pinning, LIBBPF_PIN_BY_NAME); } table SEC(".maps");' + PASS,
    )


def test_a_pinned_map_of_another_shape_is_in_the_way(compiled):
    obj = pinned(compiled)
    same = PinnedMap(Path("/b/table"), "hash", 4, 4, 4, 0)
    assert judge(obj, pinned={"table": same}) == {}
    other = replace(same, value_size=8, max_entries=5)
    problem = judge(obj, pinned={"table": other})["pin-mismatch"]
    assert "value size 8 there, 4 here" in problem.message
    assert "max_entries 5 there, 4 here" in problem.message


def test_a_pinned_devmap_is_never_found_again_by_libbpf_before_1_7(compiled):
    obj = pinned(compiled, "DEVMAP")
    there = PinnedMap(Path("/b/table"), "devmap", 4, 4, 4, 0x80)
    assert judge(obj, libbpf=(1, 6), pinned={"table": there})["pin-mismatch"].severity == "fail"
    assert judge(obj, libbpf=(1, 7), pinned={"table": there}) == {}


def test_problems_of_other_programs_do_not_concern_one(compiled):
    obj = read(compiled, PASS + 'SEC("main") int other(void *c) { return 0; }')
    found = verdict(obj, HEALTHY)
    assert fails(found)
    assert concerning(found, obj, "prog") == []
    assert [one.id for one in concerning(found, obj, "other")] == ["unknown-section"]


def test_failures_come_first(compiled):
    obj = read(compiled, 'SEC("xdp_a") int a(void *c) { return 2; } SEC("main") int b(void *c) { return 0; }')
    assert [one.severity for one in verdict(obj, HEALTHY)] == ["fail", "warn"]


def test_core_relocations_need_a_kernel_that_describes_itself(compiled):
    source = (
        "struct task_struct { int pid; } __attribute__((preserve_access_index));"
        'SEC("raw_tp/x") int prog(struct task_struct **c) { return (*c)->pid; }'
    )
    obj = read(compiled, source)
    assert obj.core_relocations == 1
    assert judge(obj, btf=False)["no-btf"].severity == "fail"
    assert judge(obj, poisoned={"prog": ("struct task_struct.pid",)})["core-missing"].where == "prog"


def test_gathering_without_trying_needs_no_privilege(compiled):
    facts = gather(read(compiled), probe=False)
    assert not facts.privileged
    assert facts.possible_cpus >= 1
    assert facts.helpers == {}


# --- sizes of maps


def table(kind, key=4, value=4, entries=4, flags=0):
    return ObjMap("m", kind, key, value, entries, flags, "btf")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (table("hash"), set()),
        (table("hash", key=0), {"key"}),
        (table("array", key=8), {"key"}),
        (table("array", value=0), {"value"}),
        (table("devmap", value=8), set()),
        (table("devmap", value=12), {"value"}),
        (table("stack_trace", value=1016), set()),
        (table("stack_trace", value=12), {"value"}),
        (table("lpm_trie", key=8), {"flags"}),
        (table("lpm_trie", key=4, flags=1), {"key"}),
        (table("queue"), {"key"}),
        (table("ringbuf", key=0, value=0, entries=4096), set()),
        (table("ringbuf", key=0, value=0, entries=0), {"entries"}),
        (table("sk_storage", entries=0, flags=1), set()),
        (table("sk_storage"), {"entries", "flags"}),
        (table("perf_event_array", entries=0), set()),
        (table("percpu_array", value=40000), {"value"}),
        (table("type 99"), set()),
    ],
    ids=lambda one: (
        f"{one.type}-{one.key_size}-{one.value_size}-{one.max_entries}" if isinstance(one, ObjMap) else ""
    ),
)
def test_rules_of_map_sizes(one, expected):
    assert {what for what, _ in broken(one)} == expected


def test_every_rule_is_for_a_type_that_exists():
    from xdpctl.obj.kinds import MAP_TYPES

    assert set(RULES) <= set(MAP_TYPES)


# --- CO-RE, against another object's types in the kernel's place

KERNEL = """
enum state { RUNNING, STOPPED };
struct inner { int deep; };
struct task_struct { int pid; struct { long hidden; union { struct inner in; }; }; char comm[16]; struct inner *next; };
typedef int pid_type;
int use(struct task_struct *t, enum state s, pid_type p) { return 0; }
struct task_struct keep; enum state state; pid_type p;
SEC("xdp") int prog(void *c) { return keep.pid + state + p; }
"""
ASKED = {
    # how the relocation reads: (expression, whether KERNEL has it)
    "struct task_struct.pid": ("t->pid", True),
    "struct task_struct.hidden": ("t->hidden", True),
    "struct task_struct.gone": ("t->gone", False),
    "struct task_struct.in.deep": ("t->in.deep", True),
    "struct task_struct.in.deeper": ("t->in.deeper", False),
    "struct task_struct.comm[3]": ("t->comm[3]", True),
    "struct task_struct___new.pid": ("((struct task_struct___new *)t)->pid", True),
    "struct task_struct___new.added": ("((struct task_struct___new *)t)->added", False),
    "struct no_such_struct.x": ("((struct no_such_struct *)t)->x", False),
    "enum state::RUNNING": ("__builtin_preserve_enum_value(*(enum state *)RUNNING, 1)", True),
    "enum state::FROZEN": ("__builtin_preserve_enum_value(*(enum state *)FROZEN, 1)", False),
}
QUESTIONS = {"pid": 1, "gone": 0}
ASKING = (
    """
#define CORE __attribute__((preserve_access_index))
enum state { RUNNING = 7, FROZEN = 9 };
struct inner { int deep; int deeper; } CORE;
struct task_struct { int pid; long hidden; int gone; struct inner in; char comm[16]; struct inner *next; } CORE;
struct task_struct___new { int pid; int added; } CORE;
struct no_such_struct { int x; } CORE;
"""
    + "".join(
        f'SEC("raw_tp/x") int ask{number}(struct task_struct **c) {{ struct task_struct *t = *c; return {text}; }}\n'
        for number, (text, _) in enumerate(ASKED.values())
    )
    + "".join(
        f'SEC("raw_tp/q") int exists_{name}(struct task_struct **c)'
        f" {{ return __builtin_preserve_field_info((*c)->{name}, 2); }}\n"
        for name in QUESTIONS
    )
)


@pytest.fixture(scope="module")
def answers(compiled):
    """(section, how it reads) -> answer, for every relocation of ASKING."""
    kernel = reader.read(compiled(KERNEL)).btf
    obj = reader.read(compiled(ASKING))
    rows = [(section, one) for section, many in obj.ext.relocations.items() for one in many]
    candidates = kernel.find_many(core.named([one for _, one in rows], obj.btf))
    found = [(section, core.resolve(obj.btf, one, kernel, candidates)) for section, one in rows]
    return {(section, one.what): one for section, one in found}


@pytest.mark.parametrize("what", ASKED)
def test_relocations_are_found_as_libbpf_does(answers, what):
    answer = answers["raw_tp/x", what]
    assert answer.found is ASKED[what][1]
    assert answer.poisoned is not answer.found


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_become_constants(answers, name):
    answer = answers["raw_tp/q", f"struct task_struct.{name}"]
    assert (answer.constant, answer.poisoned) == (QUESTIONS[name], False)


def test_the_kernels_own_btf_is_read_if_it_is_there():
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        return
    btf = parse_btf(path.read_bytes())
    assert btf.find("task_struct") is not None
    assert btf.find("bpf_func_id") is not None
