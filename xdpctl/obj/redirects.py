"""Where will a program redirect to? The targets of each redirect call, as far as its instructions tell.

`analyse` says which constants, global variables, maps, map values or context fields feed bpf_redirect,
bpf_redirect_map, bpf_redirect_peer, bpf_redirect_neigh and bpf_clone_redirect, through which maps the program tail
calls, and whether it returns the constant XDP_TX. What it can't follow is None in the `RedirectCall`, never a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.obj import flow
from xdpctl.obj.model import RedirectCall
from xdpctl.obj.registers import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpctl.obj.code import Function, Section
    from xdpctl.obj.flow import CallSite, Steps
    from xdpctl.obj.registers import Known, Value

XDP_TX = 3

_CONTEXT_FIELDS = {
    "xdp": {
        0: "data",
        4: "data_end",
        8: "data_meta",
        12: "ingress_ifindex",
        16: "rx_queue_index",
        20: "egress_ifindex",
    },
    "sched_cls": {
        8: "mark",
        12: "queue_mapping",
        36: "ingress_ifindex",
        40: "ifindex",
        48: "cb[0]",
        68: "hash",
    },
}
"""Program type -> offset -> member: ``struct xdp_md`` and ``struct __sk_buff``."""


class Redirects(NamedTuple):
    """What following one program told."""

    calls: tuple[RedirectCall, ...]
    """One for each call site and alternative target, in the order of the instructions."""
    tail_calls: tuple[str, ...]
    """prog_array maps; an empty name where one could not be told."""
    returns_tx: bool | None
    complete: bool
    """False: the program was too large to follow; every call is listed, its targets unknown."""


NOTHING = Redirects((), (), None, True)
"""Of a program that was not followed, since it calls none of `HELPERS`."""
HELPERS = frozenset((*flow.REDIRECTS.values(), "bpf_tail_call"))


def analyse(
    sections: dict[str, Section],
    functions: Sequence[Function],
    *,
    program_type: str | None,
    variable: Callable[[str, int, int, bool], str | None],
    steps: Steps,
) -> Redirects:
    """Follow a program from its first instruction.

    Args:
        sections: the object's code.
        functions: the program, and every function it may call (`code.reachable`).
        program_type: for the names of context fields.
        variable: (data section, byte offset, size, indexed) -> path of the global there (`cfg.ifindex`).
        steps: how much work may be done.
    """
    found = flow.analyse(sections, functions, steps=steps)
    names = _CONTEXT_FIELDS.get({"sched_act": "sched_cls"}.get(program_type or "", program_type or ""), {})
    calls: list[RedirectCall] = []
    tails: dict[str, None] = {}
    for _, site in sorted(found.calls.items()):
        if site.helper == flow.TAIL_CALL:
            for known in site.arguments[1] or (OTHER,):
                tails[known.name if known.kind == "map" else ""] = None
        else:
            calls += _calls(site, names, variable)
    return Redirects(tuple(calls), tuple(sorted(tails)), _returns(found, XDP_TX), found.complete)


def _returns(found: flow.Flow, action: int) -> bool | None:
    """Whether some path returns a constant: True or False where that is sure, else None."""
    if found.returns is None:
        return None
    if any(known.kind == "const" and known.number == action for known in found.returns):
        return True
    return False if all(known.kind in ("const", "redirect") for known in found.returns) else None


def _calls(
    site: CallSite, names: dict[int, str], variable: Callable[[str, int, int, bool], str | None]
) -> Iterator[RedirectCall]:
    helper = flow.REDIRECTS[site.helper]
    first, second, third = site.arguments[:3]
    if helper == "bpf_redirect_map":
        for one in _alternatives(first):
            for key in _alternatives(second):
                yield RedirectCall(
                    helper=helper,
                    offset=site.instruction,
                    section=site.section,
                    map=one.name if one.kind == "map" else None,
                    key=key.number if key.kind == "const" else None,
                    variable=_variable(key, variable),
                    origin=_origin(key, names),
                    flags=_constant(third),
                )
        return
    target = second if helper == "bpf_clone_redirect" else first
    flags = {"bpf_redirect_neigh": site.arguments[3], "bpf_clone_redirect": third}.get(helper, second)
    for one in _alternatives(target):
        yield RedirectCall(
            helper=helper,
            offset=site.instruction,
            section=site.section,
            ifindex=one.number if one.kind == "const" else None,
            variable=_variable(one, variable),
            origin=_origin(one, names),
            origin_map=one.name if one.kind == "entry" else None,
            flags=_constant(flags),
        )


def _alternatives(value: Value) -> list[Known]:
    return sorted(value) if value else [OTHER]


def _constant(value: Value) -> int | None:
    if value is not None and len(value) == 1:
        (known,) = value
        if known.kind == "const":
            return known.number
    return None


def _variable(one: Known, variable: Callable[[str, int, int, bool], str | None]) -> str | None:
    if one.kind != "value" or one.shifted:
        return None
    return variable(one.name, one.number, one.size, one.indexed)


def _origin(one: Known, names: dict[int, str]) -> str | None:
    """In words, where a target or key comes from that is no constant and no global."""
    if one.shifted:
        return None
    if one.kind == "field":
        return f"ctx->{names[one.number]}" if one.number in names else None
    if one.kind == "entry":
        return f"a value of map {one.name}"
    if one.kind == "fib":
        return "bpf_fib_lookup"
    if one.kind == "call":
        return one.name
    return None
