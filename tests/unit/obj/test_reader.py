"""What the reader finds in an object, held against the source and against pyelftools."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from xdpctl.errors import NotFoundError, ObjectError
from xdpctl.obj import elf, reader

SOURCE = """
struct key { __u32 a; __u8 b[4]; };
struct value { __u64 packets, bytes; };
struct {
  __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH); __uint(max_entries, 100); __type(key, struct key);
  __type(value, struct value); __uint(map_flags, BPF_F_NO_COMMON_LRU); __uint(pinning, LIBBPF_PIN_BY_NAME);
} stats SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } events SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, int); __type(value, long); };
struct inner one SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __uint(key_size, 4); __array(values, struct inner);
} outer SEC(".maps") = { .values = { 0, &one } };
SEC("xdp") int target(struct xdp_md *c) { return XDP_PASS; }
struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __array(values, int(void *));
} jumps SEC(".maps") = { .values = { [2] = (void *)&target } };
volatile const int setting = 5;
struct value totals;
static __attribute__((noinline)) int leaf(int x) { return x * bpf_get_smp_processor_id(); }
__attribute__((noinline)) int branch(int x) { return leaf(x) + 1; }
SEC("xdp.frags") int counting(struct xdp_md *c) {
  struct key k = {};
  struct value *v = bpf_map_lookup_elem(&stats, &k);
  totals.packets++;
  if (!v) return branch(setting);
  bpf_perf_event_output(c, &events, BPF_F_CURRENT_CPU, v, sizeof(*v));
  return XDP_PASS;
}
SEC("?tcx/ingress") int later(struct __sk_buff *s) { bpf_tail_call(s, &jumps, 2); return 0; }
SEC("fentry.s/vfs_read") int traced(void *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def path(compiled):
    return compiled(SOURCE)


@pytest.fixture(scope="module")
def obj(path):
    return reader.read(path)


def test_the_object_as_a_whole(obj, path):
    assert obj.path == path
    assert obj.size == path.stat().st_size
    assert (obj.license, obj.has_btf, obj.has_btf_ext, obj.has_line_info) == ("GPL", True, True, True)
    assert obj.byte_order == "little"
    assert obj.flaws == ()


def test_programs_with_what_their_sections_say(obj):
    found = {one.name: one for one in obj.programs}
    assert set(found) == {"target", "counting", "later", "traced"}
    assert (found["counting"].type, found["counting"].attach_type, found["counting"].frags) == (
        "xdp",
        "xdp",
        True,
    )
    assert (found["later"].autoload, found["later"].hook, found["later"].since_libbpf) == (
        False,
        "ingress",
        "1.3",
    )
    assert (found["traced"].sleepable, found["traced"].attach_target) == (True, "vfs_read")


def test_what_a_program_uses_includes_its_subprograms(obj):
    one = obj.program("counting")
    assert one.helpers == ("bpf_get_smp_processor_id", "bpf_map_lookup_elem", "bpf_perf_event_output")
    assert one.subprograms == ("branch", "leaf")
    assert set(one.maps) == {"stats", "events", ".rodata", ".bss"}
    assert one.source.endswith(".bpf.c")
    assert one.instructions > obj.program("target").instructions


def test_btf_defined_maps(obj):
    stats = obj.map("stats")
    assert (stats.type, stats.key_size, stats.value_size, stats.max_entries) == (
        "lru_percpu_hash",
        8,
        16,
        100,
    )
    assert (stats.key_type, stats.value_type) == ("struct key", "struct value")
    assert (stats.flags, stats.pin, stats.definition) == (2, "stats", "btf")
    assert obj.map("events").max_entries == 0
    assert obj.map("events").pin is None


def test_maps_of_maps_and_programs_name_what_they_hold(obj):
    outer, jumps = obj.map("outer"), obj.map("jumps")
    assert (outer.inner, outer.values) == ("array", ("", "one"))
    assert (outer.inner_map.max_entries, outer.inner_map.value_type) == (3, "long")
    assert jumps.values == ("", "", "target")


def test_data_sections_are_maps_of_libbpfs_making(obj):
    assert {one.name for one in obj.maps if one.definition == "internal"} == {".rodata", ".bss"}
    assert obj.map(".rodata").flags & 0x80


def test_globals_with_values(obj):
    setting, totals = obj.global_("setting"), obj.global_("totals")
    assert (setting.type, setting.value, setting.kind, setting.writable) == (
        "const volatile int",
        5,
        "int",
        False,
    )
    assert (totals.section, totals.value, totals.writable) == (".bss", {"packets": 0, "bytes": 0}, True)


@pytest.mark.parametrize(
    ("flags", "legacy"), [((), 'SEC("maps")'), (("-g0",), 'SEC("maps")'), ((), 'SEC("maps/one")')]
)
def test_legacy_maps(compiled, flags, legacy):
    obj = reader.read(
        compiled(
            "struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };"
            f"struct bpf_map_def first {legacy} = {{ .type = 14, .key_size = 4, .value_size = 4, .max_entries = 9 }};"
            f"struct bpf_map_def second {legacy} = {{ .type = 1, .key_size = 8, .value_size = 16, .max_entries = 5 }};"
            'SEC("xdp") int prog(void *c) { return bpf_redirect_map(&first, 0, 0); }',
            *flags,
        )
    )
    assert [(one.name, one.type, one.max_entries, one.definition) for one in obj.maps] == [
        ("first", "devmap", 9, "legacy"),
        ("second", "hash", 5, "legacy"),
    ]
    assert obj.programs[0].redirects[0].map == "first"


def test_without_debug_info_the_names_are_still_there(compiled):
    obj = reader.read(compiled("volatile int x = 3;" + 'SEC("xdp") int prog(void *c) { return x; }', "-g0"))
    assert not obj.has_btf
    assert [(one.name, one.kind, one.size, one.value) for one in obj.globals] == [
        ("x", "unknown", 4, "03000000")
    ]


def test_a_function_alone_in_text_is_a_program_of_unknown_type(compiled):
    obj = reader.read(compiled("int prog(void *c) { return 0; }"))
    assert [(one.name, one.section, one.type, one.type_from) for one in obj.programs] == [
        ("prog", ".text", None, "none")
    ]


def test_big_endian_objects_are_read_as_well(compiled):
    obj = reader.read(compiled(SOURCE, "--target=bpfeb"))
    little = reader.read(compiled(SOURCE))
    assert obj.byte_order == "big"
    assert obj.global_("setting").value == 5
    assert obj.map("jumps").values == little.map("jumps").values
    for one in little.programs:
        other = obj.program(one.name)
        assert (other.helpers, other.maps, other.subprograms) == (one.helpers, one.maps, one.subprograms)


def test_functions_of_old_clang_are_found_and_said_to_be_invisible(compiled, tmp_path):
    """clang before 9 gave them no symbol type: take it away from a new one's."""
    data = bytearray(compiled('SEC("xdp") int prog(struct xdp_md *c) { return 2; }').read_bytes())
    file = elf.parse(bytes(data), "x")
    table = next(one for one in file.sections if one.type == elf.SHT_SYMTAB)
    start = bytes(data).index(table.data)
    for index, symbol in enumerate(file.symbols):
        if symbol.type == elf.STT_FUNC:
            data[start + 24 * index + 4] &= 0xF0
    path = tmp_path / "old.o"
    path.write_bytes(data)
    obj = reader.read(path)
    assert [(one.name, one.type) for one in obj.programs] == [("prog", "xdp")]
    assert [one.id for one in obj.flaws] == ["untyped-function"]


def bad_inputs(good: bytes):
    """name -> (bytes, words of the error)."""
    shoff = struct.unpack_from("<Q", good, 40)[0]
    return {
        "empty": (b"", "is empty"),
        "text": (b"hello, world\n", "not an ELF file"),
        "bitcode": (b"BC\xc0\xde" + bytes(60), "LLVM bitcode"),
        "header_only": (good[:40], "truncated"),
        "cut_in_half": (good[: len(good) // 2], "truncated"),
        "cut_in_the_section_headers": (good[: shoff + 70], "truncated"),
        "32_bit": (good[:4] + b"\1" + good[5:], "32-bit"),
        "x86": (good[:18] + b"\x3e\0" + good[20:], "for x86-64, not for BPF"),
        "unknown_machine": (good[:18] + b"\x99\x99" + good[20:], "machine 39321"),
        "executable": (good[:16] + b"\2\0" + good[18:], "an executable"),
        "no_sections": (good[:40] + bytes(8) + good[48:], "no section headers"),
    }


@pytest.mark.parametrize("name", list(bad_inputs(bytes(100))))
def test_bad_input_is_one_clear_line(name, path, tmp_path):
    data, words = bad_inputs(path.read_bytes())[name]
    broken = tmp_path / f"{name}.o"
    broken.write_bytes(data)
    with pytest.raises(ObjectError, match=words) as caught:
        reader.read(broken)
    assert str(broken) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_source_given_for_an_object_names_the_build_command(tmp_path):
    source = tmp_path / "prog.c"
    source.write_text("int x;\n")
    with pytest.raises(ObjectError) as caught:
        reader.read(source)
    assert f"xdpctl build {source}" in caught.value.hint


def test_no_such_file_suggests_near_ones(path, tmp_path):
    (tmp_path / "count.bpf.o").write_bytes(path.read_bytes())
    with pytest.raises(NotFoundError) as caught:
        reader.read(tmp_path / "cuont.bpf.o")
    assert "count.bpf.o" in caught.value.hint


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/", "/proc/self/mem", "a\0b", "x" * 5000])
def test_things_that_are_no_files_are_refused(name):
    with pytest.raises((ObjectError, NotFoundError)):
        reader.read(Path(name))


def test_an_object_without_program_says_how_one_is_made(compiled):
    with pytest.raises(ObjectError, match="has no program") as caught:
        reader.read(compiled("int only_data = 1;"))
    assert "SEC" in caught.value.hint


def test_our_elf_reader_agrees_with_pyelftools(path):
    from elftools.elf.elffile import ELFFile

    data = path.read_bytes()
    ours = elf.parse(data, "x")
    theirs = ELFFile(io.BytesIO(data))
    assert [one.name for one in ours.sections] == [one.name for one in theirs.iter_sections()]
    for mine, other in zip(ours.sections, theirs.iter_sections(), strict=True):
        assert (mine.size, mine.link, mine.info) == (other["sh_size"], other["sh_link"], other["sh_info"])
        if other["sh_type"] == "SHT_PROGBITS":
            assert mine.data == other.data()
    table = theirs.get_section_by_name(".symtab")
    for mine, other in zip(ours.symbols, table.iter_symbols(), strict=True):
        assert (mine.value, mine.size) == (other["st_value"], other["st_size"])
        if other["st_info"]["type"] != "STT_SECTION":
            assert mine.name == other.name
    for section in theirs.iter_sections():
        if section["sh_type"] == "SHT_REL" and section["sh_info"] in ours.relocations:
            found = ours.relocations[section["sh_info"]]
            for one in section.iter_relocations():
                assert found[one["r_offset"]] == (one["r_info_sym"], one["r_info_type"])
