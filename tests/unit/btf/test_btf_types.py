"""BTF blobs made by hand, so that each kind is known to the byte; and how their types are written in C."""

from __future__ import annotations

import struct

import pytest

from xdpctl.btf.names import declare, spell
from xdpctl.btf.parse import ENUM, INT, STRUCT, parse
from xdpctl.btf.types import GLOBAL, Array, Composite, Enum, Int, Modifier, Section
from xdpctl.btf.values import decode, encode
from xdpctl.errors import ConfigError, ObjectError


class Blob:
    """Puts a .BTF blob together; every method returns the new type's id."""

    def __init__(self, order: str = "<") -> None:
        self.order, self.types, self.strings, self.count = order, b"", b"\0", 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(
        self,
        kind: int,
        name: str = "",
        size: int = 0,
        *,
        vlen: int = 0,
        flag: bool = False,
        body: bytes = b"",
    ):
        info = kind << 24 | vlen | flag << 31
        self.types += struct.pack(self.order + "III", self.name(name), info, size) + body
        self.count += 1
        return self.count

    def words(self, *numbers: int) -> bytes:
        return struct.pack(f"{self.order}{len(numbers)}I", *(one & 0xFFFFFFFF for one in numbers))

    def int(self, name: str, size: int, encoding: int = 0, bits: int = 0, offset: int = 0):
        return self.add(1, name, size, body=self.words(encoding << 24 | offset << 16 | (bits or 8 * size)))

    def pointer(self, target: int):
        return self.add(2, "", target)

    def array(self, element: int, length: int):
        return self.add(3, "", 0, body=self.words(element, element, length))

    def struct(
        self,
        name: str,
        size: int,
        *members: tuple[str, int, int],
        bitfields: bool = False,
        union: bool = False,
    ):
        body = b"".join(self.words(self.name(one), of, offset) for one, of, offset in members)
        return self.add(5 if union else 4, name, size, vlen=len(members), flag=bitfields, body=body)

    def enum(self, name: str, size: int, *values: tuple[str, int], signed: bool = False):
        body = b"".join(self.words(self.name(one), value) for one, value in values)
        return self.add(6, name, size, vlen=len(values), flag=signed, body=body)

    def enum64(self, name: str, *values: tuple[str, int], signed: bool = False):
        body = b"".join(self.words(self.name(one), value, value >> 32) for one, value in values)
        return self.add(19, name, 8, vlen=len(values), flag=signed, body=body)

    def modifier(self, kind: int, target: int, name: str = ""):
        return self.add(kind, name, target)

    def prototype(self, result: int, *parameters: tuple[str, int]):
        body = b"".join(self.words(self.name(one), of) for one, of in parameters)
        return self.add(13, "", result, vlen=len(parameters), body=body)

    def bytes(self) -> bytes:
        head = struct.pack(
            self.order + "HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return head + self.types + self.strings

    def parse(self):
        return parse(self.bytes())


TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG = 8, 9, 10, 11, 18


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def blob(request):
    return Blob(request.param)


def test_types_are_numbered_from_one_and_found_by_name(blob):
    number = blob.int("int", 4, encoding=1)
    of = blob.struct("pair", 8, ("a", number, 0), ("b", number, 32))
    btf = blob.parse()
    assert len(btf) == 2
    assert isinstance(btf.type(number), Int)
    assert btf.find("pair", STRUCT).id == of
    assert btf.find("pair", INT) is None
    assert btf.find("pai") is None
    assert [one.id for one in btf.of_kind(STRUCT)] == [of]
    assert {name: [one.id for one in found] for name, found in btf.find_many(["pair", "none"]).items()} == {
        "pair": [of]
    }


def test_find_many_takes_flavors_of_a_name(blob):
    blob.struct("task___old", 0)
    blob.struct("taskset", 0)
    assert [one.name for one in blob.parse().find_many(["task"])["task"]] == ["task___old"]


def test_split_btf_goes_on_where_its_base_ends(blob):
    number = blob.int("int", 4, encoding=1)
    base = blob.parse()
    split = Blob(blob.order)
    split.types = struct.pack(blob.order + "III", base.string_end + 1, 8 << 24, number)
    split.strings = b"\0mine\0"
    btf = parse(split.bytes(), base=base)
    assert spell(btf, 2) == "mine"
    assert btf.size_of(2) == 4
    assert btf.find("int").id == number
    assert btf.find("mine").id == 2


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda b, i: b.pointer(i), "int *x"),
        (lambda b, i: b.pointer(0), "void *x"),
        (lambda b, i: b.array(i, 6), "int x[6]"),
        (lambda b, i: b.array(b.array(i, 3), 2), "int x[2][3]"),
        (lambda b, i: b.array(i, 0), "int x[]"),
        (lambda b, i: b.pointer(b.modifier(CONST, i)), "const int *x"),
        (lambda b, i: b.modifier(CONST, b.pointer(i)), "int * const x"),
        (lambda b, i: b.modifier(VOLATILE, b.modifier(CONST, i)), "volatile const int x"),
        (lambda b, i: b.pointer(b.array(i, 4)), "int (*x)[4]"),
        (lambda b, i: b.array(b.pointer(i), 4), "int *x[4]"),
        (lambda b, i: b.pointer(b.prototype(i, ("a", i), ("", 0))), "int (*x)(int a, ...)"),
        (lambda b, i: b.pointer(b.prototype(0)), "void (*x)(void)"),
        (lambda b, i: b.pointer(b.prototype(b.pointer(i), ("", b.pointer(0)))), "int *(*x)(void *)"),
        (lambda b, i: b.modifier(TYPEDEF, i, "__s32"), "__s32 x"),
        (lambda b, i: b.struct("s", 0), "struct s x"),
        (lambda b, i: b.struct("", 0, union=True), "union {...} x"),
        (lambda b, i: b.enum("e", 4), "enum e x"),
        (lambda b, i: b.add(7, "fwd", flag=True), "union fwd x"),
        (lambda b, i: b.pointer(b.modifier(TYPE_TAG, i, "rcu")), "int *x"),
        (lambda b, i: b.add(16, "double", 8), "double x"),
    ],
)
def test_declarations_read_as_in_c(blob, build, text):
    of = build(blob, blob.int("int", 4, encoding=1))
    assert declare(blob.parse(), of, "x") == text


def test_a_type_alone_has_no_name_and_no_blank_at_its_end(blob):
    number = blob.int("__u8", 1)
    of = blob.array(number, 6)
    assert spell(blob.parse(), of) == "__u8[6]"


@pytest.mark.parametrize("kind", [TYPEDEF, CONST, VOLATILE])
def test_a_modifier_of_itself_is_an_error_and_no_endless_loop(blob, kind):
    blob.modifier(kind, 1, "loop" if kind == TYPEDEF else "")
    btf = blob.parse()
    for ask in (btf.resolve, btf.size_of, lambda one: decode(btf, one, bytes(8))):
        with pytest.raises(ObjectError):
            ask(1)


def test_an_array_of_itself_has_no_size(blob):
    blob.array(1, 2)
    with pytest.raises(ObjectError):
        blob.parse().size_of(1)


def test_a_struct_in_itself_is_cut_off(blob):
    blob.struct("s", 8, ("", 1, 0))
    btf = blob.parse()
    with pytest.raises(ObjectError, match="nested deeper"):
        decode(btf, 1, bytes(8))


def test_an_array_that_lies_about_its_length_ends_at_the_data(blob):
    number = blob.int("int", 4)
    of = blob.array(number, 1 << 30)
    empty = blob.array(blob.struct("nothing", 0), 1 << 31)
    btf = blob.parse()
    with pytest.raises(ObjectError, match="goes beyond"):
        decode(btf, of, bytes(64))
    with pytest.raises(ObjectError, match="more than"):
        decode(btf, empty, bytes(64))


@pytest.mark.parametrize("cut", [0, 3, 12, 23, 24, 40])
def test_a_truncated_blob_is_an_object_error(blob, cut):
    blob.struct("pair", 8, ("a", blob.int("int", 4), 0))
    with pytest.raises(ObjectError):
        parse(blob.bytes()[:cut])


def test_dangling_ids_and_strings_are_object_errors(blob):
    blob.pointer(99)
    blob.types += struct.pack(blob.order + "III", 5000, 8 << 24, 1)
    btf = blob.parse()
    with pytest.raises(ObjectError, match="type 99"):
        spell(btf, 1)
    with pytest.raises(ObjectError, match="string offset"):
        btf.type(2)


def test_an_unknown_kind_is_an_error_of_its_own_only(blob):
    blob.add(30, "later")
    number = blob.int("int", 4)
    btf = blob.parse()
    assert btf.type(number).name == "int"
    with pytest.raises(ObjectError, match="kind 30"):
        btf.type(1)


def test_sections_and_variables_keep_linkage_and_offsets(blob):
    number = blob.int("int", 4)
    variable = blob.add(14, "counter", number, body=blob.words(GLOBAL))
    blob.add(15, ".bss", 4, vlen=1, body=blob.words(variable, 12, 4))
    section = blob.parse().type(3)
    assert isinstance(section, Section)
    assert [(one.type, one.offset, one.size) for one in section.variables] == [(variable, 12, 4)]


# --- values


def both_ways(blob, of: int, value, data: bytes) -> None:
    btf = blob.parse()
    assert decode(btf, of, data) == value
    assert encode(btf, of, value) == data


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_integers_of_every_size_go_both_ways(blob, size, signed):
    of = blob.int("n", size, encoding=int(signed))
    order = "little" if blob.order == "<" else "big"
    high = (1 << 8 * size - signed) - 1
    low = -high - 1 if signed else 0
    for value in (0, 1, high, low):
        both_ways(blob, of, value, value.to_bytes(size, order, signed=signed))
    for value in (high + 1, low - 1):
        with pytest.raises(ConfigError, match="does not fit"):
            encode(blob.parse(), of, value)


def test_booleans_and_floats_go_both_ways(blob):
    flag = blob.int("_Bool", 1, encoding=4)
    single, double = blob.add(16, "float", 4), blob.add(16, "double", 8)
    both_ways(blob, flag, True, b"\1")
    both_ways(blob, single, 1.5, struct.pack(blob.order + "f", 1.5))
    both_ways(blob, double, -2.25, struct.pack(blob.order + "d", -2.25))
    with pytest.raises(ConfigError):
        encode(blob.parse(), flag, 2)
    with pytest.raises(ConfigError):
        encode(blob.parse(), double, "much")


def test_enumerators_go_by_name_or_number(blob):
    small = blob.enum("e", 4, ("A", 1), ("B", -2), signed=True)
    unsigned = blob.enum("u", 4, ("TOP", 0xFFFFFFFF))
    wide = blob.enum64("w", ("HUGE", 1 << 40), ("NEG", -5), signed=True)
    btf = blob.parse()
    assert btf.type(small).values == (("A", 1), ("B", -2))
    assert btf.type(unsigned).values == (("TOP", 0xFFFFFFFF),)
    assert btf.type(wide).values == (("HUGE", 1 << 40), ("NEG", -5))
    assert isinstance(btf.find("e", ENUM), Enum)
    assert encode(btf, small, "B") == encode(btf, small, -2)
    assert decode(btf, wide, encode(btf, wide, "HUGE")) == 1 << 40
    with pytest.raises(ConfigError, match="one of A, B"):
        encode(btf, small, "C")


def test_structs_take_members_by_name_also_of_anonymous_ones(blob):
    number = blob.int("__u32", 4)
    half = blob.int("__u16", 2)
    inner = blob.struct("", 4, ("v4", number, 0), ("port", half, 16), union=True)
    of = blob.struct("key", 12, ("a", number, 0), ("", inner, 32), ("c", number, 64))
    btf = blob.parse()
    data = encode(btf, of, {"a": 1, "v4": 2, "c": 3})
    assert data == struct.pack(blob.order + "III", 1, 2, 3)
    assert set(decode(btf, of, data)) == {"a", "v4", "port", "c"}
    with pytest.raises(ConfigError, match="no member d"):
        encode(btf, of, {"d": 1})


def test_what_a_value_does_not_mention_is_kept(blob):
    number = blob.int("__u32", 4)
    of = blob.struct("pair", 8, ("a", number, 0), ("b", number, 32))
    btf = blob.parse()
    assert encode(btf, of, {"b": 9}, into=encode(btf, of, {"a": 7})) == encode(btf, of, {"a": 7, "b": 9})


def test_bitfields_go_both_ways_across_bytes(blob):
    number = blob.int("__u32", 4)
    signed = blob.int("int", 4, encoding=1)
    of = blob.struct(
        "flags",
        4,
        ("a", number, 3 << 24 | 0),
        ("b", number, 13 << 24 | 3),
        ("c", signed, 16 << 24 | 16),
        bitfields=True,
    )
    btf = blob.parse()
    value = {"a": 5, "b": 0x1234 & 0x1FFF, "c": -3}
    assert decode(btf, of, encode(btf, of, value)) == value
    with pytest.raises(ConfigError, match="does not fit"):
        encode(btf, of, {"a": 8})
    first = encode(btf, of, {"a": 7})
    assert first == (b"\x07\0\0\0" if blob.order == "<" else b"\xe0\0\0\0")


def test_text_fills_a_char_array_and_bytes_a_byte_array(blob):
    char, byte = blob.int("char", 1, encoding=1), blob.int("__u8", 1)
    text, mac = blob.array(char, 8), blob.array(byte, 6)
    both_ways(blob, text, "eth0", b"eth0\0\0\0\0")
    both_ways(blob, mac, [1, 2, 3, 4, 5, 255], bytes([1, 2, 3, 4, 5, 255]))
    btf = blob.parse()
    assert encode(btf, mac, b"\1\2") == bytes([1, 2, 0, 0, 0, 0])
    assert decode(btf, text, b"ab\0cd\0\0\0") == [97, 98, 0, 99, 100, 0, 0, 0]
    for value in ("much too long", [1] * 9, 5):
        with pytest.raises(ConfigError):
            encode(btf, text, value)


def test_arrays_of_arrays_nest_and_pointers_are_addresses(blob):
    number = blob.int("__u16", 2)
    of = blob.array(blob.array(number, 2), 2)
    both_ways(blob, of, [[1, 2], [3, 4]], struct.pack(blob.order + "4H", 1, 2, 3, 4))
    both_ways(blob, blob.pointer(number), 1 << 63, struct.pack(blob.order + "Q", 1 << 63))


def test_resolve_goes_through_all_modifiers(blob):
    number = blob.int("int", 4)
    of = blob.modifier(TYPEDEF, blob.modifier(CONST, blob.modifier(VOLATILE, number)), "t")
    btf = blob.parse()
    assert btf.resolve(of) == btf.type(number)
    assert isinstance(btf.type(of), Modifier)
    assert btf.size_of(blob.count) == 4


def test_array_and_composite_keep_what_the_blob_says(blob):
    number = blob.int("int", 4)
    array = blob.array(number, 3)
    of = blob.struct("s", 16, ("a", array, 0), ("b", number, 96))
    btf = blob.parse()
    assert isinstance(btf.type(array), Array)
    assert isinstance(btf.type(of), Composite)
    assert [(one.name, one.bit_offset) for one in btf.type(of).members] == [("a", 0), ("b", 96)]
