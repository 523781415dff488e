"""C types as Python annotations: what reading a variable, member, key or value gives, and what writing one takes."""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.btf.layout import ArrayLayout, Layout, StructLayout
from xdpctl.btf.types import Modifier

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = {
    "int": ("int", "int"),
    "uint": ("int", "int"),
    "pointer": ("int", "int"),
    "enum": ("int", "int | str"),
    "char": ("int", "int | str"),
    "bool": ("bool", "bool | int"),
    "float": ("float", "float"),
}
_WORD = re.compile(r"\b(?:int|str|bytes|bool|float|dict|object)\b")


class Annotation(NamedTuple):
    """Of one type."""

    read: str
    written: str


def is_name(text: str) -> bool:
    """Whether Python takes it as an attribute's name, in a class too."""
    return text.isidentifier() and not keyword.iskeyword(text) and not text.startswith("__")


class Structs:
    """The structs that a skeleton's variables and maps are made of, each with a class name of its own."""

    def __init__(self, reserved: Iterable[str]) -> None:
        self.taken = set(reserved)
        self._names: dict[int, str] = {}
        self.found: dict[str, StructLayout] = {}
        """Class name -> layout; inner ones first."""

    def of(self, layout: Layout, near: str) -> Annotation:
        """The annotation of a type.

        Args:
            layout: of it.
            near: name for a struct that has none: of the variable or member that it is the type of.
        """
        if isinstance(layout, StructLayout):
            name = self._name(layout, near)
            return Annotation(name, f"{name} | dict[str, object] | bytes")
        if isinstance(layout, ArrayLayout):
            if layout.is_text:
                return Annotation("str", "str | bytes")
            element = self.of(layout.element, near)
            raw = " | bytes" if layout.element.size == 1 else ""
            return Annotation(f"ArrayView[{element.read}]", f"Sequence[{element.written}]{raw}")
        return Annotation(*_PLAIN[layout.kind])

    def _name(self, layout: StructLayout, near: str) -> str:
        record = layout.btf.resolve(layout.type_id)
        identity = record.id if record is not None else layout.type_id
        if identity not in self._names:
            wanted = layout.name or _typedef(layout) or near
            name = wanted if is_name(wanted) else f"struct_{abs(identity)}"
            number = 2
            while name in self.taken:
                name, number = f"{wanted}_{number}", number + 1
            self.taken.add(name)
            self._names[identity] = name
            for member in layout.fields.values():
                self.of(member.layout, f"{name}_{member.name}")
            self.found[name] = layout
        return self._names[identity]


def _typedef(layout: Layout) -> str:
    """The typedef of an anonymous struct, or nothing."""
    type_id = layout.type_id
    for _ in range(32):
        found = layout.btf.type(type_id)
        if not isinstance(found, Modifier):
            break
        if found.kind == "typedef":
            return found.name
        type_id = found.target
    return ""


def declarations(layout: StructLayout, structs: Structs, near: str) -> list[str]:
    """One line a member or variable, for a class body; those that Python can't name are told in a comment."""
    lines = []
    for name, field in layout.fields.items():
        if not is_name(name):
            lines.append(f"# {name!r} is no name in Python: use self[{name!r}]")
            continue
        made = structs.of(field.layout, f"{near}_{name}")
        read, written = (apart(text, layout.fields, structs) for text in made)
        lines.append(f"{name}: {read}" if made.read == made.written else f"{name}: Field[{read}, {written}]")
    return lines


def apart(text: str, members: Iterable[str], structs: Structs) -> str:
    """An annotation inside a class whose members hide names of it: `builtins.bytes`, and the alias of a struct."""
    for name in members:
        if _WORD.fullmatch(name):
            text = re.sub(rf"(?<![\w.]){name}\b", f"builtins.{name}", text)
        elif name in structs.found or name in structs.taken:
            text = re.sub(rf"(?<![\w.]){name}\b", f"{ALIAS}{name}", text)
    return text


ALIAS = "_struct_"
