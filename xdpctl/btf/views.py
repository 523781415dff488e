"""Values where they lie: structs with attributes and arrays with indices over memory that may change under them.

A view knows its memory, not the bytes: reading an attribute reads the memory at that moment, writing one checks the
value and stores it. Views of bytes are read-only. Nothing can be written that the type does not have: an unknown
name is an error that suggests near ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from xdpctl.btf.layout import ArrayLayout, Layout, StructLayout
from xdpctl.errors import ConfigError, ObjectError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

COPY = "it is a copy of bytes; write the whole value to where it came from"


class Memory:
    """The bytes that views lie over; whoever owns them may exchange or revoke them.

    Attributes:
        frozen: why it can't be written, as the end of a sentence; None: it can.
        owner: is kept alive as long as a view is, where the buffer alone would not do that.
    """

    __slots__ = ("_buffer", "_gone", "frozen", "owner")

    def __init__(self, buffer: Any, *, frozen: str | None = None, owner: object = None) -> None:
        self.owner = owner
        view = memoryview(buffer)
        self._buffer: memoryview | None = view if view.format == "B" else view.cast("B")
        self._gone = ""
        self.frozen = frozen if frozen is not None or not view.readonly else COPY

    @property
    def buffer(self) -> memoryview:
        """The bytes.

        Raises:
            ConfigError: they are gone.
        """
        if self._buffer is None:
            raise ConfigError(self._gone)
        return self._buffer

    def move(self, buffer: Any, *, frozen: str | None = None) -> None:
        """Let all views lie over other memory from now on."""
        before, self._buffer = self._buffer, memoryview(buffer).cast("B")
        self.frozen = frozen
        if before is not None:
            before.release()

    def revoke(self, why: str) -> None:
        """Make every further access through a view an error that says `why`."""
        before, self._buffer, self._gone = self._buffer, None, why
        if before is not None:
            before.release()

    def writable(self, path: str) -> memoryview:
        """The bytes, to write to them.

        Raises:
            ConfigError: they are frozen or gone.
        """
        if self.frozen is not None:
            raise ConfigError(f"{path} can't be set: {self.frozen}")
        return self.buffer


class View:
    """Base of `StructView` and `ArrayView`; ``bytes(view)`` copies what it lies over."""

    __slots__ = ("_at", "_memory", "_path")

    _layout: Layout
    _memory: Memory
    _at: int
    _path: str

    def __init__(self, memory: Memory, at: int, path: str) -> None:
        set_ = object.__setattr__  # the struct's own takes members only
        set_(self, "_memory", memory)
        set_(self, "_at", at)
        set_(self, "_path", path)

    def __bytes__(self) -> bytes:
        return bytes(self._memory.buffer[self._at : self._at + self._layout.size])

    def _value(self) -> Any:
        return self._layout.decode(self._memory.buffer, self._at)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, View):
            return (
                bytes(self) == bytes(other)
                if self._layout is other._layout
                else self._value() == other._value()
            )
        if isinstance(other, bytes | bytearray):
            return bytes(self) == other
        return bool(self._value() == other)

    __hash__ = None  # type: ignore[assignment]  # it may change

    def __repr__(self) -> str:
        try:
            return f"<{self._layout.spelled} {self._value()!r}>"
        except (ConfigError, ObjectError) as why:
            return f"<{self._layout.spelled}: {why}>"


class StructView(View):
    """A struct or union: its members are attributes, and items for names that Python reserves (``view["class"]``).

    Assigning to a member that is a struct takes a dict (members it lacks become zero), bytes, or a view.
    """

    __slots__ = ()

    _layout: StructLayout
    _members: Mapping[str, Any] = {}

    def __init__(self, memory: Memory | None = None, at: int = 0, path: str = "", /, **members: Any) -> None:
        """A view of memory; without it a new value with these members, the others zero.

        Raises:
            UnknownNameError: it has no such member.
            ConfigError: a value does not fit.
        """
        super().__init__(memory or Memory(bytearray(self._layout.size)), at, path)
        for name, value in members.items():
            self[name] = value

    if not TYPE_CHECKING:  # or mypy would believe in any attribute

        def __getattr__(self, name: str) -> Any:  # only for names that the class lacks
            raise _unknown(self._layout, name, self._path)

        def __setattr__(self, name: str, value: Any) -> None:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{self._path}.{name} can't be deleted")

    def __getitem__(self, name: str) -> Any:
        found = self._members.get(name)
        if found is None:
            raise _unknown(self._layout, name, self._path)
        return found[0](self)

    def __setitem__(self, name: str, value: Any) -> None:
        found = self._members.get(name)
        if found is None:
            raise _unknown(self._layout, name, self._path)
        found[1](self, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __dir__(self) -> list[str]:
        return [*self._members]

    def _asdict(self) -> dict[str, Any]:
        """A copy as plain dicts, lists and numbers."""
        return dict(self._value())


class ArrayView(View, Sequence[T]):
    """An array: indices, slices and iteration; its length is fixed."""

    __slots__ = ("_layout",)

    _layout: ArrayLayout

    def __init__(self, layout: ArrayLayout, memory: Memory, at: int, path: str) -> None:
        super().__init__(memory, at, path)
        self._layout = layout

    def __len__(self) -> int:
        return self._layout.length

    def _place(self, index: int) -> int:
        length = self._layout.length
        if not -length <= index < length:
            raise IndexError(f"{self._path}[{index}]: it has {length} elements")
        return self._at + index % length * self._layout.element.size

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return at(self._layout.element, self._memory, self._place(index), f"{self._path}[{index}]")

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            values = list(value)
            if len(places) != len(values):
                raise ConfigError(f"{self._path}: {len(values)} values for {len(places)} elements")
            for one, of in zip(places, values, strict=True):
                self[one] = of
            return
        store(self._layout.element, self._memory, self._place(index), value, f"{self._path}[{index}]")

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def _unknown(layout: StructLayout, name: str, path: str) -> UnknownNameError:
    return UnknownNameError(
        "member", name, known=layout.fields, where=f"{path}, {layout.spelled}" if path else layout.spelled
    )


def at(layout: Layout, memory: Memory, offset: int, path: str) -> Any:
    """The value of a layout at an offset: a view of a struct or array, text of a char array, else what is read."""
    if isinstance(layout, StructLayout):
        return struct_class(layout)(memory, offset, path)
    if isinstance(layout, ArrayLayout):
        if layout.is_text:
            raw = bytes(memory.buffer[offset : offset + layout.size]).rstrip(b"\0")
            return raw.decode("utf-8", "surrogateescape")
        return ArrayView(layout, memory, offset, path)
    return layout.read(memory.buffer, offset)


def store(layout: Layout, memory: Memory, offset: int, value: Any, path: str) -> None:
    """Write a whole value at an offset; what it leaves out becomes zero.

    Raises:
        ConfigError: it does not fit, or the memory can't be written.
    """
    out = memory.writable(path)
    if isinstance(layout, StructLayout | ArrayLayout):
        # made apart and copied whole: a value that does not fit changes nothing
        raw = bytearray(layout.size)
        layout.write(raw, 0, value, path)
        out[offset : offset + layout.size] = raw
    else:
        layout.write(out, offset, value, path)


def struct_class(layout: StructLayout) -> type[StructView]:
    """The view class of a struct, made on first use; its members are properties, for completion and speed."""
    made: type[StructView] | None = layout._view  # noqa: SLF001 - the layout keeps it for us
    if made is None:
        made = layout._view = _make_class(layout)  # noqa: SLF001
    return made


def _make_class(layout: StructLayout) -> type[StructView]:
    members = {name: _accessors(layout, name) for name in layout.fields}
    body: dict[str, Any] = {"__slots__": (), "_layout": layout, "_members": members}
    taken = set(dir(StructView))
    for name, (getter, setter) in members.items():
        if name not in taken:
            body[name] = property(getter, setter, doc=f"``{layout.fields[name].layout.spelled} {name}``")
    return type(layout.name or "anonymous", (StructView,), body)


def _accessors(layout: StructLayout, name: str) -> tuple[Any, Any]:
    field = layout.fields[name]
    inner, offset = field.layout, field.offset
    if field.bits:
        bits = layout.bitfield(name)

        def get_bits(self: StructView) -> Any:
            return bits.read(self._memory.buffer, self._at)

        def set_bits(self: StructView, value: Any) -> None:
            path = f"{self._path}.{name}"
            bits.write(self._memory.writable(path), self._at, value, path)

        return get_bits, set_bits

    def set_any(self: StructView, value: Any) -> None:
        store(inner, self._memory, self._at + offset, value, f"{self._path}.{name}")

    if isinstance(inner, StructLayout | ArrayLayout):

        def get_inner(self: StructView) -> Any:
            return at(inner, self._memory, self._at + offset, f"{self._path}.{name}")

        return get_inner, set_any
    read = inner.read

    def get_number(self: StructView) -> Any:
        return read(self._memory.buffer, self._at + offset)

    return get_number, set_any


def view(layout: Layout, data: Any, offset: int = 0, path: str = "") -> Any:
    """The value where it lies; see `Layout.view`.

    Raises:
        ObjectError: the data end before the value does.
    """
    memory = data if isinstance(data, Memory) else Memory(data)
    if offset < 0 or offset + layout.size > len(memory.buffer):
        raise ObjectError(
            f"{layout.spelled} of {layout.size} bytes at offset {offset} goes beyond"
            f" the {len(memory.buffer)} bytes there are"
        )
    return at(layout, memory, offset, path)
