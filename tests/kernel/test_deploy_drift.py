"""Drift of each kind, seen as it happens; modes, hooks and selections as the machine has them."""

from __future__ import annotations

import threading

import pytest
from attachments import agree, detach, programs_of, tc, xdp
from deployments import (
    SOURCE,
    apply_file,
    assert_same,
    destroy,
    forget_all,
    killed_at,
    machine,
    plan_of,
    recover,
)
from kernels import TCX
from live import until

from xdpctl.attach import cleanup
from xdpctl.attach.status import status
from xdpctl.bpf import pins
from xdpctl.bpf.map import open_map
from xdpctl.cli.drift import _watched
from xdpctl.deploy import state
from xdpctl.deploy.drift import look
from xdpctl.deploy.healing import heal
from xdpctl.deploy.lock import locked
from xdpctl.deploy.watch import DONE, LATER, watch
from xdpctl.errors import XdpctlError

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@pytest.fixture
def deploy(pair, compile_c, tmp_path):
    """Apply program ``guard`` with these lines of [[interface]]; the file's path."""
    obj = compile_c(SOURCE)

    def run(lines: str):
        path = tmp_path / "a.toml"
        path.write_text(
            f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{obj}"\n'
            f'[[interface]]\nnetns = "{pair}"\n{lines}'
        )
        apply_file(path)
        return path

    return run


ON = '[[interface.attach]]\nprogram = "guard"\n'


def kinds() -> list[str]:
    return sorted(one.kind for one in look("edge").drifts)


def filters(world, netns: str, interface: str) -> str:
    return world.run("tc", "filter", "show", "dev", interface, "ingress", netns=netns).stdout


def test_a_filter_twice_at_another_priority_or_of_somebody_else(world, pair, deploy, compile_c):
    deploy(f'name = "va"\n{ON}hook = "ingress"\nvia = "clsact"\norder = 50\n')
    applied = machine(pair)
    (pin,) = (state.pin_folder("edge") / "programs").rglob("deployed_tc")
    add = f"tc filter add dev va ingress prio {{}} handle 1 bpf da object-pinned {pin}"
    world.run(*add.format(60).split(), netns=pair)
    assert kinds() == ["duplicate"]
    world.run(*"tc filter del dev va ingress prio 50".split(), netns=pair)
    assert kinds() == ["missing", "priority"], look("edge").drifts
    heal(["edge"])
    assert kinds() == []
    assert_same(applied, pair)
    other = compile_c(tc("stranger"))
    world.run(*f"tc filter add dev va ingress prio 9 bpf da obj {other} sec tc".split(), netns=pair)
    assert kinds() == ["foreign"]
    heal(["edge"])
    assert "stranger" in filters(world, pair, "va"), "what is not ours stays"
    destroy("edge")
    assert "stranger" in filters(world, pair, "va")
    assert "deployed_tc" not in filters(world, pair, "va")


def test_another_version_on_a_hook_and_somebody_elses_program_there(world, pair, deploy, compile_c):
    deploy(f'name = "va"\n{ON}')
    detach("va", netns=pair)
    other = compile_c(SOURCE, None, "-DVERSION=2")
    world.run("ip", "link", "set", "va", "xdpdrv", "obj", str(other), "sec", "xdp", netns=pair)
    (found,) = look("edge").drifts
    assert (found.kind, found.healed) == ("foreign", False)
    assert "adopt = true" in found.message or "not of this deployment" in found.message
    world.run("ip", "link", "set", "va", "xdpdrv", "off", netns=pair)
    assert kinds() == ["missing"]
    heal(["edge"])
    assert programs_of(pair, "va") == ["deployed_xdp"]
    destroy("edge")


def test_detaching_what_a_deployment_holds_waits_for_nobody(pair, deploy, monkeypatch):
    deploy(f'name = "va"\n{ON}')
    with monkeypatch.context() as patch:
        patch.setattr(cleanup.time, "sleep", lambda _seconds: pytest.fail("waited for a program that stays"))
        detach("va", netns=pair)
    assert kinds() == ["missing"]
    destroy("edge")


def test_drift_is_seen_when_it_happens_and_nothing_is_polled(world, pair, deploy):
    deploy(f'name = "va"\nmtu = 1400\n{ON}')
    applied = machine(pair)
    looked, seen, go = threading.Event(), [], threading.Event()

    class EnoughError(Exception):
        pass

    def on_event(names):
        drifts = [one.kind for one in look(names[0]).drifts]
        seen.append(drifts)
        looked.set()
        if drifts:
            heal(names)
        elif go.is_set() and ["setting"] in seen and ["missing"] in seen:
            raise EnoughError

    failures = []

    def run():
        try:
            watch(["edge"], on_event)
        except EnoughError:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert looked.wait(10)
    assert seen == [[]], "nothing differs, and nobody looks again without a reason"
    world.ip("link set va mtu 1450", pair)
    assert until(lambda: ["setting"] in seen)
    assert until(lambda: seen[-1] == [])
    go.set()
    detach("va", netns=pair)
    thread.join(15)
    assert not thread.is_alive(), seen
    assert failures == []
    assert_same(applied, pair)
    destroy("edge")


def test_a_mode_is_what_the_file_says_and_auto_takes_what_is_there(world, pair, deploy):
    before = machine(pair)
    for mode, told in (("auto", "native"), ("generic", "generic"), ("auto", "generic"), ("native", "native")):
        path = deploy(f'name = "va"\n{ON}mode = "{mode}"\n')
        (one,) = agree(world, pair)
        assert one["mode"] == told
        assert plan_of(path).changes == ()
    destroy("edge")
    assert_same(before, pair)


def test_interfaces_are_chosen_by_glob_and_driver_on_both_directions(world, pair, deploy):
    world.ip("link add br0 type bridge", pair)
    before = machine(pair)
    path = deploy(f'match = ["v*", "br*"]\ndriver = "veth"\n{ON}hook = "ingress"\n{ON}hook = "egress"\n')
    way = "tcx" if TCX else "clsact"
    assert sorted((one["interface"], one["hook"]) for one in agree(world, pair)) == [
        (name, f"{way}-{side}") for name in ("va", "vb") for side in ("egress", "ingress")
    ]
    assert plan_of(path).changes == ()
    destroy("edge")
    assert_same(before, pair)


def test_what_would_fail_is_told_before_anything_is_changed(world, pair, compile_c, tmp_path, xdpctl):
    world.veth("vc", "vd", netns_a=pair, netns_b=pair)
    world.run("ethtool", "-K", "vd", "gro", "off", netns=pair)
    path = tmp_path / "a.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{compile_c(SOURCE)}"\n'
        f'[[interface]]\nnetns = "{pair}"\nname = "va"\n{ON}'
        f'[[redirect]]\nnetns = "{pair}"\nfrom = "va"\nto = "vc"\n'
    )
    before = machine(pair)
    planned = xdpctl("plan", path)
    assert planned.returncode == 6
    assert "redirect.veth-peer-napi" in planned.stdout
    refused = xdpctl("apply", "--yes", path)
    assert refused.returncode == 6
    assert "not applied" in refused.stderr
    assert_same(before, pair)
    assert state.names() == []


def test_what_another_command_is_in_the_midst_of_is_neither_drift_nor_interrupted(
    pair, deploy, compile_c, xdpctl, capsys
):
    deploy(f'name = "va"\n{ON}')
    detach("va", netns=pair)
    assert killed_at("before:0", lambda: heal(["edge"]))
    with locked("another"):
        done = xdpctl("drift")
        assert done.returncode == 75, (done.stdout, done.stderr)
        assert "`another` (pid " in done.stderr
        assert "is changing this machine" in done.stderr
        assert _watched(["edge"], {}, heal=True, wait=0, as_json=False) == LATER
    assert "is changing this machine" in capsys.readouterr().err
    done = xdpctl("drift")
    assert (done.returncode, "was interrupted: 0 of 1 changes are made" in done.stderr) == (76, True)
    with pytest.raises(XdpctlError, match="was interrupted"):
        _watched(["edge"], {}, heal=True, wait=0, as_json=False)
    recover(resume=False)
    assert _watched(known := ["edge"], {}, heal=True, wait=0, as_json=False) is None
    assert capsys.readouterr().out.endswith("edge: healed by 1 change\n")
    destroy("edge")
    assert _watched(known, {}, heal=True, wait=0, as_json=False) == DONE
    assert (known, capsys.readouterr().err) == ([], "edge: destroyed, and watched no more\n")


def test_a_program_of_the_deployment_in_the_place_of_another(world, pair, compile_c, tmp_path, xdpctl):
    world.veth("vc", "vd", netns_a=pair, netns_b=pair)
    obj = compile_c(SOURCE)
    path = tmp_path / "two.toml"
    path.write_text(
        '[deployment]\nname = "edge"\n'
        + "".join(
            f'[[program]]\nname = "{name}"\nobject = "{obj}"\nglobals = {{ limit = {limit} }}\n'
            f'[[interface]]\nname = "{interface}"\nnetns = "{pair}"\n'
            f'[[interface.attach]]\nprogram = "{name}"\nvia = "netlink"\n'
            for name, limit, interface in (("guard", 1, "va"), ("strict", 2, "vc"))
        )
    )
    apply_file(path)
    applied = machine(pair)
    (strict,) = (state.pin_folder("edge") / "programs").glob("strict@*/deployed_xdp")
    world.run("ip", "-force", "link", "set", "va", "xdpdrv", "pinned", str(strict), netns=pair)
    done = xdpctl("drift")
    assert done.stdout == f"edge: changed   {pair}/va: xdp runs strict, not guard\n"
    assert done.returncode == 1
    heal(["edge"])
    assert_same(applied, pair)
    assert xdpctl("drift", "edge").stdout == "edge: as applied\n"
    destroy("edge")


@pytest.mark.parametrize("hook", ["xdp", "egress"])
def test_a_program_of_the_deployment_where_nobody_wants_it(world, pair, deploy, xdpctl, hook):
    deploy(f'name = "va"\n{ON}hook = "ingress"\n{ON}')
    applied = machine(pair)
    function = "deployed_xdp" if hook == "xdp" else "deployed_tc"
    (pin,) = (state.pin_folder("edge") / "programs").rglob(function)
    if hook == "xdp":
        world.run("ip", "link", "set", "vb", "xdpdrv", "pinned", str(pin), netns=pair)
    else:
        world.run("tc", "qdisc", "add", "dev", "vb", "clsact", netns=pair)
        world.run(*f"tc filter add dev vb egress bpf da object-pinned {pin}".split(), netns=pair)
    done = xdpctl("drift", "--json")
    assert done.returncode == 1
    (drift,) = done.json()["deployments"][0]["drifts"]
    assert drift.pop("message") == (
        f"guard is on {'xdp' if hook == 'xdp' else 'clsact-egress'}, where the deployment does not want it"
    )
    assert drift == {"kind": "extra", "netns": pair, "target": "vb", "heals": True}
    assert xdpctl("drift", "--heal").stdout.endswith("edge: healed by 1 change\n")
    assert xdpctl("drift").returncode == 0
    if hook == "egress":
        world.run("tc", "qdisc", "del", "dev", "vb", "clsact", netns=pair, check=False)
    assert_same(applied, pair)
    destroy("edge")


def test_a_program_in_another_mode_is_one_difference(world, pair, deploy):
    deploy(f'name = "va"\n{ON}mode = "native"\nvia = "netlink"\n')
    applied = machine(pair)
    (pin,) = (state.pin_folder("edge") / "programs").rglob("deployed_xdp")
    world.run("ip", "link", "set", "va", "xdpdrv", "off", netns=pair)
    world.run("ip", "link", "set", "va", "xdpgeneric", "pinned", str(pin), netns=pair)
    (found,) = look("edge").drifts
    assert (found.kind, found.message) == ("changed", "guard on xdp: native mode is wanted, not generic")
    heal(["edge"])
    assert_same(applied, pair)
    assert kinds() == []
    destroy("edge")


def ids(netns: str, interface: str) -> list[int]:
    return [one.program.id for one in status((interface,), netns=netns).attachments]


def test_a_program_whose_pin_somebody_removed_is_ours_still_and_pinned_again(pair, deploy, xdpctl):
    path = deploy(f'name = "va"\n{ON}[[program]]\nname = "other"\nobject = "builtin:pass"\n')
    applied, running = machine(pair), ids(pair, "va")
    (pin,) = (state.pin_folder("edge") / "programs").rglob("deployed_xdp")
    pin.unlink()
    done = xdpctl("drift")
    told = "somebody removed the pin of deployed_xdp, which the kernel has still"
    assert (done.returncode, done.stdout) == (1, f"edge: unpinned  guard: {told}\n")
    planned = xdpctl("plan", path)
    assert planned.returncode == 1
    assert planned.stdout.startswith("+ program.pin guard: deployed_xdp\n")
    assert xdpctl("drift", "--heal").stdout.endswith("edge: healed by 1 change\n")
    assert_same(applied, pair)
    assert ids(pair, "va") == running, "it never left"
    assert kinds() == []
    # and what was to be destroyed is destroyed all the same
    pin.unlink()
    destroy("edge")
    assert ids(pair, "va") == []
    assert machine(pair)["pins"] == {}


@pytest.mark.parametrize("how", ["heal", "apply"])
def test_when_all_pins_are_gone_maps_live_on_in_what_still_runs(world, pair, deploy, how):
    path = deploy(f'name = "va"\n{ON}via = "netlink"\n{ON}hook = "ingress"\n')
    world.veth("vc", "vd", netns_a=pair, netns_b=pair)
    (held,) = (state.pin_folder("edge") / "maps").rglob("table@*")
    with open_map(held) as opened:
        opened.update((9).to_bytes(4, "little"), (10).to_bytes(8, "little"))
    applied = machine(pair)
    for one in pins.walk():
        if one.name != "deployed_tc" or TCX:
            one.unlink()
    assert until(lambda: not TCX or programs_of(pair, "va") == ["deployed_xdp"])
    assert set(kinds()) == ({"unpinned", "missing", "changed"} if TCX else {"unpinned"}), look("edge").drifts
    if how == "heal":
        heal(["edge"])
    else:
        apply_file(path)
    assert_same(applied, pair)
    assert kinds() == []
    destroy("edge")
    assert (ids(pair, "va"), machine(pair)["pins"]) == ([], {})


def test_a_watch_tells_once_what_it_cannot_heal(world, pair, deploy, compile_c, capsys):
    deploy(f'name = "va"\n{ON}')
    known, seen = ["edge"], {}

    def watched():
        assert _watched(known, seen, heal=True, wait=0, as_json=False) is None
        return capsys.readouterr().out

    assert watched() == ""
    detach("va", netns=pair)
    stranger = compile_c(xdp("stranger"))
    world.run("ip", "link", "set", "va", "xdpdrv", "obj", str(stranger), "sec", "xdp", netns=pair)
    assert watched().startswith("edge: foreign ")
    assert watched() == ""
    world.run("ip", "link", "set", "va", "xdpdrv", "off", netns=pair)
    for _ in range(2):
        assert watched().endswith("edge: healed by 1 change\n"), "as often as it happens"
        detach("va", netns=pair)
    destroy("edge")
