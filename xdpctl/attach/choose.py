"""Which program of an object is meant, of which type, and for which hook?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.libbpf import uapi
from xdpctl.obj import sections

if TYPE_CHECKING:
    from xdpctl.attach.request import AttachRequest
    from xdpctl.bpf.object import Object
    from xdpctl.bpf.program import Program

DIRECTIONS = ("ingress", "egress")
MAP_PROGRAMS = {"xdp/devmap": "an entry of a devmap", "xdp/cpumap": "an entry of a cpumap"}


class Candidate(NamedTuple):
    """A program and what its section name, or ``--type``, says of it."""

    program: Program
    type: str | None
    """xdp, sched_cls, ...; None: the section name says nothing."""
    attach_type: str | None
    direction: str | None
    """ingress or egress, where the section name says so."""
    known_to_libbpf: bool
    frags: bool

    @property
    def hooks(self) -> tuple[str, ...]:
        """What it can be attached to: xdp, ingress, egress."""
        if self.type == "xdp" and self.attach_type not in MAP_PROGRAMS:
            return ("xdp",)
        if self.type == "sched_cls":
            return (self.direction,) if self.direction else DIRECTIONS
        return ()

    def describe(self) -> str:
        """``count (SEC xdp)``."""
        return f"{self.program.name} (SEC {self.program.section})"


def _meaning(program: Program, given: sections.SectionMeaning | None) -> Candidate:
    typed = program.type
    meaning = given or sections.meaning(program.section)
    known = typed != "unspec"
    if meaning is None:
        return Candidate(program, typed if known else None, None, None, known, frags=False)
    direction = meaning.hook
    for one in DIRECTIONS:
        if meaning.attach_type == f"tcx/{one}":
            direction = one
    if meaning.attach_type in ("netkit/primary", "netkit/peer"):
        direction = "egress" if meaning.attach_type == "netkit/primary" else "ingress"
    return Candidate(
        program, meaning.type, meaning.attach_type, direction, known and given is None, frags=meaning.frags
    )


def choose(obj: Object, request: AttachRequest) -> tuple[Candidate, str]:
    """The one program that is meant, and its hook (xdp, ingress, egress); its type is set where libbpf needs it.

    Raises:
        NotFoundError: there is no program of that name.
        ConfigError: several fit and none was named, the type contradicts the hook, or a TC hook must be named.
        ObjectError: no program of the object can be attached to an interface.
    """
    candidate = _find(obj, request)
    hook = _hook(candidate, request, obj)
    if not candidate.known_to_libbpf and candidate.type is not None:
        attach_type = None
        if candidate.attach_type is not None:
            attach_type = uapi.ATTACH_TYPES.index(candidate.attach_type.replace("/", "_"))
        candidate.program.set_type(candidate.type, attach_type)
        if candidate.frags:
            candidate.program.set_flags(candidate.program.flags | uapi.BPF_F_XDP_HAS_FRAGS)
    return candidate, hook


def _find(obj: Object, request: AttachRequest) -> Candidate:
    name = obj.path.name
    if not obj.programs:
        raise ObjectError(f"{name} has no program", hint='a program is a function in a section: SEC("xdp")')
    given = _given_type(request)
    if request.program is not None:
        return _meaning(_named(obj, request.program), given)
    candidates = [_meaning(one, None) for one in obj.programs.values()]
    wanted = _wanted_hooks(request)
    fitting = [one for one in candidates if set(one.hooks) & wanted]
    if not fitting and request.hook in DIRECTIONS:
        fitting = [
            one for one in candidates if one.type == "sched_cls"
        ]  # the user may overrule the section's name
    if given is not None:
        untold = [one for one in candidates if one.type is None]
        fitting = [one for one in fitting if one.type == given.type] or untold or fitting
        if len(candidates) == 1:
            fitting = candidates
        fitting = [_meaning(one.program, given) for one in fitting]
    if not fitting:
        raise _none_fits(obj, candidates, request)
    if len(fitting) > 1:
        raise ConfigError(
            f"{name} has {len(fitting)} programs that could be meant: {', '.join(one.describe() for one in fitting)}",
            hint=f"name one: --program {fitting[0].program.name}",
        )
    return fitting[0]


def _given_type(request: AttachRequest) -> sections.SectionMeaning | None:
    if request.type is None:
        return None
    given = sections.from_type(request.type)
    if given is None:
        known = sections.type_names()
        raise NotFoundError("program type", request.type, known=known, hint=None)
    return given


def _named(obj: Object, name: str) -> Program:
    found = obj.programs.get(name)
    if found is None:
        in_section = [one for one in obj.programs.values() if one.section == name]
        if len(in_section) == 1:
            return in_section[0]
        raise NotFoundError("program", name, known=obj.programs, where=obj.path.name)
    return found


def _wanted_hooks(request: AttachRequest) -> set[str]:
    if request.hook is not None:
        return {request.hook}
    if request.mode is not None or request.via in ("link", "netlink"):
        return {"xdp"}
    if request.via is not None or request.position is not None:
        return set(DIRECTIONS)
    return {"xdp", *DIRECTIONS}


def _none_fits(obj: Object, candidates: list[Candidate], request: AttachRequest) -> ObjectError:
    listed = ", ".join(one.describe() for one in candidates[:8])
    more = f" and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    attachable = sorted({hook for one in candidates for hook in one.hooks})
    if attachable:
        asked = f"--hook {request.hook}" if request.hook else "these options"
        hint = (
            f"{candidates[0].program.name} is for {' or '.join(attachable)}" if len(candidates) == 1 else None
        )
        return ObjectError(f"{obj.path.name} has no program for {asked}: it has {listed}{more}", hint=hint)
    untold = [one for one in candidates if one.type is None]
    hint = "only XDP and TC programs are attached to interfaces"
    if untold:
        hint = (
            f"section {untold[0].program.section} tells no type: --type xdp, or --type tc with --hook ingress"
        )
    return ObjectError(f"{obj.path.name} has no program for an interface: it has {listed}{more}", hint=hint)


def _hook(candidate: Candidate, request: AttachRequest, obj: Object) -> str:
    name = candidate.program.name
    if not candidate.hooks:
        raise _none_fits_named(candidate, obj)
    wanted = _wanted_hooks(request)
    if request.hook is None and len(candidate.hooks) > 1 and set(candidate.hooks) & wanted:
        raise ConfigError(
            f"program {name} (SEC {candidate.program.section}) is for TC, but ingress or egress?",
            hint="--hook ingress, or --hook egress",
        )
    if request.hook in DIRECTIONS and candidate.type == "sched_cls":
        return str(request.hook)  # a section name says what its author meant, the user says where it goes
    fitting = [one for one in candidate.hooks if one in wanted]
    if not fitting:
        kind = "an XDP program" if candidate.type == "xdp" else "a TC program"
        asked = (
            f"--hook {request.hook}" if request.hook else f"--mode {request.mode}" if request.mode else None
        )
        asked = asked or f"--via {request.via}"
        hint = (
            "--hook xdp" if candidate.type == "xdp" else "--hook ingress, or --hook egress; TC has no modes"
        )
        raise ConfigError(f"program {name} is {kind}, which {asked} is not for", hint=hint)
    return fitting[0]


def _none_fits_named(candidate: Candidate, obj: Object) -> ObjectError:
    name = candidate.program.name
    place = MAP_PROGRAMS.get(candidate.attach_type or "")
    if place is not None:
        return ObjectError(
            f"program {name} of {obj.path.name} (SEC {candidate.program.section}) runs on {place}, not on an interface",
            hint="put it into the map's entry; attach the program that redirects there",
        )
    if candidate.type is None:
        return ObjectError(
            f"program {name} of {obj.path.name} has the section name {candidate.program.section}, which tells no type",
            hint="--type xdp, or --type tc with --hook ingress",
        )
    return ObjectError(
        f"program {name} of {obj.path.name} is of type {candidate.type}, which is not for interfaces",
        hint="only XDP and TC programs are attached to interfaces",
    )
