"""The main job and the founding story on this kernel, in throwaway namespaces: ``python -m xdpctl.lab.demo``.

First a program is attached natively to a veth, real frames pass, and its counters show them. Then a program
redirects natively to a veth whose peer can't receive redirected frames: the frames vanish without a word to
anybody but a tracepoint, doctor says why, its fix is run, and frames arrive. Every step is checked; the exit
code is 0 only if all was as told.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import EXIT_INTERRUPTED, XdpctlError
from xdpctl.lab import frames
from xdpctl.lab.sandbox import LabError, Sandbox
from xdpctl.lab.transcript import Transcript
from xdpctl.lab.watch import Watch
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST, GUEST = "host", "guest"
ACTIONS = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")
"""enum xdp_action (include/uapi/linux/bpf.h)."""
SENT = 10
"""Frames sent each time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 only if every step went as told."""
    parser = argparse.ArgumentParser(prog="python -m xdpctl.lab.demo", description=__doc__)
    parser.add_argument(
        "--objects", type=Path, default=Path("build/bpf"), metavar="DIR", help="where `xdpctl build` put bpf/"
    )
    objects: Path = parser.parse_args(argv).objects
    try:
        with Sandbox() as sandbox:
            show = Transcript(sandbox)
            prepare(show)
            count(show, objects)
            founding_story(show, objects)
    except XdpctlError as error:
        sys.stdout.flush()
        sys.stderr.write(f"demo: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; its namespaces are gone\n")
        return EXIT_INTERRUPTED
    print("\nAs told. The namespaces, the interfaces in them and all programs are gone.")  # noqa: T201
    return 0


def prepare(show: Transcript) -> None:
    """Two namespaces, joined by a veth."""
    show.chapter("Two network namespaces, joined by a veth (private to this demo)")
    for name in (HOST, GUEST):
        show.shell(f"ip netns add {name}")
        show.sandbox.silence(name)
    pair(show, "veth0", "veth1")


def pair(show: Transcript, here: str, there: str) -> None:
    """A veth, one end in the host namespace, one in the guest's, both up."""
    show.shell(f"ip -n {HOST} link add {here} type veth peer name {there} netns {GUEST}")
    show.shell(f"ip -n {HOST} link set {here} up")
    show.shell(f"ip -n {GUEST} link set {there} up")


def count(show: Transcript, objects: Path) -> None:
    """The main job: attach, see frames counted, detach."""
    show.chapter("Attach a program natively and see what it does")
    show.shell(f"xdpctl attach --netns {HOST} --mode native veth0 {objects}/count.bpf.o")
    show.say(f"{SENT} UDP datagrams come in by veth0")
    with netns.enter(GUEST), frames.Port("veth1") as wire:
        for number in range(SENT):
            wire.send(frames.udp4(b"demo %d" % number))
    found = counters(show)
    show.say("its counters, packets and bytes by XDP action, summed over the CPUs:")
    for action, (packets, size) in found.items():
        show.say(f"  {action:8}  {packets:4} packets  {size:6} bytes")
    show.expect(found["PASS"][0] == SENT, f"{found['PASS'][0]} frames were counted, {SENT} were sent")
    show.shell(f"xdpctl status --netns {HOST}", shows=("veth0", "native"))
    show.shell(f"xdpctl detach --netns {HOST} veth0")
    left = json.loads(show.sandbox.run(f"xdpctl status --netns {HOST} --json").stdout)
    show.expect(not left["attachments"], "detach left something attached")


def counters(show: Transcript) -> dict[str, tuple[int, int]]:
    """Packets and bytes by action, from the map `actions` of the program that is attached to veth0."""
    from xdpctl.bpf import query
    from xdpctl.bpf.map import open_map

    status = json.loads(show.sandbox.run(f"xdpctl status --netns {HOST} --json").stdout)
    program_id = status["attachments"][0]["program"]["id"]
    wanted = {number for one in query.programs() if one.id == program_id for number in one.map_ids}
    number = next((one.id for one in query.maps() if one.id in wanted and one.name == "actions"), None)
    if number is None:
        raise LabError(f"program {program_id} has no map `actions`")
    found = {}
    with open_map(number) as actions:
        for index, action in enumerate(ACTIONS):
            value = actions.lookup(struct.pack("=I", index)) or b""
            pairs = list(struct.iter_unpack("=QQ", value))
            found[action] = (sum(one for one, _ in pairs), sum(one for _, one in pairs))
    return found


def founding_story(show: Transcript, objects: Path) -> None:
    """A native redirect to a veth whose peer can't take it: lost, diagnosed, fixed, delivered."""
    show.chapter("Redirect natively to a veth whose peer has GRO off")
    pair(show, "veth_xxx0", "veth_yyy0")
    attach = (
        f"xdpctl attach --netns {HOST} --mode native --set target_ifindex=veth_xxx0"
        f" veth0 {objects}/redirect.bpf.o"
    )
    show.say("xdpctl asks its rules before it attaches:")
    show.shell(attach, ends=6, shows=("veth_yyy0",))
    show.say("let's do it all the same, and watch the kernel:")
    show.shell(f"{attach} --force", only=("veth0:",))
    arrived = send_and_watch(show)
    show.expect(arrived == 0, f"{arrived} frames arrived, though the peer can't take them")

    show.chapter("Ask why, and have it fixed")
    line = f"ip netns exec {GUEST} ethtool -K veth_yyy0 gro on"
    show.say("asked about the end that gets nothing, doctor tells what is lost in either direction, and why:")
    show.shell(f"xdpctl doctor --netns {GUEST} veth_yyy0", ends=1, shows=("rx-gro is off", f"fix: {line}"))
    show.say("told where veth0's frames go, it runs the one command that this needs, and looks again:")
    show.shell(
        f"xdpctl doctor --netns {HOST} veth0 --redirect-to veth_xxx0 --fix --yes",
        shows=(f"running: {line}",),
        only=("running:", "FIXED", "OK"),
    )
    arrived = send_and_watch(show)
    show.expect(arrived == SENT, f"only {arrived} of {SENT} frames arrived after the fix")
    show.shell(f"xdpctl detach --netns {HOST} veth0")


def send_and_watch(show: Transcript) -> int:
    """Send frames to veth0, print what the kernel's tracepoints say; returns how many left by veth_yyy0."""
    mark = b"xdpctl-demo"
    with Watch() as watch, netns.enter(GUEST), frames.Port("veth1") as wire, frames.Port("veth_yyy0") as out:
        for _ in range(SENT):
            wire.send(frames.ethernet(mark))
        arrived = out.count(mark, expect=SENT)
        told = [event for event in watch.read() if event.name != "xdp_redirect" or event.number("err")]
    show.say(f"{SENT} frames sent to veth0, {arrived} arrived at veth_yyy0; what the kernel says to tracers:")
    seen: dict[str, int] = {}
    for event in told:
        seen[str(event)] = seen.get(str(event), 0) + 1
    for text, times in seen.items():
        show.say(f"  {times} x {text}")
    return arrived


if __name__ == "__main__":
    sys.exit(main())
