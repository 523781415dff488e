"""Bonds: their mode and their slaves decide about attaching and about being a redirect's target.

Mirrors drivers/net/bonding/bond_main.c bond_xdp_set(), bond_xdp_check(), bond_xdp_set_features(),
bond_xdp_get_xmit_slave() (5.15).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp, Redirect
from xdpctl.doctor.rules import attach_drivers, attach_veth, redirect_veth
from xdpctl.doctor.rules.case import NDO_XMIT, Case, Mistake, Rule, driver_of, has_native
from xdpctl.doctor.rules.commands import detach, detach_link, pass_program
from xdpctl.doctor.rules.refusal import refuse
from xdpctl.doctor.rules.target_drivers import NEVER, NO_NDO_BPF, PROGRAM, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.doctor.finding import Fix
    from xdpctl.host.model import Link

SET = "drivers/net/bonding/bond_main.c bond_xdp_set()"
MODE = Mistake(
    "attach.bond-mode",
    "The bond's mode has no native XDP: only balance-rr, active-backup, balance-xor and 802.3ad do.",
    "EOPNOTSUPP; `No native XDP support for the current bonding mode` from 6.12.57",
    ("drivers/net/bonding/bond_main.c bond_xdp_check()",),
)
SLAVE_UNABLE = Mistake(
    "attach.bond-slave-unable",
    "A slave of the bond lacks native XDP or ndo_xdp_xmit.",
    "EOPNOTSUPP, `Slave device does not support XDP`",
    (SET,),
)
SLAVE_BUSY = Mistake(
    "attach.bond-slave-busy",
    "A slave of the bond has an XDP program of its own.",
    "EOPNOTSUPP, `Slave has XDP program loaded, please unload before enslaving`",
    (SET,),
)
TARGET = Mistake(
    "redirect.bond-not-ready",
    "Frames can't be redirected natively to a bond: its mode, its lack of slaves, or one of them forbids it.",
    "EOPNOTSUPP in xdp_redirect_err from 6.3; ENXIO in xdp_devmap_xmit before",
    ("drivers/net/bonding/bond_main.c bond_xdp_set_features()", "bond_xdp_get_xmit_slave()"),
)
MISTAKES = (MODE, SLAVE_UNABLE, SLAVE_BUSY, TARGET)

ABLE = ("balance-rr", "active-backup", "balance-xor", "802.3ad")


def _mode_trouble(link: Link) -> str | None:
    """Why bond_xdp_check() says no, or None."""
    if link.bond is None:
        return None
    if link.bond.mode not in ABLE:
        return f"bonding mode {link.bond.mode} has no native XDP"
    if link.bond.mode in ("balance-xor", "802.3ad") and link.bond.xmit_hash_policy == "vlan+srcmac":
        return "xmit_hash_policy vlan+srcmac has no native XDP"
    return None


def attach(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """A native attach to a bond, which hands the program to every slave."""
    link = case.link(intent.link)
    if link is None or link.kind != "bond" or intent.mode != "native" or not case.since(5, 15):
        return
    trouble = _mode_trouble(link)
    if trouble is not None:
        told = case.since(6, 18) or any(
            case.since(*first) and not case.since(*last)
            for first, last in (((6, 1, 175), (6, 2)), ((6, 12, 57), (6, 13)))
        )
        command = ("ip", "link", "set", "dev", link.name, "type", "bond")
        bond = link.bond
        fix: tuple[Fix, ...] = ()
        if bond is not None and bond.mode in ABLE:
            back = (*command, "xmit_hash_policy", "vlan+srcmac")
            fix = (case.fix(link, *command, "xmit_hash_policy", "layer2", inverse=back),)
        yield refuse(
            case,
            MODE,
            link,
            f"{case.name(link)} can't run XDP natively: {trouble}",
            errno="EOPNOTSUPP",
            extack="No native XDP support for the current bonding mode" if told else None,
            evidence=(Evidence(trouble, "RTM_GETLINK IFLA_BOND_*"),),
            fix=fix,
            alternatives=(
                f"with the bond down and without slaves: {' '.join(command)} mode 802.3ad",
                "attach in generic mode: --mode generic",
            ),
        )
        return
    for slave in case.lowers(link):
        yield from _slave(case, intent, link, slave)


def _slave(case: Case, intent: AttachXdp, bond: Link, slave: Link) -> Iterator[Finding]:
    driver = driver_of(slave)
    row = TARGETS.get(driver or "")
    if driver in NO_NDO_BPF or (row is not None and row.xmit == NEVER):
        yield refuse(
            case,
            SLAVE_UNABLE,
            bond,
            f"{case.name(slave)}, a slave of {case.name(bond)}, lacks native XDP or ndo_xdp_xmit ({driver})",
            errno="EOPNOTSUPP",
            extack="Slave device does not support XDP",
            evidence=(Evidence(f"{slave.name}'s driver is {driver}", "ethtool driver info, rtnl link kind"),),
            alternatives=("attach in generic mode: --mode generic",),
        )
        return
    if slave.xdp and not bond.xdp.native:
        mode = "native" if slave.xdp.native else "generic" if slave.xdp.generic else "offload"
        link_id = slave.xdp.native_link_id if mode == "native" else slave.xdp.generic_link_id
        fix = detach_link(case, slave, link_id) if link_id else detach(case, slave, mode)
        yield refuse(
            case,
            SLAVE_BUSY,
            bond,
            f"{case.name(slave)}, a slave of {case.name(bond)}, has an XDP program of its own",
            errno="EOPNOTSUPP",
            extack="Slave has XDP program loaded, please unload before enslaving",
            evidence=(Evidence(f"{slave.name} has a {mode} program", "RTM_GETLINK IFLA_XDP"),),
            fix=(fix,),
        )
        return
    below = replace(intent, link=slave.ref)
    yield from attach_veth.attach(case, below)
    yield from attach_drivers.mtu_limits(case, below)
    yield from attach_drivers.refusals(case, below)


def redirect(case: Case, intent: Redirect) -> Iterator[Finding]:
    """A native redirect to a bond: the AND of its slaves' features, then the slave that transmits."""
    link = case.link(intent.target)
    if link is None or link.kind != "bond" or intent.mode != "native":
        return
    slaves = case.lowers(link)
    why = _mode_trouble(link)
    if why is None and not case.since(5, 15):
        why = "bonds have no ndo_xdp_xmit before 5.15"
    if why is None and not slaves:
        why = "it has no slaves"
    features = link.xdp_features
    if why is None and features is not None and not features & NDO_XMIT:
        unable = [one.name for one in slaves if not (one.xdp_features or 0) & NDO_XMIT]
        why = f"its slaves {', '.join(unable)} lack ndo-xmit" if unable else "its xdp-features lack ndo-xmit"
    needy = [] if has_native(link) or case.is_to_run_native(link) else _needy(slaves)
    able = case.since(5, 15) and _mode_trouble(link) is None and not link.xdp.generic
    fix = (pass_program(case, link),) if needy and able else ()
    if why is None and features is None and needy:
        why = f"its slaves {', '.join(needy)} transmit only while a native program is attached"
    if (
        why is None
        and link.bond is not None
        and link.bond.mode == "active-backup"
        and link.bond.active_slave is None
    ):
        yield _lost(case, intent, link, "it has no active slave", "ENXIO", "xdp:xdp_devmap_xmit")
        return
    if why is not None:
        early = (
            (features is not None and not features & NDO_XMIT) or not case.since(5, 15) or case.since(6, 3)
        )
        errno, place = ("EOPNOTSUPP", "xdp:xdp_redirect_err") if early else ("ENXIO", "xdp:xdp_devmap_xmit")
        yield _lost(case, intent, link, why, errno, place, fix)
    for slave in slaves:  # what its slaves lack is what has to be fixed
        if slave.kind == "veth":
            yield from redirect_veth.redirect(case, replace(intent, target=slave.ref))


def _needy(slaves: Iterable[Link]) -> list[str]:
    """Slaves whose drivers transmit redirected frames only while they run a program: the bond's own will do."""
    return [
        one.name
        for one in slaves
        if (row := TARGETS.get(driver_of(one) or "")) is not None
        and row.xmit == PROGRAM
        and not row.bare_worked
        and not has_native(one)
    ]


def _lost(
    case: Case, intent: Redirect, link: Link, why: str, errno: str, place: str, fix: tuple[Fix, ...] = ()
) -> Finding:
    facts = [Evidence(f"mode {link.bond.mode}", "RTM_GETLINK IFLA_BOND_MODE")] if link.bond else []
    if link.xdp_features is not None:
        facts.append(Evidence(f"xdp-features {link.xdp_features:#x}", f"netdev dev-get of {case.name(link)}"))
    return case.find(
        TARGET,
        Status.FAIL if intent.promised else Status.WARN,
        link,
        f"frames redirected natively to {case.name(link)} are lost: {why}",
        errno=errno,
        shows_in=place,
        consequence=f"redirects fail with {errno} in {place}",
        evidence=tuple(facts),
        fix=fix,
        alternatives=("redirect to one of the slaves", "attach the redirecting program in generic mode"),
    )


RULES = (Rule((AttachXdp,), attach), Rule((Redirect,), redirect))
