"""What a map's keys and values look like to Python and to people: their forms, chosen by type of map and BTF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import MAX_ITEMS, ArrayLayout, Layout, StructLayout, layout
from xdpctl.errors import NotFoundError, ObjectError, PrivilegeError
from xdpctl.skeleton import plain
from xdpctl.skeleton.composite import ArrayForm, StructForm, form
from xdpctl.skeleton.forms import AddressForm, BitsForm, Form, NumberForm, TypedForm
from xdpctl.skeleton.kinds import Kind, kind_of
from xdpctl.skeleton.slots import DescriptorForm, Held, SocketForm, TargetForm

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.bpf.query import MapInfo
    from xdpctl.btf.parse import Btf


class Shape:
    """The forms of one map.

    Attributes:
        kind: of the map.
        key: None where there are no keys.
        value: of one CPU where it is per-CPU.
        stride: bytes from one CPU's value to the next; 0: it is not per-CPU.
        held: descriptors opened for values; close it after each operation.
    """

    __slots__ = ("_key_out", "_value_out", "held", "key", "kind", "stride", "value")

    def __init__(self, kind: Kind, key: Form | None, value: Form) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.stride = value.size + 7 & ~7 if kind.per_cpu else 0
        self.held: Held | None = getattr(value, "held", None)
        self._key_out = frozen(key) if key is not None else None
        self._value_out = _reader(value)

    def key_out(self, raw: bytes) -> Any:
        """A key as Python takes it: hashable."""
        return self._key_out(raw) if self._key_out is not None else None

    def key_in(self, key: Any) -> bytes:
        """The bytes of a key given as a number, tuple, dict, text, ...

        Raises:
            ConfigError: it does not fit.
        """
        assert self.key is not None  # noqa: S101 - callers have asked `kind`
        return python_in(self.key, key, "key")

    def value_out(self, raw: bytes) -> Any:
        """A value (of one CPU) as Python takes it; structs as read-only views."""
        return self._value_out(raw)

    def value_in(self, value: Any) -> bytes:
        """The bytes of a value (of one CPU); what it does not mention is zero.

        Raises:
            ConfigError: it does not fit.
        """
        return python_in(self.value, value, "value")


def shape_of(info: MapInfo, btf: Btf | None, key_type_id: int, value_type_id: int) -> Shape:
    """The forms of a map.

    Args:
        info: what the kernel, or the object, says about the map.
        btf: its types; None: only sizes are known.
        key_type_id: BTF type of a key, 0: not told.
        value_type_id: of a value.
    """
    kind = kind_of(info.type)
    typed_key = _typed(btf, key_type_id, info.key_size)
    key: Form | None
    if kind.keys == "none" or not info.key_size:
        key = None
    elif kind.keys == "prefix":
        key = plain.lpm_key(info.key_size, typed_key)
    elif typed_key is not None:
        key = typed_key
    elif (kind.keys == "index" or kind.holds in {"device", "map"}) and info.key_size == 4:
        key = plain.number(4)
    else:
        key = plain.HexForm(info.key_size)
    return Shape(kind, key, _value(kind, info, _typed(btf, value_type_id, info.value_size)))


def _value(kind: Kind, info: MapInfo, typed: Form | None) -> Form:
    if kind.holds in {"device", "cpu"} and info.value_size in {4, 8}:
        return TargetForm(info.value_size, cpu=kind.holds == "cpu")
    if kind.holds in {"program", "map"}:
        return DescriptorForm(kind.holds)
    if kind.holds == "descriptor":
        what = {"perf_event_array": "a perf event", "cgroup_array": "a cgroup"}.get(kind.type, "a socket")
        return SocketForm(info.value_size, what)
    return typed or plain.HexForm(info.value_size)


def _typed(btf: Btf | None, type_id: int, size: int) -> Form | None:
    """The form of a BTF type, if it has this size and can be trusted."""
    if btf is None or not type_id:
        return None
    try:
        found = layout(btf, type_id)
    except ObjectError:
        return None
    return form(found) if found.size == size and found.items <= MAX_ITEMS else None


def btf_of(info: MapInfo) -> tuple[Btf | None, str | None]:
    """The types that a map in the kernel was made with, or None; with the reason where they can't be read."""
    from xdpctl.bpf.btf_id import by_id

    if not info.btf_id:
        return None, None
    try:
        return by_id(info.btf_id), None
    except (PrivilegeError, NotFoundError, ObjectError) as why:
        return None, f"map {info.name}: its types can't be read: {why.message}"


def _reader(value: Form) -> Callable[[bytes], Any]:
    if isinstance(value, TargetForm):
        return value.slot
    if isinstance(value, TypedForm):
        return value.layout.view
    if isinstance(value, plain.HexForm):
        return bytes
    return lambda raw: value.read(raw, 0)


def frozen(key: Form) -> Callable[[bytes], Any]:
    """How bytes become something hashable: structs and arrays as (named) tuples, prefixes as text."""
    if isinstance(key, TypedForm):
        freeze = _freezer(key.layout)
        decode = key.layout.read
        return lambda raw: freeze(decode(raw, 0))
    if isinstance(key, plain.HexForm):
        return bytes
    return lambda raw: key.read(raw, 0)


def _freezer(of: Layout) -> Callable[[Any], Any]:
    """Values of `Layout.read` to tuples; a struct's is named after it."""
    if isinstance(of, StructLayout):
        from collections import namedtuple

        made = namedtuple(  # type: ignore[misc]  # noqa: PYI024 - members may have Python's reserved names
            of.name if of.name.isidentifier() else "Key", of.fields, rename=True
        )
        inner = [(name, _freezer(one.layout)) for name, one in of.fields.items()]
        return lambda value: made(*(freeze(value[name]) for name, freeze in inner))
    if isinstance(of, ArrayLayout):
        element = _freezer(of.element)
        return lambda value: value if isinstance(value, str) else tuple(map(element, value))
    return lambda value: value


def python_in(to: Form, value: Any, path: str) -> bytes:
    """The bytes of a value from Python: numbers as C sees them, text as people write it.

    Raises:
        ConfigError: it does not fit.
    """
    if isinstance(value, str):
        return to.parse(value, path=path)
    if isinstance(to, TypedForm):
        return to.encode(_as_people(to, value), path=path)
    if isinstance(to, plain.PrefixForm) and to.typed is not None and not hasattr(value, "network_address"):
        return to.typed.encode(_as_people(to.typed, value), path=path)
    return to.encode(value, path=path)


def _as_people(to: Form, value: Any) -> Any:
    """Turn round the numbers of members in network byte order: `Form.write` expects them as people count."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        turned = (isinstance(to, NumberForm) and to.network and not isinstance(to, BitsForm)) or (
            isinstance(to, AddressForm) and to.size == 4
        )
        if turned and 0 <= value < 1 << 8 * to.size:
            import sys

            return int.from_bytes(value.to_bytes(to.size, sys.byteorder), "big")
        return value
    if isinstance(to, StructForm):
        if isinstance(value, dict):
            return {
                name: _as_people(to.members[name][0], one) if name in to.members else one
                for name, one in value.items()
            }
        if isinstance(value, list | tuple) and len(value) == len(to.members):
            return [_as_people(one, each) for (one, _), each in zip(to.members.values(), value, strict=True)]
    if isinstance(to, ArrayForm) and isinstance(value, list | tuple):
        return [_as_people(to.element, one) for one in value]
    return value
