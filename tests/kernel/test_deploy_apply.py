"""Deployments on a real kernel: applied twice, by two at once, under traffic, adopted, waited for, taken apart."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from attachments import HEADER, agree, attach, detach, programs_of
from deployments import SOURCE, Flood, apply_file, assert_same, destroy, forget_all, machine, plan_of

from xdpctl.bpf.map import open_map
from xdpctl.deploy import apply, planfile, ready, state
from xdpctl.deploy.desired import DeploymentError
from xdpctl.deploy.drift import look
from xdpctl.deploy.healing import heal
from xdpctl.deploy.lock import LockedError, locked

pytestmark = pytest.mark.kernel

COUNTING = (
    HEADER
    + """
#include <bpf/bpf_endian.h>
#ifndef VERSION
#define VERSION 1
#endif
volatile const int version = VERSION;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
frames SEC(".maps");
SEC("xdp") int counting(struct xdp_md *c)
{
    void *data = (void *)(long)c->data, *end = (void *)(long)c->data_end;
    __u32 key = 0;
    __u64 *count = bpf_map_lookup_elem(&frames, &key);
    if (data + 14 > end || *(__u16 *)(data + 12) != bpf_htons(0x88b5) || !count)
        return XDP_PASS;
    __sync_fetch_and_add(count, 1);
    return version ? XDP_DROP : XDP_PASS;
}
"""
)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def simple(obj, netns: str, *, extra: str = "", interface: str = 'name = "va"', attach_more: str = "") -> str:
    return f"""
[deployment]
name = "edge"
{extra}
[[program]]
name = "guard"
object = "{obj}"
[[interface]]
{interface}
netns = "{netns}"
[[interface.attach]]
program = "guard"
{attach_more}
"""


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


def test_a_second_apply_changes_nothing(world, pair, compile_c, tmp_path):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair))
    before = machine(pair)
    apply_file(path)
    agree(world, pair)
    once = machine(pair)
    ids = [one.program.id for one in _attachments(pair)]
    assert apply_file(path).changes == ()
    assert state.existing("edge").generation == 1
    assert_same(once, pair)
    assert [one.program.id for one in _attachments(pair)] == ids
    destroy("edge")
    assert_same(before, pair)


def _attachments(netns):
    from xdpctl.attach.status import status

    return status(netns=netns).attachments


def test_an_entry_that_leaves_the_file_is_detached_and_its_device_put_back(world, compile_c, tmp_path):
    inside = world.namespace()
    for name in ("va", "vc"):
        world.veth(name, f"{name}p", netns_a=inside, netns_b=inside)
    obj = compile_c(SOURCE)
    whole = simple(obj, inside)
    found = machine(inside)
    path = write(tmp_path / "a.toml", whole)
    apply_file(path)
    only_va = machine(inside)
    second = f'[[interface]]\nname = "vc"\nnetns = "{inside}"\nmtu = 1280\nfeatures = {{ gro = true }}\n'
    write(path, whole + second + '[[interface.attach]]\nprogram = "guard"\nhook = "ingress"\n')
    apply_file(path)
    assert "mtu 1280" in world.ip("link show vc", inside)
    assert programs_of(inside, "vc") == ["deployed_tc"]
    write(path, whole)
    apply_file(path)
    assert_same(only_va, inside)
    destroy("edge")
    assert_same(found, inside)


def test_two_applies_at_once_fifty_times(pair, compile_c, tmp_path):
    obj = compile_c(SOURCE)
    text = simple(obj, pair).replace("[[interface]]", "[program.globals]\nlimit = 1\n[[interface]]")
    files = [write(tmp_path / f"{n}.toml", text.replace("limit = 1", f"limit = {n}")) for n in (1, 2)]
    plan_of(files[0])
    outcomes: list[int] = []
    for _ in range(8 if "XDPCTL_TEST_SLOW" in os.environ else 50):
        gate = os.pipe()
        children = []
        for path in files:
            child = os.fork()
            if child == 0:
                os.close(gate[1])
                os.read(gate[0], 1)  # both begin when the parent lets go
                code = 3
                try:
                    apply_file(path)
                    code = 0
                except LockedError as error:
                    code = 4 if "pid" in error.message and "since" in error.message else 5
                finally:
                    os._exit(code)
            children.append(child)
        os.close(gate[0])
        os.close(gate[1])
        codes = sorted(os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children)
        assert codes in ([0, 0], [0, 4]), codes
        outcomes += codes
        assert apply.pending() is None
        assert programs_of(pair, "va") == ["deployed_xdp"]
    assert 4 in outcomes or len(outcomes) < 100, "they never met"
    (kept,) = {one for one in _program_folders() if one.startswith("guard@")}
    assert state.existing("edge").programs == (kept,), "one version alone is left"
    destroy("edge")


def _program_folders():
    return sorted(one.name for one in (state.pin_folder("edge") / "programs").iterdir())


def test_a_second_apply_waits_when_it_is_told_to(pair, compile_c, tmp_path):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair))
    holding = threading.Event()

    def hold():
        with locked("the first"):
            holding.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(5)
    with pytest.raises(LockedError, match="the first"), locked("the second"):
        pass
    with locked("the second", wait=10):
        apply.run(plan_of(path), command="test")
    thread.join(5)
    destroy("edge")


def test_no_frame_is_lost_or_passes_unfiltered_while_versions_change(world, compile_c, tmp_path):
    inside, outside = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=outside)
    versions = [compile_c(COUNTING, None, f"-DVERSION={n}") for n in (1, 2)]
    path = write(tmp_path / "a.toml", simple(versions[0], inside))
    apply_file(path)
    flood = Flood("vb", outside)
    flood.start()
    flood.wait_for(100)
    for turn in range(1, 7):
        write(path, simple(versions[turn % 2], inside))
        kinds = [one.kind for one in apply_file(path).changes]
        assert kinds == ["program.load", "xdp.update"]
        flood.wait_for(300)
    sent = flood.stop()
    time.sleep(0.05)  # frames that are still in the veth's ring
    (pin,) = (state.pin_folder("edge") / "maps" / "guard").iterdir()
    with open_map(pin) as frames:
        seen = struct.unpack("=Q", frames.lookup(bytes(4)))[0]
    assert seen == sent, f"{sent - seen} of {sent} frames met no program"
    assert sent > 1000
    destroy("edge")


def test_somebody_elses_program_stays_unless_it_is_adopted(world, pair, compile_c, tmp_path):
    obj, other = compile_c(SOURCE), compile_c(COUNTING)
    path = write(tmp_path / "a.toml", simple(obj, pair))
    world.run("ip", "link", "set", "va", "xdpdrv", "obj", str(other), "sec", "xdp", netns=pair)
    before = machine(pair)
    with pytest.raises(DeploymentError, match="adopt = true"):
        plan_of(path)
    assert_same(before, pair)
    write(path, simple(obj, pair).replace('name = "edge"', 'name = "edge"\nadopt = true'))
    kinds = [one.kind for one in plan_of(path).changes]
    assert kinds == ["program.keep", "program.load", "xdp.update"]
    apply_file(path)
    assert programs_of(pair, "va") == ["deployed_xdp"]
    assert not (state.pin_folder("edge") / "kept").exists()
    destroy("edge")
    assert programs_of(pair, "va") == []


def test_what_xdpctl_attach_put_there_is_not_taken_either(pair, compile_c, tmp_path):
    attach(compile_c(COUNTING), "va", netns=pair)
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair))
    with pytest.raises(DeploymentError, match="not of this deployment"):
        plan_of(path)
    assert programs_of(pair, "va") == ["counting"]
    detach("va", netns=pair)


def test_an_interface_that_comes_later_is_waited_for(world, pair, compile_c, tmp_path, xdpctl):
    path = write(
        tmp_path / "a.toml", simple(compile_c(SOURCE), pair, interface='name = "late"\nwait = "20s"')
    )
    assert plan_of(path).waiting == (f"late in {pair}",)
    thread = threading.Timer(0.5, lambda: world.veth("late", "latep", netns_a=pair, netns_b=pair))
    thread.start()
    done = xdpctl("apply", "--yes", path)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert programs_of(pair, "late") == ["deployed_xdp"]
    destroy("edge")
    write(path, simple(compile_c(SOURCE), pair, interface='name = "never"\nwait = "100ms"'))
    done = xdpctl("apply", "--yes", path)
    assert done.returncode == 2
    assert "never did not come within 0.1 s" in done.stderr


def test_a_refused_change_takes_back_those_before_it(world, pair, compile_c, tmp_path):
    # the second program can't be loaded: an endless loop that only the verifier sees
    broken = compile_c(
        HEADER + 'SEC("xdp") int endless(struct xdp_md *c) { volatile int i = 0; while (1) i++; return 2; }\n'
    )
    world.veth("vx", "vxp", netns_a=pair, netns_b=pair)
    text = simple(compile_c(SOURCE), pair) + f'[[program]]\nname = "broken"\nobject = "{broken}"\n'
    more = f'[[interface]]\nname = "vx"\nnetns = "{pair}"\nmtu = 1300\n[[interface.attach]]\nprogram = "broken"\n'
    before = machine(pair)
    with pytest.raises(Exception, match="taken back") as caught:
        apply_file(write(tmp_path / "a.toml", text + more))
    assert caught.value.exit_code == 5
    assert apply.pending() is None
    assert_same(before, pair)


def test_drift_names_each_difference_and_healing_removes_it(world, pair, compile_c, tmp_path):
    text = simple(compile_c(SOURCE), pair, interface='name = "va"\nmtu = 1400\nfeatures = { gro = true }')
    text = text.replace("[[interface]]", "[program.maps.table]\nentries = { 5 = 6 }\n[[interface]]")
    path = write(tmp_path / "a.toml", text + '[[interface.attach]]\nprogram = "guard"\nhook = "ingress"\n')
    apply_file(path)
    applied = machine(pair)
    assert look("edge").drifts == ()
    world.ip("link set va mtu 1450", pair)
    world.run("ethtool", "-K", "va", "gro", "off", netns=pair)
    detach("va", netns=pair, hook="xdp")
    (pin,) = (state.pin_folder("edge") / "maps" / "guard").iterdir()
    with open_map(pin) as table:
        table.delete(struct.pack("=I", 5))
    kinds = {one.kind for one in look("edge").drifts}
    assert kinds == {"setting", "missing", "elements"}
    assert heal(["edge"]) == {"edge": 4}
    assert look("edge").drifts == ()
    assert_same(applied, pair)
    destroy("edge")


def test_a_stale_pin_is_drift_and_healed(world, pair, compile_c, tmp_path):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair, interface='match = "v*"'))
    apply_file(path)
    world.ip("link del va", pair)
    world.veth("va", "vb", netns_a=pair, netns_b=pair)
    kinds = {one.kind for one in look("edge").drifts}
    assert kinds == {"stale-pin", "missing"}
    heal(["edge"])
    assert look("edge").drifts == ()
    assert programs_of(pair, "vb") == ["deployed_xdp"]
    destroy("edge")


def test_a_plan_in_a_file_is_applied_as_it_was_shown(world, pair, compile_c, tmp_path, xdpctl):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair, interface='name = "va"\nmtu = 1400'))
    done = xdpctl("plan", "--out", "plan.json", path)
    assert done.returncode == 1, done.stderr
    world.ip("link set va mtu 1300", pair)
    changed = xdpctl("apply", "--yes", "plan.json")
    assert changed.returncode == 1
    assert "the machine has changed since this was planned" in changed.stderr
    assert programs_of(pair, "va") == []
    world.ip("link set va mtu 1500", pair)
    assert xdpctl("apply", "--yes", "plan.json", check=True)
    assert xdpctl("plan", path).returncode == 0
    shown = json.loads((tmp_path / "plan.json").read_text())
    assert shown["xdpctl_plan"] == planfile.FORMAT
    found = xdpctl("apply", "--json", "plan.json", check=True).json()
    assert (found["applied"], found["generation"]) == (0, 1)
    destroy("edge")


def test_a_rollback_brings_back_programs_elements_and_settings(pair, compile_c, tmp_path, xdpctl):
    first, second = (compile_c(SOURCE, None, f"-DVERSION={n}") for n in (1, 2))
    found = machine(pair)
    path = write(tmp_path / "a.toml", simple(first, pair, interface='name = "va"\nmtu = 1400'))
    apply_file(path)
    before = machine(pair)
    write(path, simple(second, pair, interface='name = "va"\nfeatures = { gro = true }'))
    apply_file(path)
    path.unlink()  # the rollback needs none of the files
    done = xdpctl("rollback", "--yes", "edge")
    assert done.returncode == 0, done.stderr
    assert_same(before, pair)
    listed = xdpctl("history", "--json", "edge", check=True).json()["generations"]
    assert [one["generation"] for one in listed] == [1, 2, 3]
    assert listed[-1]["current"]
    xdpctl("destroy", "--yes", "edge", check=True)
    assert_same(found, pair)
    assert xdpctl("destroy", "edge").returncode == 2
    xdpctl("rollback", "--yes", "edge", "1", check=True)
    assert_same(before, pair)
    destroy("edge")


def test_what_was_interrupted_is_told_by_the_next_command(pair, compile_c, tmp_path, xdpctl):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair))
    before = machine(pair)
    died = xdpctl("apply", "--yes", path, env={"XDPCTL_DIE_AT": "after:1"})
    assert died.returncode == -9
    refused = xdpctl("apply", "--yes", path)
    assert refused.returncode == 76
    assert "--resume" in refused.stderr
    assert xdpctl("apply", "--undo", check=True).stdout == "edge: 2 changes taken back\n"
    assert_same(before, pair)
    assert xdpctl("apply", "--undo", check=True).stdout == "nothing was interrupted\n"


@pytest.mark.parametrize("via", ["", 'via = "clsact"\n'], ids=["newest", "clsact"])
def test_programs_of_a_tc_hook_stand_in_their_order_and_follow_it(world, pair, compile_c, tmp_path, via):
    obj = compile_c(SOURCE)
    text = '[deployment]\nname = "edge"\n'
    text += "".join(f'[[program]]\nname = "{name}"\nobject = "{obj}"\n' for name in "ab")
    one = '[[interface.attach]]\nprogram = "{}"\nhook = "ingress"\norder = {{}}\n' + via
    hooks = one.format("a") + one.format("b")
    where = f'[[interface]]\nname = "va"\nnetns = "{pair}"\n'
    path = write(tmp_path / "a.toml", text + where + hooks.format(10, 20))
    apply_file(path)
    ids = [one.program.id for one in _attachments(pair)]
    assert len(set(ids)) == 2
    write(path, text + where + hooks.format(20, 10))
    apply_file(path)
    assert [one.program.id for one in _attachments(pair)] == ids[::-1]
    assert plan_of(path).changes == ()
    agree(world, pair)
    destroy("edge")


def test_an_old_priority_is_not_left_behind(world, pair, compile_c, tmp_path):
    text = simple(compile_c(SOURCE), pair, attach_more="hook = 'ingress'\nvia = 'clsact'\norder = {}")
    path = write(tmp_path / "a.toml", text.format(50))
    apply_file(path)
    write(path, text.format(70))
    apply_file(path)
    (left,) = _attachments(pair)
    assert left.priority == 70
    agree(world, pair)
    destroy("edge")
    assert "clsact" not in world.run("tc", "qdisc", "show", "dev", "va", netns=pair).stdout


def test_ready_made_plans_are_pure(pair, compile_c, tmp_path):
    path = write(tmp_path / "a.toml", simple(compile_c(SOURCE), pair))
    before = machine(pair)
    assert plan_of(path).changes == plan_of(path).changes
    assert ready.make(ready.empty("edge"), {}).changes == ()
    assert_same(before, pair)
