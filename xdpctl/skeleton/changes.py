"""How one field of a map's key or value differs between two versions, and what copying by field name makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.skeleton.fields import SCALARS, Field, has_opaque, same_kind, same_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT, WIDENED, CHECKED, ZERO, DROPPED = "kept", "widened", "checked", "zero", "dropped"
"""What copying does: the same bytes; the same number in more bytes, or more elements with zeros behind; the same if
it fits, else the copy is refused; zeros for what is new; nothing for what is gone."""


class FieldChange(NamedTuple):
    """One field that differs."""

    part: str
    """key or value."""
    path: str
    """``packets``, ``addr.v4``, ``slots[].hits``; empty for a key or value that is one number."""
    how: tuple[str, ...]
    """added, removed, moved, resized, retyped, renamed."""
    old: Field | None
    new: Field | None
    old_base: int
    """Bits from the start of the key or value to the struct around `old`."""
    new_base: int
    copy: str
    """`KEPT`, `WIDENED`, ..., or in words why it can't be copied."""
    in_place: str | None = None
    """Why the new program would misread it in the old map; None: its bytes stay where and what they are."""

    @property
    def can_copy(self) -> bool:
        """Whether copying knows what to do with it, as far as the values fit."""
        return self.copy in (KEPT, WIDENED, CHECKED, ZERO, DROPPED)

    @property
    def where(self) -> str:
        """``value.packets``: how messages name it."""
        return f"{self.part}.{self.path}" if self.path else self.part

    def row(self) -> tuple[str, str, str, str]:
        """Mark and path, old and new, what changed, what copying does."""
        mark = {"added": "+", "removed": "-"}.get(self.how[0], "?" if "renamed" in self.how else "~")
        old = _shown(self.old, self.old_base)
        new = _shown(self.new, self.new_base)
        if "renamed" in self.how and self.old is not None:
            old = f"{self.old.label}: {old}"
        shown = f"{old} -> {new}" if old and new else old or new
        how = {"renamed": "looks renamed"}.get(self.how[0], ", ".join(self.how))
        copy = self.copy if self.can_copy else f"no: {self.copy}"
        return f"{mark} {self.path or self.part}", shown, how, f"copy: {copy}"

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints; offsets and sizes in bits."""

        def side(one: Field | None, base: int) -> dict[str, Any] | None:
            if one is None:
                return None
            return {"name": one.label, "type": one.type, "offset": base + one.offset, "bits": one.bits}

        return {
            "part": self.part,
            "path": self.path,
            "how": list(self.how),
            "old": side(self.old, self.old_base),
            "new": side(self.new, self.new_base),
            "copy": self.copy if self.can_copy else None,
            "why_not_copy": None if self.can_copy else self.copy,
        }


def _shown(one: Field | None, base: int) -> str:
    return f"{one.type} at {one.place(base)}" if one is not None else ""


def field_changes(part: str, old: Field, new: Field) -> Iterator[FieldChange]:
    """What differs between two versions of a key or value; nothing where their bytes mean the same."""
    yield from _compare(part, "", old, new, 0, 0)


def pairs(old: Field, new: Field) -> Iterator[tuple[Field | None, Field | None]]:
    """The members of two versions of a struct, put together by name; anonymous unions by any member they share."""
    left = {one.name: one for one in old.members if one.name}
    nameless = [one for one in old.members if not one.name]
    gone = list(old.members)
    for one in new.members:
        if one.name:
            match = left.get(one.name)
        else:
            names = {inner.name for inner in one.members}
            match = next((two for two in nameless if names & {inner.name for inner in two.members}), None)
        if match is not None and match in gone:
            gone.remove(match)
        else:
            match = None
        yield match, one
    for one in gone:
        yield one, None


def _compare(
    part: str, path: str, old: Field, new: Field, old_base: int, new_base: int
) -> Iterator[FieldChange]:
    """Changes of two fields that belong together, and of what is in them."""
    moved = ("moved",) if old.offset != new.offset else ()
    how, copy, in_place = own_change(old, new)
    if moved or how:
        if moved and not in_place:
            in_place = f"it moves from byte {old.place(old_base)} to {new.place(new_base)}"
        yield FieldChange(part, path, (*moved, *how), old, new, old_base, new_base, copy, in_place)
    if old.kind == new.kind == "struct" and copy not in (_OTHER, _OPAQUE):
        inner_old, inner_new = old_base + old.offset, new_base + new.offset
        inside = f"{path}[]." if old.dims else f"{path}." if path else ""
        for before, after in pairs(old, new):
            label = f"{inside}{(after or before or old).label}"
            if before is not None and after is not None:
                yield from _compare(part, label, before, after, inner_old, inner_new)
            elif after is not None:
                covered = _covered(old, after)
                yield FieldChange(part, label, ("added",), None, after, inner_old, inner_new, ZERO, covered)
            elif before is not None:
                yield FieldChange(part, label, ("removed",), before, None, inner_old, inner_new, DROPPED)


_OTHER = "its type is another one, and no rule says how its values become those"
_OPAQUE = "the kernel's own, which user space can't write"
_UNION = "the members of the union overlap otherwise than before, and nothing tells which of them is meant"


def own_change(old: Field, new: Field) -> tuple[tuple[str, ...], str, str | None]:
    """How two fields differ in themselves, not in place nor in members; what copying does; why the old is misread."""
    if "opaque" in (old.kind, new.kind):
        return (
            ((), KEPT, None)
            if old.kind == new.kind and old.type == new.type
            else (("retyped",), _OPAQUE, _OPAQUE)
        )
    if old.kind == new.kind == "union":
        return _unions(old, new)
    if old.kind == new.kind == "struct":
        if old.dims == new.dims:
            # an array's elements lie where they did only if each is as large as before
            apart = bool(old.dims) and old.element_bits != new.element_bits
            return ((), KEPT, None) if not apart else (("resized",), KEPT, "its elements change size")
        return _elements(old, new)
    if old.kind in SCALARS and new.kind in SCALARS:
        return _numbers(old, new)
    if old.bits == new.bits and not has_opaque(old) and not has_opaque(new):
        return ("retyped",), KEPT, None  # __u8[16] and struct in6_addr: the same bytes
    return ("retyped",), _OTHER, "its type changes"


def _elements(old: Field, new: Field) -> tuple[tuple[str, ...], str, str | None]:
    """Arrays of other dimensions: more or fewer of the same elements can be copied."""
    if len(old.dims) != len(new.dims) or old.dims[1:] != new.dims[1:]:
        return ("retyped",), _OTHER, "its dimensions change"
    return (
        ("resized",),
        WIDENED if new.dims[0] > old.dims[0] else CHECKED,
        "its elements become more or fewer",
    )


def _unions(old: Field, new: Field) -> tuple[tuple[str, ...], str, str | None]:
    if same_layout(old, new):
        return (), KEPT, None
    known = {one.name: one for one in new.members}
    stay = all(
        one.name in known and one.offset == known[one.name].offset and same_layout(one, known[one.name])
        for one in old.members
    )
    if not stay or old.dims or new.dims or new.bits < old.bits or has_opaque(old) or has_opaque(new):
        return ("retyped",), _UNION, "the members of the union change"
    how = ("retyped",) if old.bits == new.bits else ("resized",)
    return how, KEPT if old.bits == new.bits else WIDENED, None if old.bits == new.bits else "it grows"


def _numbers(old: Field, new: Field) -> tuple[tuple[str, ...], str, str | None]:
    if bool(old.dims) != bool(new.dims):
        if old.bits == new.bits:
            return ("retyped",), KEPT, None  # __u32 and __u8[4]
        return ("retyped",), _OTHER, "its type changes"
    how: tuple[str, ...] = ()
    copy, in_place = KEPT, None
    if old.dims != new.dims:
        how, copy, in_place = _elements(old, new)
        if copy == _OTHER:
            return how, copy, in_place
    wider, narrower = new.element_bits > old.element_bits, new.element_bits < old.element_bits
    if not same_kind(old, new):
        how = (*how, "retyped")
        if "float" in (old.kind, new.kind):
            return how, _OTHER, "a number with a fraction becomes one without, or the reverse"
        never_fails = (old.kind, new.kind) == ("bool", "uint") or (
            wider and old.kind in ("uint", "bool", "enum")
        )
        if not never_fails:
            copy = CHECKED
    if wider or narrower:
        if max(old.element_bits, new.element_bits) > 64:
            return (*how, "resized"), _OTHER, "it has more than 64 bits"
        how, in_place = (
            (*how, "resized"),
            f"it has {old.element_bits} bits there, and {new.element_bits} in the new",
        )
        copy = CHECKED if narrower or copy == CHECKED else WIDENED
    return tuple(dict.fromkeys(how)), copy, in_place


def _covered(old: Field, added: Field) -> str | None:
    """Why a new field would read something else in the old map: what lies there; None: padding, which is zero."""
    start, end = added.offset, added.offset + added.bits
    if end > old.element_bits:
        return "the old map has no room for it"
    for one in old.members:
        if one.offset < end and start < one.offset + one.bits:
            return f"the old map has {one.label} there"
    return None


def renamed(found: list[FieldChange]) -> list[FieldChange]:
    """Put together what was removed and added where it looks like a new name for the same thing.

    The same type at the same place, or the only such pair of one struct. Copying starts it at zero all the same: that
    it was renamed is only a likeness.
    """
    removed = [one for one in found if one.how == ("removed",)]
    added = [one for one in found if one.how == ("added",)]
    result = list(found)
    for one in added:
        folder = one.path.rpartition(".")[0]
        near = [two for two in removed if two.path.rpartition(".")[0] == folder and _alike(two, one)]
        same_place = [two for two in near if two.old and one.new and two.old.offset == one.new.offset]
        rivals = [
            two for two in added if two.path.rpartition(".")[0] == folder and near and _alike(near[0], two)
        ]
        match = same_place[0] if same_place else near[0] if len(near) == len(rivals) == 1 else None
        if match is None:
            continue
        removed.remove(match)
        result.remove(match)
        in_place = None if same_place else one.in_place
        result[result.index(one)] = one._replace(how=("renamed",), old=match.old, in_place=in_place)
    return result


def _alike(removed: FieldChange, added: FieldChange) -> bool:
    old, new = removed.old, added.new
    return (
        removed.part == added.part
        and old is not None
        and new is not None
        and (old.bits, old.dims) == (new.bits, new.dims)
        and same_kind(old, new)
    )
