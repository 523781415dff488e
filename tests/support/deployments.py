"""What deployment tests share: objects in two versions, a machine's state to compare, and commands in this process."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from attachments import HEADER

from xdpctl.attach import runstate
from xdpctl.bpf import pins
from xdpctl.bpf.map import open_map
from xdpctl.deploy import apply, journal, ready, state
from xdpctl.deploy.load import load
from xdpctl.deploy.lock import locked
from xdpctl.errors import XdpctlError
from xdpctl.host.collect import collect

SOURCE = (
    HEADER
    + """
#ifndef VERSION
#define VERSION 1
#endif
volatile const unsigned int limit = 7;
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32); __type(value, __u64); } table SEC(".maps");
SEC("xdp") int filter(struct xdp_md *c)
{
    __u32 key = VERSION;
    __u64 *found = bpf_map_lookup_elem(&table, &key);
    return found && *found > limit ? XDP_DROP : XDP_PASS;
}
SEC("tc") int marker(struct __sk_buff *s) { s->mark = VERSION; return TC_ACT_UNSPEC; }
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
            found[name.rpartition("-")[0]] = "link"
            continue
        try:
            with open_map(path) as opened:
                found[name] = sorted((key.hex(), value.hex()) for key, value in opened.items())
        except XdpctlError:
            found[name] = "program"
    return found


def machine(names=()):
    """All that a deployment may change, by names that do not depend on when it was done; no ids, no times.

    Args:
        names: of the deployments whose programs count.
    """
    seen = collect(netns="all", probes=())
    return {
        "links": {
            (space.label, link.name): _link(link, seen.programs) for space in seen.namespaces for link in space.links
        },
        "pins": _pins(),
        "records": sorted(one.name for one in runstate.read().values()),
        "programs": Counter(
            (one.name, one.tag) for one in seen.programs.values() if one.name in ("filter", "marker", *names)
        ),
    }


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


def assert_same(before, names=()):
    """This machine is as it was; the kernel frees programs and links a little later than it is told to."""
    until = time.monotonic() + 5
    while True:
        found = differences(before, machine(names))
        if not found or time.monotonic() > until:
            break
        time.sleep(0.01)
    assert found == []


def forget_all():
    """Remove state of deployments that are destroyed."""
    for one in state.names(destroyed=True):
        state.forget(one)
