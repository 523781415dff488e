"""Objects load, with the values they were given, or say why not.

These tests, as all test_bpf_* and test_libbpf_*, run with another libbpf where XDPCTL_LIBBPF names one.
"""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest

from xdpctl.bpf import features, pins, query, verifier
from xdpctl.bpf import object as bpf_object
from xdpctl.bpf.object import Object
from xdpctl.errors import ConfigError, MapError, NotFoundError, ObjectError, UnsupportedError, VerifierError
from xdpctl.libbpf import uapi

pytestmark = pytest.mark.kernel

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""
GLOBALS = (
    HEAD
    + """
volatile const __u32 limit = 5;
__u64 total = 7;
__u32 zero;
SEC("xdp") int add(struct xdp_md *ctx) { total += limit; zero++; return limit & 0xff; }
SEC("xdp") int other(struct xdp_md *ctx) { return XDP_DROP; }
"""
)
PINNED = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, ENTRIES); __type(key, __u32); __type(value, __u64);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } shared SEC(".maps");
SEC("xdp") int p(struct xdp_md *ctx)
{ __u32 k = 0; __u64 *v = bpf_map_lookup_elem(&shared, &k); if (v) (*v)++; return XDP_PASS; }
"""
)
FRAME = bytes(64)
OUTSIDE = "^R1 (offset is outside of the packet|min value is outside of the allowed memory range)$"
"""Why `rejected_o` is rejected, in kernels' words."""


@pytest.fixture(autouse=True)
def _logs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def globals_o(compile_c):
    return compile_c(GLOBALS, "globals")


def named(owner, suffix):
    return next(one for name, one in owner.maps.items() if name.endswith(suffix))


def test_an_object_shows_programs_and_maps_before_anything_reaches_the_kernel(globals_o):
    before = {one.id for one in query.programs()}
    with Object.open(globals_o) as opened:
        assert list(opened.programs) == ["add", "other"]
        assert {name.partition(".")[2] for name in opened.maps} == {"rodata", "data", "bss"}
        assert (opened.programs["add"].section, opened.programs["add"].type) == ("xdp", "xdp")
        assert not opened.programs["add"].loaded
        ours = [one.id for one in query.programs() if one.name in opened.programs]
        assert before.issuperset(ours)  # others come and go
        with pytest.raises(ConfigError, match="program add is not loaded"):
            _ = opened.programs["add"].fd
        with pytest.raises(ConfigError, match="is not loaded"):
            _ = named(opened, ".bss").fd


def test_globals_set_before_load_are_what_the_program_sees(globals_o):
    with Object.open(globals_o) as opened:
        assert named(opened, ".rodata").initial_value() == struct.pack("=I", 5)
        assert named(opened, ".data").initial_value()[:8] == struct.pack("=Q", 7)
        named(opened, ".rodata").set_initial_value(struct.pack("=I", 40))
        named(opened, ".data").patch_initial_value(0, struct.pack("=Q", 2))
        opened.load()
        assert opened.programs["add"].test_run(FRAME).retval == 40
        with named(opened, ".data").mapped() as live:
            assert struct.unpack_from("=Q", live) == (42,)


def test_a_mapped_global_is_live_in_both_directions(globals_o):
    with Object.open(globals_o) as opened:
        opened.load()
        with named(opened, ".data").mapped() as live:
            struct.pack_into("=Q", live, 0, 1000)
            opened.programs["add"].test_run(FRAME, repeat=3)
            assert struct.unpack_from("=Q", live) == (1015,)


def test_constants_are_frozen_after_load(globals_o):
    with Object.open(globals_o) as opened:
        opened.load()
        constants = named(opened, ".rodata")
        with constants.mapped(writable=False) as view:
            assert struct.unpack_from("=I", view) == (5,)
        with pytest.raises(MapError, match="can't be mapped: EPERM"):
            constants.mapped()
        with pytest.raises(MapError, match="no initial value any more"):
            constants.set_initial_value(bytes(4))


@pytest.mark.parametrize(("offset", "size"), [(0, 5), (-1, 1), (4, 1), (3, 2)])
def test_a_value_outside_of_the_globals_is_refused(globals_o, offset, size):
    with Object.open(globals_o) as opened, pytest.raises(MapError, match="has 4 bytes"):
        named(opened, ".rodata").patch_initial_value(offset, bytes(size))


def test_a_program_left_out_is_not_loaded(globals_o):
    with Object.open(globals_o) as opened:
        opened.programs["other"].set_autoload(False)
        assert not opened.programs["other"].autoload
        opened.load()
        assert opened.programs["add"].loaded
        assert not opened.programs["other"].loaded


def test_what_a_closed_object_held_is_gone_and_says_so(globals_o):
    opened = Object.open(globals_o)
    opened.load()
    program, one = opened.programs["add"], named(opened, ".data")
    opened.close()
    opened.close()
    with pytest.raises(ConfigError, match="is closed already"):
        _ = program.fd
    with pytest.raises(ConfigError, match="is closed already"):
        _ = one.key_size


def test_loading_twice_is_refused(globals_o):
    with Object.open(globals_o) as opened:
        opened.load()
        with pytest.raises(ConfigError, match="loaded already"):
            opened.load()


def test_a_misspelt_name_suggests_the_right_one(globals_o):
    with Object.open(globals_o) as opened:
        with pytest.raises(NotFoundError) as caught:
            opened.program("addd")
        assert caught.value.near == ["add"]
        with pytest.raises(NotFoundError):
            opened.map("nothing")


def test_nothing_is_pinned_unless_asked_for(compile_c):
    with Object.open(compile_c(PINNED, None, "-DENTRIES=1")) as opened:
        assert opened.maps["shared"].pin_path is None
        opened.load()
        assert not [one for one in Path("/sys/fs/bpf").iterdir() if one.suffix != ".debug"]


def test_a_map_pinned_by_its_mark_is_shared_by_the_next_object(compile_c):
    path = compile_c(PINNED, None, "-DENTRIES=1")
    root = pins.root() / "maps/of/app"
    for round_ in (1, 2):
        with Object.open(path, pin_root=root) as opened:
            assert opened.maps["shared"].pin_path == root / "shared"
            opened.load()
            opened.programs["p"].test_run(FRAME)
            assert opened.maps["shared"].lookup(bytes(4)) == struct.pack("=Q", round_)
    assert list(pins.walk()) == [root / "shared"]


def test_a_pinned_map_of_another_shape_is_told_with_its_path(compile_c):
    root = pins.root() / "maps"
    with Object.open(compile_c(PINNED, None, "-DENTRIES=1"), pin_root=root) as opened:
        opened.load()
    with Object.open(compile_c(PINNED, None, "-DENTRIES=2"), pin_root=root) as opened:
        with pytest.raises(MapError) as caught:
            opened.load()
        assert str(root / "shared") in str(caught.value)


def test_a_section_that_says_nothing_loads_with_the_type_given(compile_c):
    path = compile_c(HEAD + 'SEC("prog") int p(struct xdp_md *ctx) { return XDP_TX; }')
    with Object.open(path) as opened:
        assert opened.programs["p"].type == "unspec"
        with pytest.raises(ObjectError, match="section name prog"):
            opened.load()
    with Object.open(path) as opened:
        opened.programs["p"].set_type("xdp", uapi.XDP)
        opened.load()
        assert opened.programs["p"].info().type == "xdp"
        assert opened.programs["p"].test_run(FRAME).retval == 3


def test_tcx_sections_load_with_any_libbpf(compile_c):
    with Object.open(
        compile_c(HEAD + 'SEC("tcx/ingress") int p(struct __sk_buff *s) { return 0; }')
    ) as opened:
        opened.programs["p"].set_type("sched_cls", uapi.TCX_INGRESS)
        opened.load()
        assert opened.programs["p"].expected_attach_type == uapi.TCX_INGRESS
        assert opened.programs["p"].info().type == "sched_cls"


def test_an_unknown_type_lists_the_known_ones(globals_o):
    with Object.open(globals_o) as opened, pytest.raises(ConfigError) as caught:
        opened.programs["add"].set_type("xpd")
    assert "sched_cls" in caught.value.hint


@pytest.fixture(scope="module")
def rejected_o(compile_c):
    return compile_c(
        HEAD
        + "static __noinline int deref(struct xdp_md *ctx) {\n  void *data = (void *)(long)ctx->data;\n"
        + '  return *(int *)data;\n}\nSEC("xdp") int bad(struct xdp_md *ctx) { return deref(ctx); }\n',
        "rejected",
    )


def test_a_rejected_program_shows_the_telling_line_and_the_c_line(rejected_o):
    with Object.open(rejected_o) as opened, pytest.raises(VerifierError) as caught:
        opened.load()
    error = caught.value
    assert error.program == "bad"
    assert re.search(OUTSIDE, error.line)
    assert re.fullmatch(r"rejected\.bpf\.c:\d+: return \*\(int \*\)data;", error.source)
    assert error.log_file.read_text() == error.log
    assert "processed" in error.log


def test_the_c_line_is_found_by_line_info_where_the_log_does_not_give_it(rejected_o):
    with Object.open(rejected_o) as opened, pytest.raises(VerifierError) as caught:
        opened.load()
    as_before_6_9 = re.sub(r" @ \S+:\d+$", "", caught.value.log, flags=re.MULTILINE)
    assert "rejected.bpf.c" not in as_before_6_9
    again = verifier.rejected("bad", rejected_o, as_before_6_9, section="xdp")
    assert again.source == caught.value.source


def test_a_verifier_log_longer_than_the_room_keeps_its_end(rejected_o, monkeypatch):
    monkeypatch.setattr(bpf_object, "LOG_BYTES", 256)
    with Object.open(rejected_o) as opened, pytest.raises(VerifierError) as caught:
        opened.load()
    # before Linux 6.4 a log keeps its beginning (kernel/bpf/log.c); what came in 6.6 tells
    if features.probe("link_extack"):
        assert re.search(OUTSIDE, caught.value.line)
    assert "whole" not in caught.value.hint


REDIRECT = 'SEC("xdp") int p(struct xdp_md *c) { return bpf_redirect_map(&m, 0, 0); }'
READ = 'SEC("xdp") int p(struct xdp_md *c) { struct net_device *d = (void *)(long)c->data; return d->gone; }'
HASH = "__uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64);"
LOOKUP = 'SEC("xdp") int p(struct xdp_md *c) { __u32 k = 1; return !!bpf_map_lookup_elem(&m, &k); }'
CPUMAP = (
    "__uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 65536); __type(key, __u32); __type(value, __u32);"
)
OF_MAPS = "__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32);"
GONE = "struct net_device { int gone; } __attribute__((preserve_access_index));"
FAILING = {  # name: (C, error, what it says)
    "max-entries": (
        f'struct {{ {HASH} }} m SEC(".maps"); {LOOKUP}',
        MapError,
        "map m of .* could not be created: EINVAL",
    ),
    "cpumap": (
        f'struct {{ {CPUMAP} }} m SEC(".maps"); {REDIRECT}',
        MapError,
        "map m of .* could not be created: E2BIG",
    ),
    "kfunc": (
        'extern int no_such_kfunc(int) __ksym; SEC("xdp") int p(struct xdp_md *c) { return no_such_kfunc(3); }',
        UnsupportedError,
        "needs the kernel function no_such_kfunc",
    ),
    "kconfig": (
        'extern int CONFIG_NO_SUCH __kconfig; SEC("xdp") int p(struct xdp_md *c) { return CONFIG_NO_SUCH; }',
        UnsupportedError,
        "needs the kernel option CONFIG_NO_SUCH|needs the kernel's configuration",
    ),
    "freplace": ('SEC("freplace/f") int p(struct xdp_md *c) { return 2; }', ObjectError, "not told of which"),
    "fentry": (
        'SEC("fentry/no_such_function") int p(void *c) { return 0; }',
        UnsupportedError,
        "needs the kernel function no_such_function",
    ),
    "relocation": (
        GONE + READ,
        VerifierError,
        "CO-RE relocation .*net_device.gone",
    ),
    "map-of-maps": (f'struct {{ {OF_MAPS} }} m SEC(".maps"); {LOOKUP}', MapError, "array_of_maps"),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_can_t_load_is_told_in_one_line(compile_c, case):
    source, kind, says = FAILING[case]
    with Object.open(compile_c(HEAD + source)) as opened, pytest.raises(kind, match=says) as caught:
        opened.load()
    assert "\n" not in str(caught.value)


def test_maps_of_the_old_form_are_told(compile_c):
    source = (
        'struct def { unsigned type, key, value, max, flags; }; struct def SEC("maps") m = {1, 4, 4, 4, 0};'
        'SEC("xdp") int p(struct xdp_md *c) { __u32 k = 0; return !!bpf_map_lookup_elem(&m, &k); }'
    )
    with pytest.raises(ObjectError) as caught:
        Object.open(compile_c(HEAD + source))
    assert 'SEC("maps")' in str(caught.value)


def test_an_object_cut_short_anywhere_raises_only_our_errors(globals_o, tmp_path):
    whole, path = globals_o.read_bytes(), tmp_path / "cut.o"
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ObjectError):
            Object.open(path)


@pytest.mark.shared
def test_a_damaged_object_raises_only_our_errors(globals_o, tmp_path):
    whole, path, random_ = globals_o.read_bytes(), tmp_path / "damaged.o", random.Random(1)  # noqa: S311
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(random_.choice([1, 2, 8])):
            damaged[random_.randrange(64, len(damaged))] = random_.choice([0, 255, random_.randrange(256)])
        path.write_bytes(damaged)
        try:
            Object.open(path).close()
        except ObjectError:
            refused += 1
    assert refused > 20


def test_nothing_stays_loaded_after_a_failure(compile_c):
    before = {one.name for one in query.maps()}
    source = (
        "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32);"
        ' __type(value, __u64); } leftover SEC(".maps");'
        'SEC("xdp") int p(struct xdp_md *c) { __u32 k = 0; __u64 *v = bpf_map_lookup_elem(&leftover, &k); return *v; }'
    )
    with Object.open(compile_c(HEAD + source)) as opened, pytest.raises(VerifierError):
        opened.load()
    assert "leftover" not in {one.name for one in query.maps()} - before
