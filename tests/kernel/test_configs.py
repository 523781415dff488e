"""Every file in configs/: applied, held against bpftool and ethtool, drifted, healed and destroyed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from attachments import agree, attach, detach
from deployments import apply_file, assert_same, destroy, forget_all, machine, plan_of
from kernels import GRO_STARTS_NAPI

from xdpctl.deploy import state
from xdpctl.deploy.drift import look
from xdpctl.deploy.healing import heal

pytestmark = pytest.mark.kernel

PASS = Path(__file__).resolve().parents[2] / "build" / "bpf" / "pass.bpf.o"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@pytest.fixture
def spaces(world):
    """Two namespaces: the first is where a host would be, with eth0, veth_in0, veth_xxx0; pairs lead to the second."""
    host, pod = world.namespace(), world.namespace(f"pod-{world.tag}")
    for name in ("eth0", "veth_in0", "veth_xxx0"):
        world.veth(name, f"{name[:12]}p", netns_a=host, netns_b=pod)
    return host, pod


def features(world, netns, interface):
    """What ethtool says, by its own names."""
    lines = world.run("ethtool", "-k", interface, netns=netns).stdout.splitlines()[1:]
    return {name.strip(): word.split()[0] for name, _, word in (line.partition(":") for line in lines)}


def mtu(world, netns, interface):
    return json.loads(world.ip(f"-j link show {interface}", netns))[0]["mtu"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_config_holds_what_it_says(world, spaces, path, tmp_path):
    host, pod = spaces
    text = path.read_text()
    # the files speak of the caller's namespace: here that is the one called host
    moved = text.replace("[[interface]]\nname", f'[[interface]]\nnetns = "{host}"\nname')
    moved = moved.replace("[[redirect]]", f'[[redirect]]\nnetns = "{host}"').replace(
        '"../', f'"{CONFIGS.parent}/'
    )
    if "XDPCTL_TEST_SLOW" in os.environ or shutil.which("clang") is None:
        # a guest: what `make` has compiled from the same sources
        moved = re.sub(r'source = ".*/bpf/(\w+)\.bpf\.c"', rf'object = "{PASS.parent}/\1.bpf.o"', moved)
    (tmp_path / "blocked.csv").write_text((CONFIGS / "blocked.csv").read_text())
    file = tmp_path / path.name
    file.write_text(moved)
    name, more = path.stem, {"netns": pod, "match": "*"} if "netns" in text and "pod-" in text else {}
    if name == "veth-redirect" and not GRO_STARTS_NAPI:
        # no setting gives the other end its NAPI: it is foreseen, and a program there is what helps
        assert [one.id for one in plan_of(file).failing] == ["redirect.veth-peer-napi"]
        attach(PASS, "veth_xxx0p", netns=pod)
    before = machine(host, pod)
    there = {one["program"]["id"] for one in agree(world, pod)}

    apply_file(file, **more)
    applied = machine(host, pod)
    attached = agree(world, host) + agree(world, pod)  # bpftool confirms each line
    attached = [one for one in attached if one["program"]["id"] not in there]
    CHECKS[name](world, host, pod, attached)
    assert plan_of(file, **more).changes == ()
    assert look(name).drifts == ()

    for one in attached:
        detach(one["interface"], netns=one["netns"], all=True) if _still(one) else None
    if not attached:
        world.ip("link set eth0 mtu 1450", host)
    assert look(name).drifts != ()
    heal([name])
    assert look(name).drifts == ()
    assert_same(applied, host, pod)

    destroy(name)
    assert_same(before, host, pod)
    assert state.names() == []


def _still(one):
    from xdpctl.attach.status import status

    return bool(status((one["interface"],), netns=one["netns"]).attachments)


def veth_redirect(world, host, pod, attached):
    assert [(one["interface"], one["mode"]) for one in attached] == [("veth_in0", "native")]
    if GRO_STARTS_NAPI:
        assert features(world, pod, "veth_xxx0p")["generic-receive-offload"] == "on"
        assert features(world, pod, "veth_in0p")["generic-receive-offload"] == "off"


def blocklist(world, host, _pod, attached):
    assert [one["program"]["name"] for one in attached] == ["xdp_blocklist"]
    assert features(world, host, "eth0")["generic-receive-offload"] == "on"
    pin = next(
        one
        for one in (state.pin_folder("blocklist") / "maps" / "blocklist").iterdir()
        if "blocked4" in one.name
    )
    held = json.loads(world.run("bpftool", "-j", "map", "dump", "pinned", str(pin)).stdout)
    assert len(held) == 3
    shown = json.loads(world.run("bpftool", "-j", "map", "show", "pinned", str(pin)).stdout)
    assert shown["max_entries"] == 200000


def tc_chain(_world, _host, _pod, attached):
    assert [one["program"]["name"] for one in attached] == ["tc_count", "tc_mark"]


def all_veths(_world, _host, pod, attached):
    assert sorted(one["interface"] for one in attached) == ["eth0p", "veth_in0p", "veth_xxx0p"]
    assert {one["netns"] for one in attached} == {pod}
    assert len({one["program"]["id"] for one in attached}) == 1, "loaded once"


def nic_settings(world, host, _pod, attached):
    assert attached == []
    assert mtu(world, host, "eth0") == 1400
    assert features(world, host, "eth0")["tcp-segmentation-offload"] == "off"
    assert features(world, host, "eth0")["generic-receive-offload"] == "on"


CHECKS = {
    "all-veths": all_veths,
    "blocklist": blocklist,
    "nic-settings": nic_settings,
    "tc-chain": tc_chain,
    "veth-redirect": veth_redirect,
}
