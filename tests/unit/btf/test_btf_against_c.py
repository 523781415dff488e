"""Our layouts agree with C: random structs, compiled by clang with BTF, against what a C program says of the same.

One program for all structs: for each it fills the members by assignment, prints the bytes, and prints the members back
from bytes that we made.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest

from xdpctl.btf.layout import layout
from xdpctl.btf.parse import STRUCT, parse
from xdpctl.btf.values import decode, encode
from xdpctl.obj import elf

STRUCTS = 60
SCALARS = {
    "signed char": (8, True), "unsigned char": (8, False), "short": (16, True), "unsigned short": (16, False),
    "int": (32, True), "unsigned int": (32, False), "long long": (64, True), "unsigned long long": (64, False),
    "__int128": (128, True), "unsigned __int128": (128, False), "_Bool": (1, False),
    "u32_t": (32, False), "const_t": (16, False), "enum small": (32, False),
}  # fmt: skip
PRELUDE = """
typedef unsigned int u32_t;
typedef volatile unsigned short const_t;
enum small { SMALL_A, SMALL_B = 7, SMALL_TOP = 0xfffffffful };
"""
BITFIELDS = ("int", "unsigned int", "unsigned long long", "long long", "unsigned char", "_Bool")


class Address(int):
    """A pointer's value."""


class Maker:
    """Random struct definitions, and random values for them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same structs in every run
        self.text: list[str] = []
        self.named: list[tuple[str, list]] = []
        self.count = 0

    def members(self, depth: int, union: bool) -> tuple[str, list]:
        """C text of members, and their description: (name, kind, ...)."""
        lines, shape = [], []
        for _ in range(self.random.randint(1, 3 if union else 6)):
            self.count += 1
            name = f"m{self.count}"
            pick = self.random.random()
            if pick < 0.4 or depth > 2:
                of = self.random.choice(sorted(SCALARS))
                lines.append(f"{of} {name};")
                shape.append((name, "number", *SCALARS[of]))
            elif pick < 0.5:
                of = self.random.choice(BITFIELDS)
                width, signed = SCALARS[of]
                bits = self.random.randint(1, width)
                lines.append(f"{of} {name} : {bits};")
                shape.append((name, "number", bits, signed))
                if self.random.random() < 0.3:
                    lines.append(f"{of} : {self.random.choice((0, 1))};")
            elif pick < 0.6:
                of = self.random.choice(("float", "double"))
                lines.append(f"{of} {name};")
                shape.append((name, "float"))
            elif pick < 0.65:
                lines.append(
                    self.random.choice((f"struct nowhere *{name};", f"int (*{name})(char, void *);"))
                )
                shape.append((name, "pointer"))
            elif pick < 0.7:
                length = self.random.randint(1, 9)
                lines.append(f"char {name}[{length}];")
                shape.append((name, "text", length))
            elif pick < 0.8:
                of = self.random.choice(sorted(SCALARS))
                sizes = [self.random.randint(1, 3) for _ in range(self.random.randint(1, 2))]
                lines.append(f"{of} {name}{''.join(f'[{one}]' for one in sizes)};")
                shape.append((name, "array", sizes, *SCALARS[of]))
            elif pick < 0.87 and self.named:
                tag, inner = self.random.choice(self.named)
                lines.append(f"struct {tag} {name};")
                shape.append((name, "struct", inner))
            else:
                is_union = self.random.random() < 0.4
                text, inner = self.members(depth + 1, is_union)
                anonymous = self.random.random() < 0.5
                lines.append(f"{'union' if is_union else 'struct'} {{ {text} }} {'' if anonymous else name};")
                inner = inner[:1] if is_union else inner
                if anonymous:
                    shape += inner
                else:
                    shape.append((name, "struct", inner))
        return " ".join(lines), shape

    def struct(self) -> None:
        """Define one more."""
        text, shape = self.members(0, union=False)
        tag = f"s{len(self.named)}"
        packed = " __attribute__((packed))" if self.random.random() < 0.2 else ""
        self.text.append(f"struct {tag} {{ {text} }}{packed};")
        self.named.append((tag, shape))

    def value(self, shape: list) -> dict:
        """A value with every member that a union leaves."""
        return {one[0]: self.one(one) for one in shape}

    def one(self, member: tuple):
        kind = member[1]
        if kind == "number":
            return self.number(*member[2:])
        if kind == "pointer":
            return Address(self.number(64, False))
        if kind == "float":
            return float(self.random.randint(-4096, 4096)) / 8
        if kind == "text":
            return "".join(self.random.choice("abcXYZ 09") for _ in range(member[2] - 1)).rstrip() + "z"
        if kind == "struct":
            return self.value(member[2])

        def array(sizes: list):
            return [array(sizes[1:]) if sizes[1:] else self.number(*member[3:]) for _ in range(sizes[0])]

        return array(member[2])

    def number(self, bits: int, signed: bool) -> int:
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return self.random.choice((low, high, self.random.randint(low, high)))


def assignments(place: str, value, out: list[str]) -> None:
    """C statements that fill a struct."""
    if isinstance(value, dict):
        for name, one in value.items():
            assignments(f"{place}.{name}", one, out)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            assignments(f"{place}[{index}]", one, out)
    elif isinstance(value, str):
        out += [f"{place}[{index}] = {ord(one)};" for index, one in enumerate(value)]
    elif isinstance(value, float):
        out.append(f"{place} = {value!r};")
    else:
        raw = value & (1 << 128) - 1
        text = f"(unsigned __int128){raw >> 64}ull << 64 | {raw & (1 << 64) - 1}ull"
        out.append(
            f"{place} = (void *)(unsigned long)({text});"
            if isinstance(value, Address)
            else f"{place} = {text};"
        )


def leaves(place: str, value, out: list[str]) -> None:
    """C statements that print each member, in the order of `flat`."""
    if isinstance(value, dict):
        for name, one in value.items():
            leaves(f"{place}.{name}", one, out)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            leaves(f"{place}[{index}]", one, out)
    elif isinstance(value, str):
        out.append(f'printf("%.*s\\n", (int)sizeof {place}, {place});')
    elif isinstance(value, float):
        out.append(f'printf("%.3f\\n", (double){place});')
    elif isinstance(value, Address):
        out.append(f"number((unsigned long){place}, 0);")
    else:
        out.append(f"number((__int128){place}, {place} < 0);")


def flat(value) -> list[str]:
    """The same lines from Python."""
    if isinstance(value, dict):
        return [line for one in value.values() for line in flat(one)]
    if isinstance(value, list):
        return [line for one in value for line in flat(one)]
    if isinstance(value, float):
        return [f"{value:.3f}"]
    if isinstance(value, str):
        return [value]
    value = int(value)
    return [f"{'-' if value < 0 else ''}{abs(value):x}"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Struct tag -> (value, our bytes, C's bytes, what C read from ours), and the BTF."""
    folder = tmp_path_factory.mktemp("against_c")
    maker = Maker(seed=int(os.environ.get("XDPCTL_SEED", "5")))
    for _ in range(STRUCTS):
        maker.struct()
    header = PRELUDE + "\n".join(maker.text)
    globals_ = "\n".join(f"struct {tag} g_{tag};" for tag, _ in maker.named)
    (folder / "types.c").write_text(f"{header}\n{globals_}\n")
    subprocess.run(
        ["clang", "-target", "bpf", "-g", "-O1", "-c", "types.c", "-o", "types.o"],
        cwd=folder,
        check=True,
        timeout=60,
    )
    section = elf.parse((folder / "types.o").read_bytes(), "types.o").section(".BTF")
    btf = parse(section.data)
    values, blocks = {}, []
    for tag, shape in maker.named:
        value = values[tag] = maker.value(shape)
        filled, printed = [], []
        assignments("v", value, filled)
        leaves("w", value, printed)
        ours = encode(btf, btf.find(tag, STRUCT).id, value)
        array = ", ".join(str(one) for one in ours)
        blocks.append(
            f"static void do_{tag}(void) {{\n struct {tag} v; memset(&v, 0, sizeof v);\n {' '.join(filled)}\n"
            f' printf("{tag} "); bytes(&v, sizeof v);\n'
            f" static const unsigned char ours[] = {{ {array} }};\n"
            f" struct {tag} w; memset(&w, 0, sizeof w); memcpy(&w, ours, sizeof ours);\n {' '.join(printed)}\n}}\n"
        )
    main = "int main(void) { " + " ".join(f"do_{tag}();" for tag, _ in maker.named) + " return 0; }"
    (folder / "main.c").write_text(
        "#include <stdio.h>\n#include <string.h>\n"
        + header
        + "\nstatic void bytes(const void *at, int n) { for (int i = 0; i < n; i++)"
        ' printf("%02x", ((const unsigned char *)at)[i]); printf(" %d\\n", n); }\n'
        "static void number(__int128 v, int negative) { unsigned __int128 u = v;\n"
        ' if (negative) { printf("-"); u = -u; }\n'
        ' unsigned long long h = u >> 64, l = u; if (h) printf("%llx%016llx\\n", h, l); else printf("%llx\\n", l); }\n'
        + "".join(blocks)
        + main
    )
    subprocess.run(
        ["clang", "-w", "-O0", "-fno-strict-aliasing", "main.c", "-o", "main"],
        cwd=folder,
        check=True,
        timeout=60,
    )
    lines = subprocess.run(
        [folder / "main"], check=True, capture_output=True, text=True, timeout=20
    ).stdout.splitlines()
    told, at = {}, 0
    for tag, _ in maker.named:
        name, hexadecimal, size = lines[at].split()
        assert name == tag
        count = len(flat(values[tag]))
        told[tag] = (bytes.fromhex(hexadecimal), int(size), lines[at + 1 : at + 1 + count])
        at += 1 + count
    return btf, values, told


pytestmark = pytest.mark.skipif(not shutil.which("clang"), reason="compiles C: needs clang")


def test_sizes_of_random_structs_are_those_of_c(compared):
    btf, values, told = compared
    assert {tag: layout(btf, btf.find(tag, STRUCT).id).size for tag in values} == {
        tag: told[tag][1] for tag in values
    }


def test_what_c_stores_is_read_as_it_was_written(compared):
    btf, values, told = compared
    for tag, value in values.items():
        found = decode(btf, btf.find(tag, STRUCT).id, told[tag][0])
        assert flat(pick(found, value)) == flat(value), tag


def pick(found, like):
    """The members of `found` that `like` has: the others of a union show the same bytes."""
    if isinstance(like, dict):
        return {name: pick(found[name], one) for name, one in like.items()}
    return found


def test_what_we_write_is_read_by_c_as_it_was_meant(compared):
    _, values, told = compared
    for tag, value in values.items():
        assert told[tag][2] == flat(value), tag


def test_bytes_that_c_stores_and_ours_are_the_same(compared):
    btf, values, told = compared
    for tag, value in values.items():
        assert encode(btf, btf.find(tag, STRUCT).id, value) == told[tag][0], tag


def test_views_read_and_write_the_same_as_c(compared):
    btf, values, told = compared
    for tag, value in values.items():
        of = layout(btf, btf.find(tag, STRUCT).id)
        view = of.view(told[tag][0])
        assert flat(pick(view._asdict(), value)) == flat(value), tag
        memory = bytearray(of.size)
        written = of.view(memory)
        for name, one in value.items():
            setattr(written, name, one)
        assert bytes(memory) == told[tag][0], tag
        assert flat([read(getattr(written, name), value[name]) for name in value]) == flat(value), tag


def read(view, like):
    """A value from a view, by attributes and indices."""
    if isinstance(like, dict):
        return {name: read(getattr(view, name), one) for name, one in like.items()}
    if isinstance(like, list):
        return [read(view[index], one) for index, one in enumerate(like)]
    return view
