"""A finding that the kernel will refuse an attach, and who holds a mode of a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Finding, Status

if TYPE_CHECKING:
    from xdpctl.doctor.finding import Evidence, Fix
    from xdpctl.doctor.rules.case import Case, Mistake
    from xdpctl.host.model import Link

REFUSED, LOAD = "the attach", "the load"


def refuse(
    case: Case,
    mistake: Mistake,
    link: Link,
    summary: str,
    *,
    errno: str,
    extack: str | None = None,
    evidence: tuple[Evidence, ...] = (),
    fix: tuple[Fix, ...] = (),
    alternatives: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
    shows_in: str = REFUSED,
) -> Finding:
    """A finding that the kernel will refuse the attach with `errno` and say `extack`."""
    return case.find(
        mistake,
        Status.FAIL,
        link,
        summary,
        errno=errno,
        extack=extack,
        shows_in=shows_in,
        consequence=f"the kernel refuses {shows_in} with {errno}",
        evidence=evidence,
        fix=fix,
        alternatives=alternatives,
        references=references or mistake.mirrors,
    )


def slot(link: Link, mode: str) -> tuple[int | None, int | None]:
    """(program id, link id) that hold a mode of the link."""
    xdp = link.xdp
    return {
        "native": (xdp.native, xdp.native_link_id),
        "generic": (xdp.generic, xdp.generic_link_id),
        "offload": (xdp.offload, xdp.offload_link_id),
    }.get(mode, (None, None))


def program_name(case: Case, number: int) -> str:
    """``program count (id 7)``, or its id alone."""
    known = case.snapshot.programs.get(number)
    return f"program {known.name} (id {number})" if known and known.name else f"program id {number}"
