"""Which programs come, change and go on the hooks of links: desired attachments compared with observed ones. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.attach.model import DISPATCHERS
from xdpctl.deploy.change import Change
from xdpctl.deploy.desired import AttachWish, Place, Wrong
from xdpctl.deploy.resolve import Hooked, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.deploy.plan import _Planner
    from xdpctl.host.model import Link, TcHook

MODES = ("native", "generic", "offload")
HOOKS = {
    "ingress": ("tcx-ingress", "clsact-ingress", "netkit-peer"),
    "egress": ("tcx-egress", "clsact-egress", "netkit-primary"),
}
"""Direction -> where a program of it may be."""
NAME_LENGTH = 15
"""Characters of a program's name that the kernel keeps (BPF_OBJ_NAME_LEN)."""
STEP = 100
"""Distance of clsact priorities, where no order is given."""


class Present(NamedTuple):
    """A program that is on a hook now."""

    id: int
    key: str | None
    """``FOLDER/FUNCTION`` of ours, None: somebody else's."""
    mode: str | None = None
    via: str = "link"
    entry: TcHook | None = None

    @property
    def same(self) -> tuple[str, str] | None:
        """(program, function): what an upgrade keeps."""
        if self.key is None:
            return None
        folder, _, function = self.key.partition("/")
        return folder.partition("@")[0].partition(",")[0], function


class Off(NamedTuple):
    """Why a program is taken off: one sentence, and the kind of difference (`Change.drift`)."""

    why: str
    drift: str


UNWANTED = Off("it is no longer in the deployment", "extra")


def changes(planner: _Planner) -> tuple[list[Change], list[Change]]:
    """(programs of somebody else to be held, what happens on the hooks), in order."""
    comparison = _Comparison(planner)
    for space in planner.observed.snapshot.namespaces:
        for link in space.links:
            wish = planner.found.links.get(link.ref)
            hooked = wish.hooked if wish is not None else []
            if hooked or link.xdp or link.tc:
                comparison.link(link, hooked)
    return comparison.kept, comparison.made


class _Comparison:
    def __init__(self, planner: _Planner) -> None:
        self.planner = planner
        self.observed = planner.observed
        self.name = planner.name
        self.keys = {number: key for key, number in self.observed.programs.items()}
        self.pinned = {(one.ifindex, one.program_id, one.hook) for one in self.observed.links}
        self.kept: list[Change] = []
        self.made: list[Change] = []
        self.line: list[tuple[str, int, str | None]] = []
        """(hook, program id, key) of what stands on the TC hooks of a direction, as the changes go on."""

    def link(self, link: Link, hooked: list[Hooked]) -> None:
        on_xdp = [one for one in hooked if one.wish.hook == "xdp"]
        if on_xdp or link.xdp:
            self.xdp(link, on_xdp)
        for direction, hooks in HOOKS.items():
            wanted = [one for one in hooked if one.wish.hook == direction]
            entries = [one for one in link.tc if one.hook in hooks]
            if wanted or entries:
                self.tc(link, direction, wanted, entries)

    def change(
        self,
        kind: str,
        link: Link,
        before: dict[str, Any],
        after: dict[str, Any],
        why: str,
        *,
        traffic: bool = False,
        drift: str = "",
    ) -> None:
        self.made.append(
            Change(
                kind,
                label_of(self.observed.snapshot, link.netns),
                link.name,
                link.ifindex,
                before,
                after,
                why,
                "traffic" if traffic else "nothing",
                drift=drift,
            )
        )

    def side(self, key: str | None, hook: str, **more: Any) -> dict[str, Any]:
        return {"deployment": self.name, "program": key, "hook": hook, **more}

    # -- XDP ------------------------------------------------------------------------------------------------------

    def present_xdp(self, link: Link) -> list[Present]:
        found = []
        for mode in MODES:
            number = getattr(link.xdp, mode)
            if number:
                by_link = (link.ifindex, number, "xdp") in self.pinned or getattr(link.xdp, f"{mode}_link_id")
                found.append(Present(number, self.keys.get(number), mode, "link" if by_link else "netlink"))
        return found

    def xdp(self, link: Link, wanted: list[Hooked]) -> None:
        present = self.present_xdp(link)
        for one in wanted:
            # offload goes with either of the others, which exclude each other
            rivals = [each for each in present if (each.mode == "offload") == (one.wish.mode == "offload")]
            self.one_xdp(link, one, rivals)
        slots = {one.wish.mode == "offload" for one in wanted}
        for each in present:
            if each.key is not None and (each.mode == "offload") not in slots:
                self.detach_xdp(link, each, UNWANTED)

    def pinned_by_hand(self, link: Link, old: Present) -> bool:
        """Whether `xdpctl attach` holds somebody else's program by a pinned link, which must outlive an undo."""
        return (link.ifindex, old.id, "xdp") in self.pinned

    def one_xdp(self, link: Link, wish: Hooked, present: list[Present]) -> None:
        mode, via = wish.wish.mode, wish.wish.via or "link"
        if not present:
            after = self.side(wish.key, "xdp", mode=mode, via=wish.wish.via)
            # the driver remakes its rings for the first native program on many devices
            traffic = mode in ("native", "auto") and link.kind is None
            self.change(
                "xdp.attach",
                link,
                self.side(None, "xdp", mode=mode, via=wish.wish.via),
                after,
                f"{wish.wish.program} is to run there, in {mode} mode"
                if mode != "auto"
                else f"{wish.wish.program} is to run there",
                traffic=traffic,
            )
            return
        old = present[0]
        fits = mode == old.mode or (mode == "auto" and old.mode in MODES[:2])
        if old.key is None and not self.may_take(link, wish, old):
            return
        if fits and old.key == wish.key:
            return
        if fits and not (old.via == "netlink" and via == "link" and wish.wish.via is not None):
            before, why = self.old_side(link, wish, old)
            after = self.side(wish.key, "xdp", mode=old.mode, via=old.via)
            self.change("xdp.update", link, before, after, f"{why}: no frame passes without a program")
            return
        if old.key is not None:
            self.detach_xdp(link, old, Off(f"{mode} mode is wanted, not {old.mode}", "changed"), first=True)
        else:
            before, _ = self.old_side(link, wish, old)
            self.change(
                "xdp.detach", link, before, {**self.side(None, "xdp", mode=old.mode, via=old.via), "for": wish.key},
                f"somebody else's program makes room, since it runs in {old.mode} mode", traffic=True, drift="foreign",
            )  # fmt: skip
        self.change(
            "xdp.attach",
            link,
            self.side(None, "xdp", mode=mode, via=wish.wish.via),
            self.side(wish.key, "xdp", mode=mode, via=wish.wish.via),
            f"{wish.wish.program} is to run there, in {mode} mode",
            traffic=True,
        )

    def old_side(self, link: Link, wish: Hooked, old: Present) -> tuple[dict[str, Any], str]:
        if old.key is not None:
            return self.side(
                old.key, "xdp", mode=old.mode, via=old.via
            ), f"a new version of {wish.wish.program}"
        self.keep(old.id)
        foreign = self.side(f"kept/{old.id}", "xdp", mode=old.mode, via=old.via, foreign=old.id)
        if self.pinned_by_hand(link, old):
            foreign["pinned"] = True
        return foreign, f"program {old.id}, attached by somebody else, is taken over"

    def keep(self, number: int) -> None:
        """Hold somebody else's program, so that it can be put back should this go wrong."""
        pin = f"{number}"
        if pin in self.observed.kept or any(one.after["pin"] == pin for one in self.kept):
            return
        self.kept.append(
            Change(
                "program.keep",
                None,
                f"program {number}",
                None,
                {},
                {"deployment": self.name, "pin": pin, "id": number},
                "held until all is done, to be able to put it back",
            )
        )

    def may_take(self, link: Link, wish: Hooked, old: Present) -> bool:
        known = self.observed.snapshot.programs.get(old.id)
        name = known.name if known is not None and known.name else "a program"
        owner = self.observed.others.get(old.id)
        where = f"XDP of {link.name} holds {name} (program {old.id}, {old.mode} mode)"
        if owner is not None:
            told, hint = (
                f"{where} of deployment {owner}",
                f"xdpctl destroy {owner}, or take the interface out of it",
            )
        elif name in DISPATCHERS:
            told, hint = (
                f"{where}, the dispatcher of {DISPATCHERS[name]}",
                f"xdp-loader unload {link.name} --all",
            )
        elif self.planner.found.deployment.adopt:
            return True
        else:
            told, hint = (
                f"{where}, which is not of this deployment",
                "adopt = true in [deployment] takes it over",
            )
        self.planner.wrong.append(Wrong(wish.wish.place, told, hint))
        return False

    def detach_xdp(self, link: Link, old: Present, off: Off, *, first: bool = False) -> None:
        after = self.side(None, "xdp", mode=old.mode, via=old.via)
        if first:
            after["for"] = old.key  # it makes room for what comes right behind it
        before = self.side(old.key, "xdp", mode=old.mode, via=old.via)
        self.change("xdp.detach", link, before, after, off.why, traffic=True, drift=off.drift)

    # -- TC -------------------------------------------------------------------------------------------------------

    def tc(
        self,
        link: Link,
        direction: str,
        wanted: list[Hooked],
        entries: Sequence[TcHook],
        *,
        adopting: bool = True,
    ) -> None:
        wanted = sorted(wanted, key=lambda one: one.wish.order)
        home = self.home(link, direction)
        homes = {one.same: _home(one.wish, direction, home) for one in wanted}
        taken = self.taken_over(link, wanted, homes, entries) if adopting else {}
        self.line = [
            (
                one.hook,
                one.program_id,
                self.keys.get(one.program_id)
                or (f"id:{one.program_id}" if one.program_id in taken else None),
            )
            for one in entries
        ]
        ours = [
            Present(one.program_id, self.keys.get(one.program_id), None, one.hook.partition("-")[0], one)
            for one in entries
            if one.program_id in self.keys or one.program_id in taken
        ]
        kept: dict[tuple[str, str], Present] = {}
        gone: list[tuple[Present, Off]] = []
        priorities = self.priorities(direction, wanted, homes, entries)
        for each in ours:
            same = each.same or taken.get(each.id) or ("", "")
            if same not in homes:
                gone.append((each, UNWANTED))
            elif same in kept:
                gone.append((each, Off("it is there twice", "duplicate")))
            elif each.entry is not None and each.entry.hook != homes[same]:
                gone.append((each, Off(f"it is wanted on {homes[same]}", "changed")))
            elif each.entry is not None and same in priorities and each.entry.priority != priorities[same]:
                gone.append((each, Off(f"its priority is to be {priorities[same]}", "priority")))
            else:
                kept[same] = each
        # what stands in another order than wanted is put on anew
        moving = []
        for at in dict.fromkeys(homes[same] for same in kept):
            # tcx runs before clsact whatever is wanted: there is an order within each alone
            standing = [same for same in kept if homes[same] == at]
            moving += _out_of_order(standing, [one.same for one in wanted if one.same in standing])
        if any(kept[same].key is None for same in moving):
            # somebody else's program is not moved: ours goes beside it
            self.tc(link, direction, wanted, entries, adopting=False)
            return
        gone += [(kept.pop(same), Off("another order is wanted", "changed")) for same in moving]
        for place, one in enumerate(wanted):
            old = kept.get(one.same)
            if old is None:
                at = homes[one.same]
                later, sooner = (
                    [each for each in some if homes[each.same] == at]
                    for some in (wanted[place + 1 :], wanted[:place])
                )
                self.attach_tc(link, one, at, later, sooner, kept, priorities, gone)
                kept[one.same] = Present(0, one.key)
            elif old.key != one.key and old.entry is not None:
                more = {"at": old.entry.hook, "priority": old.entry.priority, "handle": old.entry.handle}
                self.line = [
                    (hook, number, one.key if (hook, number) == (old.entry.hook, old.id) else key)
                    for hook, number, key in self.line
                ]
                before, why = (
                    self.side(old.key, direction, via=old.via, **more),
                    f"a new version of {one.wish.program}",
                )
                if old.key is None:
                    self.keep(old.id)
                    kept_as = f"kept/{old.id}"
                    before = self.side(kept_as, direction, via=old.via, foreign=old.id, pinned=True, **more)
                    why = f"program {old.id}, attached by hand, is taken over"
                after = self.side(one.key, direction, via=old.via, **more)
                self.change("tc.update", link, before, after, f"{why}: no frame passes without a program")
        for old, off in gone:
            if old.entry is not None and (
                old.same not in homes
                or old.entry.hook.startswith("clsact")
                or old.entry.hook != homes[old.same]
            ):
                self.detach_tc(link, direction, old, off)

    def taken_over(
        self,
        link: Link,
        wanted: list[Hooked],
        homes: dict[tuple[str, str], str],
        entries: Sequence[TcHook],
    ) -> dict[int, tuple[str, str]]:
        """With adopt: programs that `xdpctl attach` put on the hook under the name of one that is wanted there."""
        if not self.planner.found.deployment.adopt:
            return {}
        here = [Present(one.program_id, self.keys.get(one.program_id)).same for one in entries]
        found: dict[int, tuple[str, str]] = {}
        for one in wanted:
            if one.same in here:
                continue
            for entry in entries:
                number = entry.program_id
                if (
                    entry.hook == homes[one.same]
                    and number not in found
                    and number not in self.keys
                    and number not in self.observed.others
                    and (link.ifindex, number, entry.hook) in self.pinned
                    and entry.program_name == one.function[:NAME_LENGTH]
                ):
                    found[number] = one.same
                    break
        return found

    def detach_tc(self, link: Link, direction: str, old: Present, off: Off, *, first: bool = False) -> None:
        if old.entry is None:
            return
        more = {
            "at": old.entry.hook,
            "via": old.via,
            "priority": old.entry.priority,
            "handle": old.entry.handle,
        }
        after = self.side(None, direction, **more)
        if first:
            after["for"] = old.key
        place = next(at for at, one in enumerate(self.line) if one[:2] == (old.entry.hook, old.id))
        del self.line[place]
        # so that taking it back finds its place again
        following = next((one for one in self.line[place:] if one[0] == old.entry.hook), None)
        if following is not None and old.via != "clsact":
            more["before"] = following[2] or f"id:{following[1]}"
        before = self.side(old.key, direction, **more)
        self.change("tc.detach", link, before, after, off.why, traffic=True, drift=off.drift)

    def attach_tc(
        self,
        link: Link,
        one: Hooked,
        at: str,
        later: list[Hooked],
        sooner: list[Hooked],
        kept: dict[tuple[str, str], Present],
        priorities: dict[tuple[str, str], int],
        gone: list[tuple[Present, Off]],
    ) -> None:
        via = at.partition("-")[0]
        # mprog takes a program once a hook: the one that stands wrong has to go first
        for old, off in [each for each in gone if each[0].same == one.same and via != "clsact"]:
            if old.entry is not None and old.entry.hook == at:
                self.detach_tc(link, one.wish.hook, old, off, first=True)
        more: dict[str, Any] = {"at": at, "via": via}
        if via == "clsact":
            more["priority"], more["handle"] = priorities[one.same], 1
        else:
            # a neighbour by its new key: updates come before, in the same order
            following = next((each for each in later if each.same in kept), None)
            before = next((each for each in reversed(sooner) if each.same in kept), None)
            if following is not None:
                anchor = kept[following.same]
                more["before"] = anchor.key or f"id:{anchor.id}"
            elif before is not None:
                more["behind"] = before.key
        keys = [key for hook, _, key in self.line if hook == at]
        spot = len(self.line)
        if "before" in more and more["before"] in keys:
            spot = next(place for place, each in enumerate(self.line) if each[::2] == (at, more["before"]))
        elif "behind" in more and more["behind"] in keys:
            spot = 1 + next(
                place for place, each in enumerate(self.line) if each[::2] == (at, more["behind"])
            )
        self.line.insert(spot, (at, 0, one.key))
        self.change(
            "tc.attach",
            link,
            self.side(
                None,
                one.wish.hook,
                **{key: value for key, value in more.items() if key not in ("before", "behind")},
            ),
            self.side(one.key, one.wish.hook, **more),
            f"{one.wish.program} is to run there",
        )

    def home(self, link: Link, direction: str) -> str:
        if link.kind == "netkit":
            return HOOKS[direction][2]
        tcx = self.observed.snapshot.kernel.features.get("tcx")
        return f"clsact-{direction}" if tcx is False else f"tcx-{direction}"

    def priorities(
        self,
        direction: str,
        wanted: list[Hooked],
        homes: dict[tuple[str, str], str],
        entries: Sequence[TcHook],
    ) -> dict[tuple[str, str], int]:
        """clsact priority of each wanted program: its order where one is given, else in steps behind all others."""
        hook = f"clsact-{direction}"
        found: dict[tuple[str, str], int] = {}
        taken = {
            one.priority
            for one in entries
            if one.hook == hook and one.program_id not in self.keys and one.priority
        }
        held: dict[tuple[str, str], int] = {}
        for one in entries:
            if one.hook == hook and one.program_id in self.keys and one.priority:
                folder, _, function = self.keys[one.program_id].partition("/")
                held.setdefault((folder.partition("@")[0].partition(",")[0], function), one.priority)
        last = 0
        for each in wanted:
            if homes[each.same] != hook:
                continue
            number = each.wish.order or held.get(each.same) or 0
            if number <= last:
                number = max([last, *taken]) + STEP if not each.wish.order else max(number, last + 1)
            while number in taken:
                number += 1
            found[each.same] = last = number
        return found


def _home(wish: AttachWish, direction: str, default: str) -> str:
    return f"{wish.via}-{direction}" if wish.via in ("tcx", "clsact") else default


def _out_of_order(standing: list[tuple[str, str]], order: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fewest of `standing` that have to move so that the rest stands as in `order`."""
    best: list[list[tuple[str, str]]] = []
    for one in standing:
        behind = [each for each in best if order.index(each[-1]) < order.index(one)]
        best.append([*max(behind, key=len, default=[]), one])
    stay = max(best, key=len, default=[])
    return [one for one in standing if one not in stay]


__all__ = ["Place", "changes"]
