"""The types of an opened object: its BTF as libbpf has it, with the addresses of variables filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import StructLayout, layout
from xdpctl.btf.parse import STRUCT, UNION, Btf, parse
from xdpctl.btf.types import Composite
from xdpctl.btf.views import StructView, struct_class
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import lib
from xdpctl.skeleton.names import Named

if TYPE_CHECKING:
    from xdpctl.bpf.object import Object

_parsed: dict[bytes, Btf] = {}
"""By its bytes: skeletons of the same object share their types, so that the classes of their structs are the same."""
MANY = 16


def of_object(obj: Object) -> Btf | None:
    """The types of an opened object; None: it has none.

    Raises:
        ObjectError: they are not valid.
    """
    address = obj.btf_address
    if address is None:
        return None
    size = memory.U32(0)
    where = lib().btf__raw_data(address, size)
    raw = memory.read(where, size.value)
    known = _parsed.get(raw)
    if known is None:
        known = parse(raw)
        while len(_parsed) >= MANY:
            _parsed.pop(next(iter(_parsed)))
        _parsed[raw] = known
    return known


def structs(btf: Btf | None, where: str) -> Named[type[StructView]]:
    """The structs and unions of an object as classes that make values: ``types.counter(packets=1)``."""
    named: dict[str, Any] = {}
    if btf is not None:
        for one in btf.of_kind(STRUCT, UNION):
            if isinstance(one, Composite) and one.name:
                named.setdefault(one.name, one)

    def make(name: str) -> type[StructView]:
        found = layout(btf, named[name].id) if btf is not None else None
        if not isinstance(found, StructLayout):
            raise TypeError(name)
        return struct_class(found)

    return Named("struct", where, lambda: named, make)
