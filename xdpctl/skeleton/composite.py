"""Arrays, structs and unions as people write and read them, member by member; `form` says how any type is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import ArrayLayout, Layout, Scalar, StructLayout
from xdpctl.btf.numbers import misfit
from xdpctl.btf.types import Composite
from xdpctl.errors import ConfigError
from xdpctl.obj.texts import in_network_order
from xdpctl.skeleton.fieldtext import split
from xdpctl.skeleton.forms import (
    AddressForm,
    BitsForm,
    Column,
    Form,
    NumberForm,
    TextForm,
    TypedForm,
    from_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.skeleton.forms import Readable

_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d{1,9})\]")


class ArrayForm(TypedForm):
    """An array of anything else."""

    __slots__ = ("element",)

    layout: ArrayLayout

    def __init__(self, layout: ArrayLayout) -> None:
        super().__init__(layout)
        self.element = form(layout.element)

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        read, size = self.element.read, self.element.size
        return [read(data, at + index * size) for index in range(self.layout.length)]

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str):
            self.write_text(out, at, value, path)
            return
        if isinstance(value, bytes | bytearray) or not isinstance(value, list | tuple):
            self.layout.write(out, at, value, path)
            return
        if len(value) > self.layout.length:
            raise misfit(value, self.spelled, path, f" ({len(value)} elements)")
        for index, one in enumerate(value):
            self.element.write(out, at + index * self.element.size, one, f"{path}[{index}]")

    def write_text(self, out: bytearray, at: int, text: str, path: str) -> None:
        """As `Form.write_text`: ``[1,2]``, ``1,2``, or what `obj.texts` knows: an address, hex:..."""
        text = text.strip()
        if text.startswith("[") and text.endswith("]"):
            pieces = split(text[1:-1], path)
        else:
            pieces = split(text, path)
            if len(pieces) < 2 and isinstance(self.element, NumberForm):
                out[at : at + self.size] = self._text(text, path)
                return
        if len(pieces) > self.layout.length:
            raise misfit(text, self.spelled, path, f" ({len(pieces)} elements)")
        for index, one in enumerate(pieces):
            self.element.write_text(out, at + index * self.element.size, one, f"{path}[{index}]")


class StructForm(TypedForm):
    """A struct or union.

    Attributes:
        members: name -> (form, byte offset); a bitfield's offset is 0, its form knows the place.
    """

    __slots__ = ("members",)

    layout: StructLayout

    def __init__(self, layout: StructLayout) -> None:
        super().__init__(layout)
        self.members: dict[str, tuple[Form, int]] = {
            name: (BitsForm(layout, name), 0) if one.bits else (form(one.layout), one.offset)
            for name, one in layout.fields.items()
        }

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        return {name: one.read(data, at + offset) for name, (one, offset) in self.members.items()}

    def columns(self) -> Iterator[Column]:
        """As `Form.columns`; of a union, or with bitfields, it is one itself: places overlap."""
        end = 0
        for one, offset in self.members.values():
            if isinstance(one, BitsForm) or offset < end:
                yield Column((), 0, self)
                return
            end = offset + one.size
        for name, (one, offset) in self.members.items():
            for column in one.columns():
                yield Column((name, *column.path), offset + column.offset, column.form)

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str):
            self.write_text(out, at, value, path)
        elif isinstance(value, dict):
            for name, one in value.items():
                self._member(name, out, at, one, path)
        elif isinstance(value, list | tuple):
            self._check_row(len(value), path)
            for name, one in zip(self.members, value, strict=True):
                self._member(name, out, at, one, path)
        else:
            self.layout.write(out, at, value, path)

    def _member(self, name: str, out: bytearray, at: int, value: Any, path: str) -> None:
        found = self.members.get(name)
        if found is None:
            raise self.layout.no_member(str(name))
        one, offset = found
        one.write(out, at + offset, value, f"{path}.{name}" if path else name)

    def _check_row(self, given: int, path: str) -> None:
        if given != len(self.members):
            raise ConfigError(
                f"{path or 'the value'} ({self.spelled}) has {len(self.members)} members, not {given}",
                hint=f"by name: {' '.join(f'{name}=...' for name in list(self.members)[:6])}",
            )

    def write_text(self, out: bytearray, at: int, text: str, path: str) -> None:
        """As `Form.write_text`: ``a=1 b.c=2``, values in the order of the members, or JSON."""
        text = text.strip()
        if re.match(r'\{\s*["}]', text):
            self.write(out, at, from_json(text, path), path)
            return
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        pieces = split(text, path)
        if pieces and not any("=" in one for one in pieces):
            self._check_row(len(pieces), path)
            for piece, (name, (one, offset)) in zip(pieces, self.members.items(), strict=True):
                one.write_text(out, at + offset, piece, f"{path}.{name}" if path else name)
            return
        for piece in pieces:
            name, equals, value = piece.partition("=")
            if not equals:
                raise ConfigError(
                    f"{piece!r} is not of the form member=value ({path or self.spelled})",
                    hint=f"members: {', '.join(list(self.members)[:12])}",
                )
            target, offset, where = self.follow(name.strip(), path)
            target.write_text(out, at + offset, value, where)

    def follow(self, name: str, path: str) -> tuple[Form, int, str]:
        """The member that ``a.b[2]`` names, with its offset."""
        here: Form = self
        offset, position = 0, 0
        while position < len(name) or here is self:
            step = _STEP.match(name, position)
            if step is None or (step[2] and position == 0):
                raise ConfigError(f"{name!r} names no member of {self.spelled}", hint="member, a.b or a[2]")
            here, more = _step(here, step[1], step[2], name[:position])
            offset += more
            position = step.end()
        return here, offset, f"{path}.{name}" if path else name


def _step(here: Form, member: str | None, index: str | None, so_far: str) -> tuple[Form, int]:
    """What a member or an element of `here` is, and how many bytes on."""
    if member is not None:
        if not isinstance(here, StructForm):
            raise ConfigError(f"{so_far} has no members: it is {here.spelled}")
        if member not in here.members:
            raise here.layout.no_member(member)
        return here.members[member]
    number = int(index or 0)
    if not isinstance(here, ArrayForm) or number >= here.layout.length:
        raise ConfigError(f"{so_far} has no element {number}: it is {here.spelled}")
    return here.element, number * here.element.size


def form(layout: Layout) -> Form:
    """How a type is written."""
    if isinstance(layout, Scalar):
        if layout.size == 4 and layout.kind == "uint" and in_network_order(layout.btf, layout.type_id):
            return AddressForm(layout)
        return NumberForm(layout)
    if isinstance(layout, StructLayout):
        of = layout.btf.resolve(layout.type_id)
        if isinstance(of, Composite) and (of.name, of.size) in {("in_addr", 4), ("in6_addr", 16)}:
            return AddressForm(layout)
        return StructForm(layout)
    if isinstance(layout, ArrayLayout):
        return _array(layout)
    raise TypeError(layout)


def _array(layout: ArrayLayout) -> Form:
    element = layout.element
    if layout.is_text:
        return TextForm(layout)
    if element.kind == "uint" and element.size == 1 and layout.length == 6:
        return AddressForm(layout)
    if element.size == 4 and layout.length == 4 and in_network_order(element.btf, element.type_id):
        return AddressForm(layout)
    return ArrayForm(layout)
