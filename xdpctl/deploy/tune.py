"""Which settings does a device need for native XDP, for redirects, for AF_XDP? Doctor's rules, played through. Pure.

A rule's fix that is a setting becomes changes; the snapshot as it would then be is judged again, until nothing that a
setting could mend is left. What remains is told: other commands, or words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy import device, device_names
from xdpctl.deploy.device_after import evolved
from xdpctl.deploy.device_commands import words_of
from xdpctl.deploy.device_limits import MisfitError, napi_setting
from xdpctl.doctor.finding import Finding, Status
from xdpctl.doctor.fix import command_line
from xdpctl.doctor.intent import AttachXdp, Health, Redirect
from xdpctl.doctor.rules import judge
from xdpctl.doctor.rules.case import has_native
from xdpctl.errors import ConfigError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.deploy.change import Change
    from xdpctl.host.model import Link, LinkRef, Snapshot

USES = ("xdp-native", "xdp-redirect", "af-xdp")
XSK_ZEROCOPY = 8
"""NETDEV_XDP_ACT_XSK_ZEROCOPY (6.3)."""
_MOST = 32
"""Rounds of judging: more findings than a device can have."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a device is to be made fit for."""

    name: str
    """One of USES."""
    frags: bool = False
    """The program is frags-aware: SEC("xdp.frags")."""
    queues: int | None = None
    """AF_XDP: queues that have a socket; None: not told."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Settings of one device, and why."""

    interface: str
    netns: str | None
    """Label, None for the caller's."""
    settings: tuple[str, ...]
    """As `xdpctl driver set` takes them."""
    why: str
    finding: str | None = None
    """Id of the finding that they clear; None: the device works without, but not as well."""
    references: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What one would type for it."""
        where = f"--netns {self.netns} " if self.netns else ""
        return f"xdpctl driver set {where}{self.interface} {' '.join(self.settings)}"

    def to_json(self) -> dict[str, Any]:
        """Every field, and the command."""
        return {
            "interface": self.interface,
            "netns": self.netns,
            "settings": list(self.settings),
            "command": self.command,
            "why": self.why,
            "finding": self.finding,
            "references": list(self.references),
        }


@dataclass(frozen=True, slots=True)
class Left:
    """What stands against the use and no setting changes."""

    why: str
    fails: bool
    """It does not work so; False: it may not, or not as well."""
    finding: str | None = None
    ways: tuple[str, ...] = ()
    """Commands, or other ways in words."""

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {"why": self.why, "fails": self.fails, "finding": self.finding, "ways": list(self.ways)}


@dataclass(frozen=True, slots=True)
class Tuning:
    """The way of one device to one use."""

    advice: tuple[Advice, ...]
    changes: tuple[Change, ...]
    """In order; of other devices too (a veth's peer)."""
    left: tuple[Left, ...]

    @property
    def fails(self) -> bool:
        """Something stands against it that no setting changes."""
        return any(one.fails for one in self.left)


def tune(snapshot: Snapshot, ref: LinkRef, use: Use) -> Tuning:
    """The changes that make a device fit for a use, and what they can't change.

    Args:
        snapshot: of all namespaces, as collect(netns="all", settings=True, pools=True) observes them.
        ref: the device.
        use: what for.

    Raises:
        ConfigError: `use` wants what the device hasn't got (more queues than there are).
    """
    state = _Tried(snapshot)
    for _ in range(_MOST):
        finding = next((one for one in _findings(state.snapshot, ref, use) if state.take(one)), None)
        if finding is None:
            break
    if not any(one.status is Status.FAIL for one in _findings(state.snapshot, ref, use)):
        state.own(ref, use)
    left = [_left(one) for one in _findings(state.snapshot, ref, use)]
    link = state.snapshot.link(ref)
    notes = [] if link is None else [*_notes(link, use)]
    return Tuning(tuple(state.advice), tuple(state.changes), (*left, *state.misfits, *notes))


def _findings(snapshot: Snapshot, ref: LinkRef, use: Use) -> Iterator[Finding]:
    attach = AttachXdp(ref, "native", "a program", frags=use.frags, via="netlink", replace=True)
    yield from (one for one in judge(snapshot, [attach]) if not one.id.startswith(_NOT_MEANT))
    if use.name == "xdp-redirect":
        yield from judge(snapshot, [Redirect(None, ref, via_map=True, multi_buffer=use.frags)])
    for one in judge(snapshot, [Health(ref, named=True)]):
        if one.id in _POOLS:
            yield one


_NOT_MEANT = ("attach.link-in-the-way", "attach.program-in-the-way", "environment.")
"""What is attached already, and who asks: this is about the device."""
_POOLS = ("page-pool.too-large", "page-pool.ring-full")
"""Of how the device is: what rings have to do with. Shutdowns that wait are no matter of settings."""


class _Tried:
    """A snapshot as it would be after the changes so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.advice: list[Advice] = []
        self.changes: list[Change] = []
        self.misfits: list[Left] = []
        self._seen: set[tuple[str, tuple[tuple[str, ...], ...]]] = set()

    def take(self, finding: Finding) -> bool:
        """Play a finding's fix through, where it is made of settings and wasn't tried; whether it was."""
        key = finding.id, tuple(one.argv for one in finding.fix)
        if finding.status is Status.OK or not finding.fix or key in self._seen:
            return False
        self._seen.add(key)
        steps: list[tuple[Link, tuple[str, ...]]] = []
        for fix in finding.fix:
            told = words_of(fix.argv)
            link = None if told is None else self._named(told[0], fix.netns)
            if told is None or link is None:
                return False
            steps.append((link, told[1]))
        for link, words in steps:
            self._set(link.ref, words, finding.summary, finding.id, finding.references)
        return True

    def own(self, ref: LinkRef, use: Use) -> None:
        """What no rule of doctor asks for: it works without, but not as well."""
        link = self.snapshot.link(ref)
        if link is None:
            return
        for words, why, reference in _wishes(link, use):
            self._set(ref, words, why, None, (reference,))

    def _named(self, name: str, label: str | None) -> Link | None:
        space = self.snapshot.namespace_named(label)
        return None if space is None else self.snapshot.named(name, space.inode)

    def _set(
        self, ref: LinkRef, words: tuple[str, ...], why: str, finding: str | None, references: tuple[str, ...]
    ) -> None:
        link = self.snapshot.link(ref)
        space = self.snapshot.namespace(ref.netns)
        if link is None or space is None:
            return
        label = None if space.current else space.label
        known = device_names.words(link.features or (), link.private_flags or ())
        try:
            wanted = device.DeviceSettings(**device_names.parse(words, known))
            made = device.settings_changes(link, wanted, netns=label)
        except MisfitError as error:
            if finding is None:
                raise
            self.misfits.append(Left(error.message, fails=True, finding=finding))
            return
        if not made:
            return
        self.changes += made
        plain = tuple(one.removeprefix("features.") for one in words)
        self.advice.append(Advice(link.name, label, plain, why, finding, references))
        for one in made:
            self.snapshot = evolved(self.snapshot, ref, one)


# -- what no rule asks for


def _wishes(link: Link, use: Use) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(settings, why, where that is written)."""
    if use.name != "af-xdp":
        return
    if use.queues is not None:
        why = f"a socket takes the frames of one queue: what comes in beyond those {use.queues} passes all of them by"
        yield _queues(link, use.queues), why, "Documentation/networking/af_xdp.rst, FAQ"
    unset = {name for name in _DEFER if napi_setting(link, name) == 0}
    if link.kind is None and unset:
        words = tuple(f"napi.{name}={value}" for name, value in _DEFER.items() if name in unset)
        yield words, BUSY_POLLING, "net/core/dev.c napi_complete_done(), busy_poll_stop() (5.11)"


_DEFER = {"defer-hard-irqs": "2", "gro-flush-timeout": "200us"}
BUSY_POLLING = (
    "a socket with SO_PREFER_BUSY_POLL keeps the device's interrupts off between its polls only where both are set;"
    " without busy polling they delay a lone frame by up to as much"
)


def _queues(link: Link, count: int) -> tuple[str, ...]:
    now = link.channels
    if now is None or not (now.combined_max or now.rx_max):
        raise ConfigError(
            f"{link.name} has {link.real_rx_queues or 'an unknown number of'} receive queues, and its driver"
            f" ({link.driver}) does not let them be set",
            hint=f"leave --queues away: xdpctl driver tune {link.name} --for af-xdp",
        )
    return (f"channels.{'combined' if now.combined_max else 'rx'}={count}",)


def _notes(link: Link, use: Use) -> Iterator[Left]:
    if use.name != "af-xdp":
        return
    if link.xdp_features is not None and not link.xdp_features & XSK_ZEROCOPY:
        more = (
            ""
            if has_native(link)
            else " (some drivers tell zero-copy only while a native program is attached)"
        )
        yield Left(
            f"{link.name}: its driver copies each frame into the socket's memory: no xsk-zerocopy{more}",
            fails=False,
        )
    queues = link.real_rx_queues
    if use.queues is None and queues is not None and queues > 1:
        yield Left(
            f"{link.name} receives on {queues} queues, and a socket takes the frames of one",
            fails=False,
            ways=(
                f"open a socket on each of queues 0 to {queues - 1}",
                "--queues N makes it receive on N queues",
            ),
        )


def _left(finding: Finding) -> Left:
    return Left(
        finding.summary,
        finding.status is Status.FAIL,
        finding.id,
        (*(command_line(one) for one in finding.fix), *finding.alternatives),
    )
