"""Objects whose BTF was bent, made cyclic or made to lie: a skeleton of one says so, or is one; never anything else."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl import Skeleton
from xdpctl.bpf.object import Object
from xdpctl.errors import ObjectError, XdpctlError
from xdpctl.obj import elf

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("blocklist", "redirect_map", "tc_redirect", "trace_drops", "pool_trace")
HEADER = 24
"""Bytes of struct btf_header."""


@pytest.fixture(scope="module")
def objects():
    """Each object's bytes, where its types begin, and how many words they have."""
    found = []
    for name in NAMES:
        path = ROOT / "build" / "bpf" / f"{name}.bpf.o"
        data = path.read_bytes()
        blob = bytes(elf.parse(elf.load(path), name).section(".BTF").data)
        start = data.index(blob)
        found.append((data, start + HEADER, struct.unpack_from("=I", blob, 12)[0] // 4))
    return found


def use(data: bytes) -> None:
    """Open a skeleton and look at everything that it has before load."""
    try:
        with Skeleton(Object.open("bent.bpf.o", data=data)) as skel:
            for name in set(dir(skel)) & {"rodata", "data", "bss"}:
                repr(getattr(skel, name))
            for name in skel.maps:
                repr((skel.maps[name].max_entries, skel.maps[name].key_size, skel.maps[name].value_size))
            for name in skel.types:
                repr(skel.types[name])
    except XdpctlError:
        return


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, len(NAMES) - 1),
    changes=st.lists(
        st.tuples(
            st.integers(0, 1 << 14),
            st.one_of(st.integers(0, 400), st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 1 << 24, 1 << 31])),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_types_that_lie_are_refused_or_harmless(objects, which, changes):
    data, start, words = objects[which]
    bent = bytearray(data)
    for word, value in changes:
        struct.pack_into("=I", bent, start + 4 * (word % words), value)
    use(bytes(bent))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_cut_off_is_told(name, objects, tmp_path):
    data = objects[NAMES.index(name)][0]
    for length in (0, 3, 63, 64, 200, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.bpf.o").write_bytes(data[:length])
        with pytest.raises(ObjectError):
            Skeleton.open(tmp_path / "cut.bpf.o")
