"""Desired - observed = plan: the ordered changes that lead from a machine to a deployment. Pure.

The order: programs are loaded and their maps filled before anything runs them; devices are set before programs that
depend on it are attached; then attachments; last what is no longer wanted leaves, and devices go back to what they
were.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from xdpctl.deploy import attaching, unpinned
from xdpctl.deploy.change import Change
from xdpctl.deploy.desired import Deployment, DeploymentError, Place, Wrong
from xdpctl.deploy.device import DeviceSettings, settings_changes
from xdpctl.deploy.device_limits import MisfitError
from xdpctl.deploy.resolve import Instance, LinkWish, MapUse, Resolved, label_of, resolve
from xdpctl.deploy.state import Found, Stored
from xdpctl.host.model import LinkRef
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpctl.deploy.observe import MapPin, Observed
    from xdpctl.doctor.finding import Finding
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile

FIELDS = {
    "device.up": "up",
    "device.mtu": "mtu",
    "device.rings": "rings",
    "device.channels": "channels",
    "device.features": "features",
    "device.coalesce": "coalesce",
    "device.pause": "pause",
    "device.private-flags": "private_flags",
    "device.napi": "napi",
}
"""Kind of a change -> field of DeviceSettings."""
PER_CPU = ("percpu_hash", "lru_percpu_hash", "percpu_array", "percpu_cgroup_storage")
ARRAYS = ("array", "percpu_array")
"""Maps whose elements are always there: what is no longer wanted is set to zero."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `xdpctl apply` would do."""

    deployment: Deployment
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    """What doctor says of the machine as it would be: what would fail, or go wrong."""
    waiting: tuple[str, ...] = ()
    """Interfaces that are not there yet: what concerns them is planned when they come."""
    commit: Stored | None = None
    """What is written down when all is done."""
    notes: tuple[str, ...] = ()

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Findings that say it would not work."""
        return tuple(one for one in self.findings if one.status.value == "fail")


def plan(desired: Deployment, observed: Observed, objects: Mapping[str, ObjFile] | None = None) -> Plan:
    """The changes that lead from what was observed to what is desired; none where it is so already.

    Args:
        desired: the deployment.
        observed: the machine; elements of maps that the deployment fills must have been read.
        objects: what the desired programs' objects say, by program name.

    Raises:
        DeploymentError: the deployment contradicts itself or the machine; every reason is told.
    """
    found = resolve(desired, objects or {}, observed.snapshot)
    if found.wrong:
        raise DeploymentError(found.wrong)
    return of_resolved(found, observed)


def of_resolved(found: Resolved, observed: Observed) -> Plan:
    """As `plan`, of a deployment whose names are things already.

    Raises:
        DeploymentError: it contradicts the machine.
    """
    planner = _Planner(found, observed)
    changes = planner.run()
    if planner.wrong:
        raise DeploymentError(planner.wrong, hint=planner.hint)
    return Plan(
        found.deployment,
        tuple(changes),
        waiting=tuple(
            dict.fromkeys(
                f"{one.name} in {one.netns}" if one.netns else str(one.name) for one in found.waiting
            )
        ),
        commit=planner.commit(changes),
        notes=(*found.notes, *planner.notes),
    )


def settings_alone(found: Resolved, observed: Observed) -> list[Change]:
    """What of a plan sets devices that are in the deployment: programs need not be known for that."""
    return _Planner(found, observed).settings()[0]


def recommit(plan: Plan, found: Resolved, observed: Observed, changes: Sequence[Change]) -> Plan:
    """The same plan, to be written down with these changes."""
    planner = _Planner(found, observed)
    planner.run()
    return replace(plan, commit=planner.commit(changes))


@dataclass(slots=True)
class _Planner:
    found: Resolved
    observed: Observed
    wrong: list[Wrong] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept_found: list[Found] = field(default_factory=list)
    hint: str | None = None

    @property
    def name(self) -> str:
        return self.found.deployment.name

    def run(self) -> list[Change]:
        self.observed, pinned = unpinned.taken_back(self.observed, self.found.instances)
        loads, copies, fills = self.programs()
        kept, attached = attaching.changes(self)
        settings, restored = self.settings()
        leaving = [one for one in attached if one.kind.endswith(".detach")]
        early = [one for one in leaving if one.after.get("for")]
        coming = [one for one in attached if not one.kind.endswith(".detach") or one.after.get("for")]
        late = [one for one in leaving if one not in early]
        ordered = [*pinned, *kept, *loads, *copies, *fills, *settings, *coming, *late, *restored]
        return placed(ordered, self.observed.snapshot)

    # -- programs and maps ----------------------------------------------------------------------------------------

    def programs(self) -> tuple[list[Change], list[Change], list[Change]]:
        loads, copies, fills = [], [], []
        fresh_pins: set[str] = set()
        for folder, instance in list(self.found.instances.items()):
            maps = []
            for use in instance.maps:
                chosen, copy = self.map_pin(instance, use)
                maps.append(chosen)
                if copy is not None and chosen.pin not in fresh_pins:
                    copies.append(copy)
            instance = replace(instance, maps=tuple(maps))  # noqa: PLW2901 - with the pins that are used
            self.found.instances[folder] = instance
            if any(
                f"{folder}/{function}" not in self.observed.programs for function, _ in instance.functions
            ):
                fresh = [
                    one.pin for one in maps if one.pin not in self.observed.maps and one.pin not in fresh_pins
                ]
                fresh_pins.update(fresh)
                loads.append(_load(self.name, instance, fresh, self.observed))
            for use in maps:
                fills += self.fill(instance, use, copies)
        return loads, copies, fills

    def map_pin(self, instance: Instance, use: MapUse) -> tuple[MapUse, Change | None]:
        """The pin that a map lives at, and how it gets what an older version holds."""
        if use.pin in self.observed.maps or use.type == "prog_array":
            return use, None
        stored = self.observed.stored
        present = set(stored.maps if stored is not None else self.observed.maps)
        older = [one for one in self.observed.maps if one.rpartition("@")[0] == use.base and one in present]
        if not older or use.on_schema_change == "recreate":
            return use, None
        pin, held = older[-1], self.observed.maps[older[-1]]
        wish = next((one for one in instance.wish.maps if one.name == use.name), None)
        place = wish.place if wish is not None else instance.wish.place
        if (
            use.on_schema_change == "reuse"
            and held.type == use.type
            and held.value_size in (0, use.value_size)
        ):
            return replace(use, pin=pin), None
        if use.on_schema_change == "copy":
            change = Change(
                "map.copy",
                None,
                use.pin,
                None,
                {},
                {
                    "deployment": self.name,
                    "from": pin,
                    "folder": instance.folder,
                    "object": str(instance.wish.object),
                },
                f"elements of {use.name} go on in a map of its new shape",
            )
            return use, change
        self.wrong.append(
            Wrong(
                place,
                f"map {use.name} of {instance.wish.name} has another shape than the one that holds its elements now",
                'on_schema_change = "copy" keeps them by field, "recreate" begins with an empty one',
            )
        )
        return use, None

    def fill(self, instance: Instance, use: MapUse, copies: Sequence[Change]) -> list[Change]:
        """Elements that the deployment wants and that are not there, and those that it wanted before."""
        stored = self.observed.stored
        before_pin = next((one.after["from"] for one in copies if one.target == use.pin), use.pin)
        earlier = set(stored.entries.get(str(before_pin), ())) if stored is not None else set()
        if use.entries is None and not earlier:
            return []
        wanted = dict(use.entries or {})
        held_pin: MapPin | None = self.observed.maps.get(str(before_pin))
        held = held_pin.elements if held_pin is not None and held_pin.elements is not None else {}
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for key, value in wanted.items():
            now = held.get(key)
            if now is None or (value is not None and _differs(use, now, value)):
                before[key], after[key] = now, value if value is not None else "00" * use.value_size
        for key in earlier - wanted.keys():
            now = held.get(key)
            gone = "00" * use.value_size if use.type in ARRAYS else None
            if now is not None and (gone is None or _differs(use, now, gone)):
                before[key], after[key] = now, gone
        if wanted:
            self.entries[use.pin] = tuple(sorted({*wanted, *self.entries.get(use.pin, ())}))
        if not after:
            return []
        count = len(after)
        return [
            Change(
                "map.entries",
                None,
                use.pin,
                None,
                {"deployment": self.name, "entries": before},
                {"deployment": self.name, "entries": after},
                f"{use.name} of {instance.wish.name} is to hold {'them' if count > 1 else 'it'}",
            )
        ]

    # -- devices --------------------------------------------------------------------------------------------------

    def settings(self) -> tuple[list[Change], list[Change]]:
        """Changes of devices that are in the deployment, and those that put others back as they were found."""
        found: dict[LinkRef, list[Found]] = {}
        stored = self.observed.stored
        promised = {f"{one.source} to {one.target}" for one in self.found.deployment.redirects if one.ensure}
        for one in stored.found if stored is not None else ():
            space = self.observed.snapshot.namespace(one.netns)
            if space is None or not one.there(space):
                continue  # the namespace is gone, be it that another one was given its inode
            if one.because in promised:
                self.kept_found.append(one)
            else:
                found.setdefault(LinkRef(one.netns, one.ifindex), []).append(one)
        wanted: list[Change] = []
        restored: list[Change] = []
        for ref, wish in self.found.links.items():
            wanted += self.device(wish, found.pop(ref, []))
        for ref, values in found.items():
            link = self.observed.snapshot.link(ref)
            if link is None:
                continue  # the device is gone, and its settings with it
            back = _settings_of(values)
            restored += self.checked(
                link, back, "it is no longer in the deployment: as it was found", Place()
            )
        return wanted, restored

    def device(self, wish: LinkWish, found: list[Found]) -> list[Change]:
        link = wish.link
        place = next(iter(wish.said.values()), Place())
        made = self.checked(link, wish.settings, None, place)
        declared = _declared(wish.settings)
        back = []
        for one in found:
            gone = {key: value for key, value in one.values.items() if (one.kind, key) not in declared}
            kept = {key: value for key, value in one.values.items() if (one.kind, key) in declared}
            if gone:
                back.append(replace(one, values=gone))
            if kept:
                self.kept_found.append(replace(one, values=kept))
        if back:
            made += self.checked(
                link, _settings_of(back), "it is no longer asked for: as it was found", place
            )
        return made

    def checked(self, link: Link, settings: DeviceSettings, why: str | None, place: Place) -> list[Change]:
        if settings == DeviceSettings():
            return []
        try:
            return settings_changes(
                link, settings, netns=label_of(self.observed.snapshot, link.netns), why=why
            )
        except MisfitError as error:
            self.wrong += [Wrong(place, f"{link.name}: {one}") for one in error.misfits]
            self.hint = error.hint
            return []

    # -- what will be written down --------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> Stored:
        spaces = {
            label_of(self.observed.snapshot, one.inode): one.inode
            for one in self.observed.snapshot.namespaces
        }
        held: dict[tuple[int, int, str, str], dict[str, Any]] = {}
        names: dict[tuple[int, int], str] = {}
        for one in self.kept_found:
            names[one.netns, one.ifindex] = one.interface
            held[one.netns, one.ifindex, one.kind, one.because] = dict(one.values)
        for change in changes:
            space = spaces.get(change.netns)
            if change.kind not in FIELDS or space is None or change.ifindex is None:
                continue
            ensured = change.why.startswith(ENSURED)
            because = change.why.removeprefix(ENSURED).partition(":")[0] if ensured else ""
            asked = _named(self.found, space, change.ifindex, change.kind)
            values = {key: value for key, value in change.before.items() if ensured or key in asked}
            if values:
                names[space, change.ifindex] = change.target
                kept = held.setdefault((space, change.ifindex, change.kind, because), {})
                held[space, change.ifindex, change.kind, because] = {**values, **kept}
        known = {
            one.inode: (label_of(self.observed.snapshot, one.inode), one.cookie)
            for one in self.observed.snapshot.namespaces
        }
        stored = self.observed.stored
        return Stored(
            self.found.deployment,
            generation=(stored.generation if stored is not None else 0) + 1,
            applied_at="",
            command="",
            found=tuple(
                Found(netns, ifindex, names[netns, ifindex], kind, values, because, *known.get(netns, ()))
                for (netns, ifindex, kind, because), values in held.items()
                if values
            ),
            entries=dict(self.entries),
            programs=tuple(sorted(self.found.instances)),
            maps=tuple(sorted({use.pin for one in self.found.instances.values() for use in one.maps})),
            changes=len(changes),
        )


def placed(changes: Sequence[Change], snapshot: Snapshot) -> list[Change]:
    """The same changes, each saying which namespace is meant by its name."""
    spaces = {label_of(snapshot, one.inode): (one.inode, one.cookie) for one in snapshot.namespaces}
    return [
        replace(one, space=spaces.get(one.netns)) if one.ifindex is not None and one.space is None else one
        for one in changes
    ]


ENSURED = "a redirect needs it: "
"""How the reason begins of a change that a [[redirect]] with ensure asks for."""


def _named(found: Resolved, netns: int, ifindex: int, kind: str) -> set[str]:
    wish = found.links.get(LinkRef(netns, ifindex))
    return {key for one, key in _declared(wish.settings) if one == kind} if wish is not None else set()


def _declared(settings: DeviceSettings) -> set[tuple[str, str]]:
    """(kind, key) of every setting that is asked for, by the kernel's names."""
    from xdpctl.deploy.device_names import kernel_feature_names

    said = set()
    for kind, name in FIELDS.items():
        value = getattr(settings, name)
        if isinstance(value, (bool, int)):
            said.add((kind, name))
        elif value is not None:
            for key in value:
                named = kernel_feature_names(key) if kind == "device.features" else (key,)
                said |= {(kind, one) for one in named}
    return said


def _settings_of(found: Sequence[Found]) -> DeviceSettings:
    """What was found, as settings to ask for."""
    values: dict[str, Any] = {}
    for one in found:
        name = FIELDS[one.kind]
        known = {key: value for key, value in one.values.items() if value is not None}
        if name in ("up", "mtu"):
            values.update(known)
        else:
            values[name] = {**values.get(name, {}), **known}
    return DeviceSettings(**values)


def _differs(use: MapUse, now: str, value: str) -> bool:
    if use.type in PER_CPU:
        return not now.startswith(value)  # every CPU's slot was written alike: the first tells
    return now != value


def _load(name: str, instance: Instance, fresh: list[str], observed: Observed) -> Change:
    wish = instance.wish
    old = [one for one in observed.programs if one.partition("@")[0] == instance.folder.partition("@")[0]]
    why = f"a new version of {wish.name}" if old else f"{wish.name} is not loaded"
    return Change(
        "program.load",
        instance.netns,
        wish.name,
        instance.ifindex or None,
        {},
        {
            "deployment": name,
            "folder": instance.folder,
            "object": str(wish.object),
            "digest": wish.digest,
            "type": wish.type,
            "functions": [list(one) for one in instance.functions],
            "patches": [list(one) for one in instance.patches],
            "maps": {
                one.name: {"pin": one.pin, "type": one.type, "max_entries": one.max_entries}
                for one in instance.maps
            },
            "fresh": list(fresh),
            "offload": instance.offload,
        },
        why,
    )
