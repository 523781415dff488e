"""What attach tests share: small programs, foreign attachments, and bpftool as the second opinion."""

from __future__ import annotations

import json
import time
from pathlib import Path

from xdpctl.attach.detach import detach as _detach
from xdpctl.attach.request import AttachRequest, DetachRequest
from xdpctl.attach.run import attach as _attach
from xdpctl.attach.status import status

BPFFS = Path("/sys/fs/bpf/xdpctl")
RUN = Path("/run/xdpctl")

HEADER = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""


def xdp(name: str = "pass", action: str = "XDP_PASS", section: str = "xdp") -> str:
    """C source of an XDP program that does nothing else."""
    return HEADER + f'SEC("{section}") int {name}(struct xdp_md *ctx) {{ return {action}; }}\n'


def tc(*names: str, section: str = "tc") -> str:
    """C source of TC programs that let everything on to the next."""
    return HEADER + "".join(
        f'SEC("{section}") int {name}(struct __sk_buff *skb) {{ return TC_ACT_UNSPEC; }}\n' for name in names
    )


def attach(obj, *interfaces: str, netns: str, **more):
    """In this process: the command line is tested by itself."""
    return _attach(AttachRequest(object=Path(obj), interfaces=interfaces, netns=netns, **more))


def detach(*interfaces: str, netns: str, **more):
    """In this process."""
    return _detach(DetachRequest(interfaces=interfaces, netns=netns, **more))


def _links(world) -> list[dict]:
    """Every BPF link of the machine, by bpftool: it gives up (EAGAIN) at a link that anybody is just making."""
    for _ in range(100):
        done = world.run("bpftool", "-j", "link", "show", check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
        assert "temporarily unavailable" in done.stdout + done.stderr, done.stdout + done.stderr
        time.sleep(0.05)
    raise AssertionError("a link stayed in the making for 5 s")


def agree(world, netns: str) -> list[dict]:
    """What `xdpctl status --json` says of a namespace, once bpftool has confirmed every line of it.

    bpftool 7.1 lists XDP and clsact of the namespace it runs in; tcx it knows only as links, of the whole machine.
    """
    ours = json.loads(json.dumps(status(netns=netns).to_json()))["attachments"]
    net = json.loads(world.run("bpftool", "-j", "net", "show", netns=netns).stdout)[0]
    modes = {"driver": "native", "generic": "generic", "offload": "offload"}
    assert {(one["ifindex"], one["mode"], one["program"]["id"]) for one in ours if one["hook"] == "xdp"} == {
        (one["ifindex"], modes[one["mode"]], one["id"]) for one in net["xdp"]
    }
    assert {
        (one["ifindex"], one["hook"].replace("-", "/"), one["program"]["id"])
        for one in ours
        if one["hook"].startswith("clsact")
    } == {(one["ifindex"], one["kind"], one["id"]) for one in net["tc"] if one["kind"].startswith("clsact/")}
    links = {one["id"]: one["prog_id"] for one in _links(world)}
    for one in ours:
        if one["link_id"] is not None:
            assert links[one["link_id"]] == one["program"]["id"], one
        if one["pin"] is not None:
            # bpftool 7.5 shows it and ends with 255 all the same
            shown = world.run("bpftool", "-j", "link", "show", "pinned", one["pin"], netns=netns, check=False)
            pinned = json.loads(shown.stdout)
            assert pinned["id"] == one["link_id"]
    return ours


def pins() -> list[Path]:
    """Everything that xdpctl has pinned."""
    return sorted(path for path in BPFFS.rglob("*") if not path.is_dir()) if BPFFS.exists() else []


def nothing_left() -> bool:
    """No pin, no folder, no run-time state."""
    return not BPFFS.exists() and not list(RUN.rglob("*.json"))


def programs_of(netns: str, interface: str) -> list[str]:
    """Names of what is attached to an interface, in the order it runs."""
    return [one.program.name for one in status((interface,), netns=netns).attachments]
