"""BTF that was cut, bent or made to lie ends in an ObjectError or an answer: never a traceback, a hang or a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl.btf.layout import layout
from xdpctl.btf.names import spell
from xdpctl.btf.parse import parse
from xdpctl.errors import ConfigError, ObjectError
from xdpctl.obj import elf

ROOT = Path(__file__).resolve().parents[3]
OBJECT = ROOT / "build" / "bpf" / "blocklist.bpf.o"


@pytest.fixture(scope="module")
def blob():
    return bytes(elf.parse(elf.load(OBJECT), "x").section(".BTF").data)


def use(data: bytes) -> None:
    """Everything that a skeleton or a map does with types."""
    try:
        btf = parse(data)
    except ObjectError:
        return
    for type_id in range(1, min(btf.end, 200)):
        try:
            spell(btf, type_id)
            of = layout(btf, type_id)
            of.dtype()
            if of.size < 1 << 16:
                raw = bytes(of.size)
                value = of.decode(raw)
                of.encode(value)
                view = of.view(bytearray(raw))
                repr(view)
                for name in of.fields:
                    view[name] = view[name]
        except (ObjectError, ConfigError):
            continue


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6))
def test_bytes_that_were_changed_do_no_harm(blob, changes):
    bent = bytearray(blob)
    for at, value in changes:
        bent[at % len(bent)] = value
    use(bytes(bent))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 40)), min_size=1, max_size=4))
def test_words_that_refer_elsewhere_do_no_harm(blob, changes):
    types = int.from_bytes(blob[12:16], "little")
    bent = bytearray(blob)
    for at, value in changes:  # type ids and sizes: whole words of the type section
        where = 24 + 4 * (at % (types // 4))
        bent[where : where + 4] = value.to_bytes(4, "little")
    use(bytes(bent))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 1 << 14))
def test_what_is_cut_off_does_no_harm(blob, length):
    use(blob[: length % len(blob)])


def test_the_whole_blob_has_types(blob):
    btf = parse(blob)
    sizes = {one: layout(btf, one).size for one in range(1, btf.end) if _has_value(btf, one)}
    assert len(sizes) > 10


def _has_value(btf, type_id):
    try:
        layout(btf, type_id)
    except ObjectError:
        return False
    return True
