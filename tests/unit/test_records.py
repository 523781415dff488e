"""Records behave as the standard library's dataclasses of the same source do, and are made only when used."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from xdpctl import records


def pair(**options: Any) -> tuple[Any, Any]:
    """The same class twice: made by us, made by the standard library."""

    def source() -> Any:
        class Point:
            """A point."""

            x: int
            y: int = 2
            names: list[str] = field(default_factory=list)
            note: str | None = field(default=None)

            @property
            def total(self) -> int:
                """Of both."""
                return self.x + self.y

        return Point

    ours, theirs = source(), source()
    return records.dataclass(**options)(ours), dataclasses.dataclass(**options)(theirs)


FROZEN, MUTABLE = {"frozen": True, "slots": True}, {"slots": True}
CALLS = [((1,), {}), ((1, 3), {}), ((), {"x": 1, "note": "n"}), ((1, 2, ["a"], "b"), {})]
WRONG = [((), {}), ((1, 2, [], "b", 5), {}), ((1,), {"z": 2}), ((1,), {"x": 2})]


@records.dataclass(frozen=True, slots=True)
class Kept:
    """At module level, where pickle finds it."""

    a: int
    b: tuple[int, ...] = ()


@pytest.mark.parametrize("options", [FROZEN, MUTABLE])
@pytest.mark.parametrize(("positional", "named"), CALLS)
def test_objects_are_made_shown_and_compared_like_the_standard_ones(options, positional, named):
    ours, theirs = pair(**options)
    mine, other = ours(*positional, **named), theirs(*positional, **named)
    assert repr(mine) == repr(other)
    assert dataclasses.asdict(mine) == dataclasses.asdict(other)
    assert mine.total == other.total
    assert mine == ours(*positional, **named)
    assert mine != ours(99)
    assert mine != other, "of another class"
    assert dataclasses.replace(mine, x=7) == ours(7, mine.y, mine.names, mine.note)
    assert not hasattr(mine, "__dict__")


@pytest.mark.parametrize(("positional", "named"), WRONG)
def test_wrong_arguments_are_refused(positional, named):
    ours, theirs = pair(**FROZEN)
    with pytest.raises(TypeError):
        theirs(*positional, **named)
    with pytest.raises(TypeError):
        ours(*positional, **named)
    with pytest.raises(TypeError):
        ours(*positional, **named)  # the second call meets the made __init__


def test_default_factories_make_anew():
    ours, _ = pair(**FROZEN)
    ours(1).names.append("a")
    assert ours(1).names == []


def test_frozen_ones_refuse_and_hash_mutable_ones_take_and_do_not():
    frozen, _ = pair(**FROZEN)
    mutable, _ = pair(**MUTABLE)
    one = frozen(1, names=())
    for change in (lambda: setattr(one, "x", 2), lambda: delattr(one, "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert hash(one) == hash(frozen(1, names=()))
    assert len({one, frozen(1, names=()), frozen(2, names=())}) == 2
    other = mutable(1)
    other.x = 5
    assert other.x == 5
    with pytest.raises(TypeError):
        hash(other)


def test_fields_are_those_of_the_standard_library():
    ours, theirs = pair(**FROZEN)
    assert dataclasses.is_dataclass(ours)
    assert [(one.name, one.type, one.default) for one in dataclasses.fields(ours)] == [
        (one.name, one.type, one.default) for one in dataclasses.fields(theirs)
    ]
    assert ours.__match_args__ == theirs.__match_args__
    assert ours.__doc__ == theirs.__doc__


def test_copies_and_pickles():
    one = Kept(1, (2, 3))
    assert copy.copy(one) == one
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - what was just written


def test_other_forms_go_to_the_standard_library():
    class Base:
        """Something."""

    @records.dataclass(frozen=True, slots=True)
    class Derived(Base):
        """With a base."""

        a: int

    @records.dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        """Ordered."""

        a: int

    @records.dataclass(frozen=True, slots=True)
    class Partly:
        """A field that comparing leaves out."""

        a: int
        b: int = field(default=0, compare=False)

    assert Derived(1) == Derived(1)
    assert Ordered(1) < Ordered(2)
    assert Partly(1, 2) == Partly(1, 3)


def test_an_init_is_made_with_the_first_object():
    @records.dataclass(frozen=True, slots=True)
    class Late:
        """Nobody has made one."""

        a: int

    before = Late.__init__
    Late(1)
    assert Late.__init__ is not before
    assert Late.__init__.__code__.co_varnames[:2] == ("self", "a")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Late()
