"""What is in the way of a program on a hook, and whether it may be replaced: decided before anything is changed.

The kernel's rules are dev_xdp_attach()'s (net/core/dev.c); that a program of somebody else is only replaced when asked,
and a dispatcher never, is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach.model import DISPATCHERS
from xdpctl.errors import AttachError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.request import AttachRequest
    from xdpctl.attach.strategy import Target

EXCLUSIVE = {"native": "generic", "generic": "native"}
"""Modes that can't be active at the same time; offload goes with either."""


def xdp(
    target: Target, present: Sequence[Attachment], request: AttachRequest, program: str
) -> Attachment | None:
    """The XDP program to replace, or None when none is in the way.

    Args:
        target: with the mode asked for (auto takes the mode that is active).
        present: the device's XDP programs.
        request: whether and how to replace.
        program: name of the new program, for messages.

    Raises:
        AttachError: something is in the way.
    """
    mode = target.mode
    if mode == "auto":
        mode = next((one.mode for one in present if one.mode in EXCLUSIVE), "native")
    other = next((one for one in present if one.mode == EXCLUSIVE.get(mode or "")), None)
    if other is not None:
        raise _other_mode(target, other, request, program)
    old = next((one for one in present if one.mode == mode), None)
    if old is None:
        return None
    _spare_dispatcher(target, old, program)
    if not request.replace:
        raise _in_the_way(target, old, program)
    if request.via == "link" and old.via == "netlink":
        raise AttachError(
            f"{target.where}: {old.describe()} was attached by netlink, and the kernel puts no link in its place",
            program=program,
            interface=target.interface,
            mode=old.mode,
            hint="--replace without --via link replaces it by netlink, in place",
        )
    return old


def _other_mode(target: Target, other: Attachment, request: AttachRequest, program: str) -> AttachError:
    asked = target.mode if request.mode is not None else f"{target.mode} (the default)"
    hint = clear_command(target, other)
    if request.replace:
        hint = f"--mode {other.mode} replaces it in place; the mode itself changes only through: {hint}"
    return AttachError(
        f"can't attach {program} to {target.where} in mode {asked}: {other.mode} XDP is active there,"
        f" {other.describe()}, and the kernel allows one of the two",
        program=program,
        interface=target.interface,
        mode=target.mode,
        hint=hint,
    )


def _spare_dispatcher(target: Target, old: Attachment, program: str) -> None:
    makers = DISPATCHERS.get(old.program.name or "")
    if makers is None or old.ours:
        return
    raise AttachError(
        f"can't attach {program} to {target.where}: {old.describe()} is the dispatcher of {makers}, which calls their"
        " programs; it is never replaced",
        program=program,
        interface=target.interface,
        mode=old.mode,
        hint=clear_command(target, old),
    )


def _in_the_way(target: Target, old: Attachment, program: str) -> AttachError:
    return AttachError(
        f"can't attach {program} to {target.where}: {old.describe()} is there in {old.mode} mode",
        program=program,
        interface=target.interface,
        mode=old.mode,
        hint=f"--replace puts {program} in its place without a gap; to clear it: {clear_command(target, old)}",
    )


def clear_command(target: Target, old: Attachment) -> str:
    """The command that takes an attachment away, by the tool that made it."""
    if old.program.name in DISPATCHERS and not old.ours:
        return target.command("xdp-loader", "unload", target.interface, "--all") + ", or bpfman unload"
    if old.ours:
        netns = ["--netns", target.netns] if target.netns else []
        return " ".join(["xdpctl detach", *netns, target.interface, *_selector(old)])
    if old.link_id is not None:
        return f"bpftool link detach id {old.link_id}"
    if old.hook == "xdp":
        word = {"native": "xdpdrv", "generic": "xdpgeneric", "offload": "xdpoffload"}.get(
            old.mode or "", "xdp"
        )
        return target.command("ip", "link", "set", "dev", target.interface, word, "off")
    direction = old.hook.partition("-")[2]
    if old.hook.startswith("clsact"):
        return target.command(
            "tc", "filter", "del", "dev", target.interface, direction, f"pref {old.priority}"
        )
    return "stop the tool that attached it"


def _selector(old: Attachment) -> list[str]:
    if old.hook == "xdp":
        return ["--mode", old.mode or "native"]
    return ["--program", old.program_name]


def tc(
    target: Target, present: Sequence[Attachment], request: AttachRequest, program: str
) -> Attachment | None:
    """The TC program to replace, or None to add one: on a TC hook programs stand side by side.

    The same program twice is what a restart leaves behind by mistake, and refused. ``--replace`` takes the program
    of the same name, ours before anybody else's; else the only one of ours.

    Raises:
        AttachError: it is there already, or several could be meant by ``--replace``.
        ConfigError: an order was given for a program that stays where it is.
    """
    named = [one for one in present if one.program.name == program]
    if not request.replace:
        ours = next((one for one in named if one.ours), None)
        if ours is not None:
            raise AttachError(
                f"{program} is on {target.hook} of {target.where} already: {ours.describe()}",
                program=program,
                interface=target.interface,
                hint=f"--replace upgrades it in place; to clear it: {clear_command(target, ours)}",
            )
        return None
    mine = [one for one in present if one.ours]
    candidates = [one for one in named if one.ours] or named or mine
    if not candidates:
        return None
    if len(candidates) > 1:
        raise AttachError(
            f"{target.hook} of {target.where} has several programs that --replace could mean:"
            f" {', '.join(one.describe() for one in candidates)}",
            program=program,
            interface=target.interface,
            hint="detach the ones that should go, by --program ID",
        )
    _spare_dispatcher(target, candidates[0], program)
    if request.position is not None:
        raise ConfigError(
            f"--{request.position.place} and --replace: {candidates[0].program_name} keeps its place when replaced",
            hint="detach it and attach anew for another place",
        )
    return candidates[0]
