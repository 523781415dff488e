"""What deployment tests share: objects in two versions, a machine's state to compare, and commands in this process."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from attachments import HEADER

from xdpctl.attach import runstate
from xdpctl.bpf import pins, query
from xdpctl.bpf.link import open_link
from xdpctl.bpf.map import open_map
from xdpctl.deploy import apply, journal, ready
from xdpctl.deploy.load import load
from xdpctl.deploy.lock import locked
from xdpctl.errors import XdpctlError
from xdpctl.host.collect import collect
from xdpctl.netlink import netns as namespaces

SOURCE = (
    HEADER
    + """
#ifndef VERSION
#define VERSION 1
#endif
volatile const unsigned int limit = 7;
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32); __type(value, __u64); }
table SEC(".maps");
SEC("xdp") int deployed_xdp(struct xdp_md *c)
{
    __u32 key = VERSION;
    __u64 *found = bpf_map_lookup_elem(&table, &key);
    return found && *found > limit ? XDP_DROP : XDP_PASS;
}
SEC("tc") int deployed_tc(struct __sk_buff *s) { s->mark = VERSION; return TC_ACT_UNSPEC; }
"""
)


def plan_of(path, **variables):
    """The plan that applying a file would carry out now."""
    loaded = load([Path(path)], variables={key: str(value) for key, value in variables.items()})
    return ready.make(loaded.deployment, loaded.objects)


def apply_file(path, **variables):
    """What ``xdpctl apply`` does, without its words."""
    with locked("test"):
        apply.require_nothing_pending()
        plan = plan_of(path, **variables)
        assert not plan.failing, plan.failing
        apply.run(plan, command="test")
    return plan


def carry_out(plan):
    """The same, of a plan that was made before."""
    with locked("test"):
        apply.require_nothing_pending()
        apply.run(plan, command="test")


def destroy(name):
    """What ``xdpctl destroy`` does."""
    from dataclasses import replace

    with locked("test"):
        plan = ready.make(ready.empty(name), {})
        apply.run(replace(plan, commit=replace(plan.commit, destroyed=True)), command="test")


def recover(*, resume):
    """What ``xdpctl apply --resume`` or ``--undo`` does."""
    with locked("test"):
        found = apply.pending()
        assert found is not None
        apply.resume(found) if resume else apply.undo(found)
    assert journal.read() is None


def killed_at(where, job):
    """Run a job in a child that kills itself (SIGKILL) at this point; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            os.environ[journal.DIE_AT] = where
            job()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - told to the parent by the exit code
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(3)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed: see stderr"
    return False


def _link(link, programs):
    def told(number):
        found = programs.get(number) if number else None
        return (found.name, found.tag) if found else None

    return {
        "mtu": link.mtu,
        "up": link.up,
        "features": {
            name: (one.active, one.wanted) for name, one in (link.features or {}).items() if not one.fixed
        },
        "xdp": (told(link.xdp.native), told(link.xdp.generic), told(link.xdp.offload)),
        "tc": [(one.hook, told(one.program_id), one.priority) for one in link.tc],
        "qdiscs": sorted(one.kind for one in link.qdiscs or ()),
    }


def _pins():
    """Pins without the ids in their names; a map with its elements."""
    found = {}
    for path in pins.walk():
        name = str(path.relative_to(pins.root()))
        if name.startswith("links/"):
            with open_link(path) as link:
                told = "link" if link.info().ifindex else "link of nothing"
            found.setdefault(name.rpartition("-")[0], []).append(told)
            continue
        try:
            with open_map(path) as opened:
                found[name] = sorted((key.hex(), value.hex()) for key, value in opened.items())
        except XdpctlError:
            found[name] = "program"
    return found


def machine(*spaces):
    """All that a deployment may change in these namespaces, by names that do not depend on time: no ids."""
    all_seen = [collect(netns=one, probes=()) for one in spaces]
    seen = all_seen[-1]  # the latest: it knows what the others saw
    return {
        "links": {
            (space.label, link.name): _link(link, one.programs)
            for one in all_seen
            for space in one.namespaces
            for link in space.links
        },
        "pins": _pins(),
        "records": sorted(one.name for one in runstate.read().values()),
        "programs": Counter(
            (seen.programs[number].name, seen.programs[number].tag)
            for number in _held(all_seen)
            if number in seen.programs
        ),
    }


def _held(all_seen):
    """Ids of programs that these namespaces, the pins of this mount namespace or this process hold.

    Never all of the machine: other tests load the same programs at the same time.
    """
    found = set()
    for seen in all_seen:
        for link in seen.links():
            found |= {
                link.xdp.native,
                link.xdp.generic,
                link.xdp.offload,
                *(one.program_id for one in link.tc),
            }
    for path in pins.walk():
        for kind, read in (("program", lambda fd: query.program_info(fd).id),
                           ("link", lambda fd: query.link_info(fd).program_id)):  # fmt: skip
            try:
                fd = pins.open_pin(path, kind)
            except XdpctlError:
                continue
            found.add(read(fd))
            os.close(fd)
    for path in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):  # the very folder that is listed
            found |= {int(one) for one in re.findall(r"^prog_id:\s+(\d+)$", path.read_text(), re.MULTILINE)}
    return found - {None}


def differences(before, after):
    """What two machines do not have in common, in words."""
    found = []
    for part in before:
        if part in ("links", "pins"):
            for key in sorted({*before[part], *after[part]}, key=str):
                one, other = before[part].get(key), after[part].get(key)
                if one != other:
                    found.append(f"{part} {key}: {one} / {other}")
        elif before[part] != after[part]:
            found.append(f"{part}: {before[part]} / {after[part]}")
    return found


def assert_same(before, *spaces):
    """These namespaces are as they were; the kernel frees programs and links a little later than it is told to."""
    until = time.monotonic() + 5
    while True:
        found = differences(before, machine(*spaces))
        if not found or time.monotonic() > until:
            break
        time.sleep(0.01)
    assert found == []


def forget_all():
    """Remove what deployments have written down, be they destroyed or not."""
    for one in ("deployments", "journal", "lock"):
        path = runstate.folder() / one
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class Flood(threading.Thread):
    """Sends frames of ethertype 0x88b5 into an interface until it is told to stop; `sent` counts those taken."""

    def __init__(self, interface, netns):
        super().__init__(daemon=True)
        self.sent = 0
        self.stopping = threading.Event()
        with namespaces.enter(netns):
            self.port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.port.bind((interface, 0))

    def run(self):
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5" + bytes(46)
        while not self.stopping.is_set():
            try:
                self.port.send(frame)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # the peer's ring is full: not sent (veth_xmit, NET_XMIT_DROP)
            self.sent += 1
        self.port.close()

    def wait_for(self, more):
        """Until so many more frames are sent."""
        until, target = time.monotonic() + 20, self.sent + more
        while self.sent < target and self.is_alive() and time.monotonic() < until:
            time.sleep(0.001)

    def stop(self):
        """Frames sent in all."""
        self.stopping.set()
        self.join(30)
        return self.sent
