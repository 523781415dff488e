"""A shipped tracing object in the kernel: the programs that fit this kernel's tracepoints, attached while it is open.

Which tracepoints there are, and with how many arguments, the kernel's own BTF tells (``btf_trace_NAME`` in
include/trace/bpf_probe.h). Programs attach by raw tracepoint links, which end with their descriptors: nothing stays
attached however this process ends, and any number of tracers may run at once.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf.link import Link, link_raw_tracepoint
from xdpctl.bpf.object import Object
from xdpctl.btf.kernel import vmlinux
from xdpctl.btf.parse import TYPEDEF
from xdpctl.btf.types import Enum, Modifier, Pointer, Prototype
from xdpctl.errors import AttachError, UnsupportedError
from xdpctl.obj import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from xdpctl.bpf.map import Map
    from xdpctl.btf.parse import Btf


class Hook(NamedTuple):
    """One program of a tracing object, and the tracepoint it is for."""

    program: str
    tracepoint: str
    arguments: frozenset[int]
    """Numbers of the tracepoint's arguments that it fits; empty: any."""
    tells: str
    """What is not told without it."""


class Missing(NamedTuple):
    """A tracepoint that this kernel lacks, or has in a form that no program fits."""

    tracepoint: str
    tells: str
    """What is not told because of it."""


def hook(program: str, tracepoint: str, tells: str, *arguments: int) -> Hook:
    """A row of a tracer's table."""
    return Hook(program, tracepoint, frozenset(arguments), tells)


def arguments_of(kernel: Btf, tracepoint: str) -> int | None:
    """How many arguments a tracepoint has; None: this kernel has no such tracepoint."""
    found = kernel.find(f"btf_trace_{tracepoint}", TYPEDEF)
    if not isinstance(found, Modifier):
        return None
    pointer = kernel.resolve(found.id)
    prototype = kernel.resolve(pointer.target) if isinstance(pointer, Pointer) else None
    # the first parameter is the tracepoint's private data
    return len(prototype.parameters) - 1 if isinstance(prototype, Prototype) else None


def enumerators(name: str) -> Mapping[int, str]:
    """Value -> name of one of the running kernel's enums; empty where it has none of that name."""
    from xdpctl.btf.parse import ENUM, ENUM64

    found = vmlinux().find(name, ENUM, ENUM64)
    return {value: text for text, value in found.values} if isinstance(found, Enum) else {}


def fitting(kernel: Btf, hooks: Iterable[Hook]) -> tuple[list[Hook], list[Missing]]:
    """The rows that this kernel has a tracepoint for, and the tracepoints that no row fits."""
    found: list[Hook] = []
    missing: dict[str, Missing] = {}
    for one in hooks:
        count = arguments_of(kernel, one.tracepoint)
        if count is not None and (not one.arguments or count in one.arguments):
            found.append(one)
        else:
            missing[one.tracepoint] = Missing(one.tracepoint, one.tells)
    return found, [one for name, one in missing.items() if name not in {fits.tracepoint for fits in found}]


class Tracer:
    """A tracing object that counts while it is open.

    Args:
        name: of the shipped object (``trace_redirect``).
        hooks: rows to load and attach; of those for one tracepoint, those that fit.
        unattached: programs to load that are run by us alone.
        prepare: called with the opened object before it is loaded.

    Attributes:
        missing: tracepoints that this kernel lacks.

    Raises:
        UnsupportedError: the kernel describes no types, or has none of the tracepoints.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
        NotFoundError: the object was not compiled.
        VerifierError, ObjectError, MapError: the kernel refused the load.
    """

    def __init__(
        self,
        name: str,
        hooks: Sequence[Hook],
        *,
        unattached: Iterable[str] = (),
        prepare: Callable[[Object], None] | None = None,
    ) -> None:
        self._links: list[Link] = []
        self._object: Object | None = None
        chosen, missing = fitting(_types(), hooks)
        self.missing = tuple(missing)
        self._programs = [one.program for one in chosen]
        if not chosen and hooks:
            names = ", ".join(one.tracepoint for one in missing)
            raise UnsupportedError(
                "this tracer", needs=f"the tracepoints {names}", has="a kernel without them"
            )
        try:
            self._object = made = Object.open(shipped.resolve(Path(shipped.PREFIX + name)))
            wanted = {*self._programs, *unattached}
            for program in made.programs.values():
                program.set_autoload(program.name in wanted)
            if prepare is not None:
                prepare(made)
            made.load()
            for one in chosen:
                self._links.append(_attached(made, one))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything and let go of the maps; safe to repeat."""
        while self._links:
            self._links.pop().close()
        if self._object is not None:
            self._object.close()
            self._object = None

    @property
    def object(self) -> Object:
        """The loaded object.

        Raises:
            UnsupportedError: it is closed.
        """
        if self._object is None:
            raise UnsupportedError("reading a tracer", needs="an open one", has="one that is closed")
        return self._object

    def map(self, name: str) -> Map:
        """A map of the object."""
        return self.object.map(name)

    def program_ids(self) -> frozenset[int]:
        """Those of its programs that are loaded."""
        return frozenset(self.object.programs[name].info().id for name in self._programs)

    def missed(self) -> int:
        """Events that passed by because a program of this tracer was running on that CPU already (Linux 5.12)."""
        return sum(self.object.programs[name].info().recursion_misses or 0 for name in self._programs)


def _types() -> Btf:
    try:
        return vmlinux()
    except UnsupportedError as why:
        raise UnsupportedError(
            "tracing",
            needs="the kernel's types in /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)",
            has="a kernel without them",
            hint="what still works without: xdpctl status, doctor, and the counters of xdpctl top",
        ) from why


def _attached(made: Object, one: Hook) -> Link:
    try:
        return link_raw_tracepoint(made.program(one.program).fd, "")
    except AttachError as why:
        if why.errno != errno.ENOENT:
            raise
        raise UnsupportedError(
            f"tracing {one.tracepoint}", needs=f"the tracepoint {one.tracepoint}", has="a kernel without it"
        ) from why
