"""One change of the machine, with its inverse: what plans are lists of, and the one table that executes them.

A change says what was (`before`) and what is to be (`after`), so that a journal can write it down, show it, run it
again and take it back. Executing a change whose after-state already holds does nothing.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args

from xdpctl.errors import ConfigError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpctl.netlink.netns import NetnsRef

Json = Union[None, bool, int, float, str, "list[Json]", "dict[str, Json]"]
Disturbs = Literal["nothing", "traffic", "link"]
"""What a change costs while it happens: frames are lost for a moment; the link goes down and comes back."""
DISTURBANCES: tuple[Disturbs, ...] = get_args(Disturbs)


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a plan. `before` and `after` hold the same keys; those that do not change are left out."""

    kind: str
    """``device.rings``, ``xdp.attach``, ...: which function executes it."""
    netns: str | None
    """As `netlink.netns.find` takes it; None: the caller's."""
    target: str
    """Interface name, or what else is changed (a map's pin path)."""
    ifindex: int | None
    """The very interface that was meant: another one of that name is left alone. None: whichever has the name."""
    before: Mapping[str, Json]
    after: Mapping[str, Json]
    why: str
    """One sentence for people."""
    disturbs: Disturbs = "nothing"
    space: tuple[int, int | None] | None = None
    """Inode and cookie of the very namespace that was meant: another one that took over its name, its pid or its inode
    is left alone."""
    drift: str = ""
    """Of a program that is taken off: in what it differs from the deployment (a kind of `drift.Drift`)."""

    def inverse(self) -> Change:
        """The change that takes this one back."""
        return replace(
            self,
            kind=_INVERSE_KINDS.get(self.kind, self.kind),
            before=self.after,
            after=self.before,
            why=f"take back: {self.why}" if not self.why.startswith("take back: ") else self.why[11:],
        )

    @property
    def empty(self) -> bool:
        """Nothing differs."""
        return dict(self.before) == dict(self.after)

    @property
    def spelled(self) -> str:
        """``rings of veth0``, ``attach of eth0``: how a message names it."""
        return f"{self.kind.partition('.')[2]} of {self.target}"

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {
            "kind": self.kind,
            "netns": self.netns,
            "target": self.target,
            "ifindex": self.ifindex,
            "before": dict(self.before),
            "after": dict(self.after),
            "why": self.why,
            "disturbs": self.disturbs,
            "space": None if self.space is None else list(self.space),
            **({"drift": self.drift} if self.drift else {}),
        }

    @classmethod
    def from_json(cls, found: Any) -> Change:
        """The change that `to_json` wrote.

        Raises:
            ConfigError: it is something else, names the field.
        """
        if not isinstance(found, dict):
            raise ConfigError(f"a change is an object, not {type(found).__name__}")
        for name, kinds in _FIELDS.items():
            if name not in found or not isinstance(found[name], kinds) or isinstance(found[name], bool):
                raise ConfigError(f"a change without a proper {name!r}: {found.get(name)!r}")
        disturbs = next((one for one in DISTURBANCES if one == found["disturbs"]), None)
        if disturbs is None:
            raise ConfigError(
                f"a change that disturbs {found['disturbs']!r}", hint=f"one of {', '.join(DISTURBANCES)}"
            )
        known = {name: found[name] for name in _FIELDS if name != "disturbs"}
        drift = found.get("drift", "")
        if not isinstance(drift, str):
            raise ConfigError(f"a change without a proper 'drift': {drift!r}")
        return cls(**known, disturbs=disturbs, space=_space(found.get("space")), drift=drift)


def _space(told: Any) -> tuple[int, int | None] | None:
    if told is None:
        return None
    if not isinstance(told, list) or [type(one) for one in told] not in ([int, int], [int, type(None)]):
        raise ConfigError(f"a change without a proper 'space': {told!r}")
    return told[0], told[1]


_FIELDS: dict[str, Any] = {
    "kind": str,
    "netns": (str, type(None)),
    "target": str,
    "ifindex": (int, type(None)),
    "before": dict,
    "after": dict,
    "why": str,
    "disturbs": str,
}


@dataclass(slots=True)
class Context:
    """What executions share: who hears of them, and what they keep open between each other."""

    tell: Callable[[str], None] = lambda _text: None
    """Hears what was found out on the way: a driver that rounds, something that was so already."""
    held: dict[str, Any] = field(default_factory=dict)
    """Opened objects, programs, maps by whatever key their module chooses."""


def namespace(change: Change, context: Context) -> NetnsRef:
    """The network namespace that a change is about.

    Raises:
        NotFoundError: it is gone, be it that another one is called so now.
        PrivilegeError: it may not be looked at.
    """
    from xdpctl.netlink import netns

    known = context.held.setdefault("namespaces", {})
    key = change.netns, change.space
    if key not in known:
        inode, cookie = change.space or (None, None)
        known[key] = netns.very(change.netns, inode, cookie)
    found: NetnsRef = known[key]
    return found


class Kind(NamedTuple):
    """Who executes a kind of change."""

    module: str
    """Imported at the first change of the kind; its `execute(change, context)` is called."""
    inverse: str | None = None
    """Kind of the inverse; None: the same kind with before and after exchanged."""


_PROGRAMS, _HOOKS = "xdpctl.deploy.programs", "xdpctl.deploy.attachments"
_ELEMENTS = "xdpctl.deploy.elements"
_DEVICE = "xdpctl.deploy.device_execute"
KINDS: dict[str, Kind] = {
    "device.up": Kind(_DEVICE),
    "device.mtu": Kind(_DEVICE),
    "device.rings": Kind(_DEVICE),
    "device.channels": Kind(_DEVICE),
    "device.features": Kind(_DEVICE),
    "device.coalesce": Kind(_DEVICE),
    "device.pause": Kind(_DEVICE),
    "device.private-flags": Kind(_DEVICE),
    "device.napi": Kind(_DEVICE),
    "program.load": Kind(_PROGRAMS, "program.unload"),
    "program.unload": Kind(_PROGRAMS, "program.load"),
    "program.pin": Kind(_PROGRAMS, "program.unpin"),
    "program.unpin": Kind(_PROGRAMS, "program.pin"),
    "program.keep": Kind(_PROGRAMS, "program.release"),
    "program.release": Kind(_PROGRAMS, "program.keep"),
    "xdp.attach": Kind(_HOOKS, "xdp.detach"),
    "xdp.update": Kind(_HOOKS),
    "xdp.detach": Kind(_HOOKS, "xdp.attach"),
    "tc.attach": Kind(_HOOKS, "tc.detach"),
    "tc.update": Kind(_HOOKS),
    "tc.detach": Kind(_HOOKS, "tc.attach"),
    "map.entries": Kind(_ELEMENTS),
    "map.copy": Kind(_ELEMENTS, "map.uncopy"),
    "map.uncopy": Kind(_ELEMENTS, "map.copy"),
}
"""Every kind of change. Rows are added here: a journal of another process must find them without importing more."""

_INVERSE_KINDS = {kind: row.inverse for kind, row in KINDS.items() if row.inverse}


def execute(change: Change, context: Context | None = None) -> None:
    """Make a change; where its after-state holds already, nothing happens.

    Raises:
        ConfigError: nobody executes this kind (a journal of a newer xdpctl).
        NotFoundError: the target is gone.
        XdpctlError: whatever its kind raises; the target is then as it was before this change.
    """
    row = KINDS.get(change.kind)
    if row is None:
        raise ConfigError(f"a change of kind {change.kind!r}, which this xdpctl does not know")
    module = sys.modules.get(row.module) or importlib.import_module(row.module)
    module.execute(change, context if context is not None else Context())
