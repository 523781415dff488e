"""Which numbers in a map's values does a program add to? Told from its instructions (`obj.flow`), for upgrades.

What two versions of a program both added to a counter is to be added up; what both wrote otherwise is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.obj.code import reachable
from xdpctl.obj.flow import Steps, analyse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpctl.obj.flow import Counted
    from xdpctl.obj.model import ObjFile


def counted(obj: ObjFile, programs: Iterable[str] | None = None) -> dict[str, frozenset[Counted]]:
    """Map -> the numbers that programs of an object add to; what can't be followed is left out.

    Args:
        obj: the object.
        programs: names; by default all of its programs.
    """
    wanted = set(programs) if programs is not None else {one.name for one in obj.programs}
    steps = Steps()
    found: dict[str, set[Counted]] = {}
    for one in obj.programs:
        if one.name not in wanted or one.section not in obj.code:
            continue
        functions = reachable(obj.code, one.section, one.start)
        if not functions:
            continue
        for number in analyse(obj.code, functions, steps=steps).counted:
            found.setdefault(number.map, set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}
