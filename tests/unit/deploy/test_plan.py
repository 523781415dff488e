"""Plans are pure: what was planned and made leaves nothing to plan, and its inverses lead back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.deploy.change import KINDS, Change
from xdpctl.deploy.desired import (
    AttachWish,
    Deployment,
    DeploymentError,
    InterfaceWish,
    MapWish,
    ProgramWish,
    RedirectWish,
)
from xdpctl.deploy.device import DeviceSettings
from xdpctl.deploy.judge import judged
from xdpctl.deploy.observe import Observed
from xdpctl.deploy.plan import of_resolved, plan
from xdpctl.deploy.resolve import resolve
from xdpctl.deploy.simulate import after
from xdpctl.deploy.state import deployment_from_json, deployment_to_json, from_json, to_json
from xdpctl.host.model import Caller, Feature, Kernel, Link, Namespace, Peer, Snapshot, TcHook, Xdp
from xdpctl.obj.model import ObjFile, ObjMap, ObjProgram

HERE, BLUE = 1, 2


def obj_file(name: str) -> ObjFile:
    """An object with an XDP program, a TC program and a hash, as the reader would tell it."""

    def program(function, kind):
        return ObjProgram(function, kind, kind, None, "section", None, False, False, 10)

    table = ObjMap("table", "hash", 4, 8, 64, 0, "btf")
    programs = (program("on_xdp", "xdp"), program("on_tc", "sched_cls"))
    return ObjFile(Path(f"{name}.o"), 1, "GPL", True, True, False, programs, (table,), ())


OBJECTS = {"a": obj_file("a"), "b": obj_file("b")}


def veth(number, name, netns, peer, **more):
    values = {
        "ifindex": number,
        "name": name,
        "netns": netns,
        "kind": "veth",
        "driver": "veth",
        "flags": 0x11043,
        "operstate": "up",
        "type": 1,
        "mtu": 1500,
        "min_mtu": 68,
        "max_mtu": 65535,
        "address": None,
        "master": None,
        "peer": Peer(peer, BLUE if netns == HERE else HERE, 0),
        "lower": None,
        "num_rx_queues": 1,
        "num_tx_queues": 1,
        "real_rx_queues": 1,
        "real_tx_queues": 1,
        "features": {"rx-gro": Feature(False, False, False), "tx-gso-list": Feature(True, True, False)},
        "xdp_features": 0x23,
        "qdiscs": (),
    }
    return Link(**{**values, **more})


def machine(links_here=3, tcx=True, **more):
    """Namespaces: the caller's with v0, v1, ..., and blue with their peers p0, p1, ..."""
    spaces = (
        Namespace(
            HERE,
            None,
            True,
            None,
            tuple(veth(10 + n, f"v{n}", HERE, 10 + n, **more) for n in range(links_here)),
        ),
        Namespace(
            BLUE, "blue", False, None, tuple(veth(10 + n, f"p{n}", BLUE, 10 + n) for n in range(links_here))
        ),
    )
    kernel = Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True, features={"tcx": tcx})
    snapshot = Snapshot("now", kernel, Caller(0, ("CAP_NET_ADMIN", "CAP_BPF", "CAP_SYS_ADMIN")), 4, 4, spaces)
    return Observed(snapshot, HERE)


names = st.sampled_from(["a", "b"])
attaches = st.builds(
    AttachWish,
    program=names,
    hook=st.sampled_from(["ingress", "egress"]),
    via=st.sampled_from([None, None, "clsact"]),
    order=st.sampled_from([0, 10, 20]),
)
on_xdp = st.builds(AttachWish, program=names, mode=st.sampled_from(["native", "generic", "auto"]))
settings = st.builds(
    DeviceSettings,
    up=st.sampled_from([None, True]),
    mtu=st.sampled_from([None, 1400, 1300]),
    features=st.dictionaries(st.sampled_from(["gro", "tx-gso-list"]), st.booleans(), max_size=2),
)


@st.composite
def interfaces(draw):
    wished = []
    for number in draw(st.sets(st.integers(0, 2))):
        one = draw(st.lists(on_xdp, max_size=1)) + draw(
            st.lists(attaches, max_size=3, unique_by=lambda one: (one.hook, one.program))
        )
        blue = draw(st.booleans())
        name, space = (f"p{number}", "blue") if blue else (f"v{number}", None)
        wished.append(InterfaceWish(name=name, netns=space, settings=draw(settings), attach=tuple(one)))
    return tuple(wished)


@st.composite
def deployments(draw):
    """Programs a and b in one of two versions, with elements, on some of six interfaces."""
    programs = []
    for name in ("a", "b"):
        held = draw(st.dictionaries(st.integers(0, 4), st.integers(1, 3), max_size=3))
        wish = MapWish("table", entries=tuple(held.items()))
        programs.append(
            ProgramWish(
                name,
                Path(f"{name}.o"),
                draw(st.sampled_from(["00", "11"])) * 32,
                maps=(wish,) if held else (),
            )
        )
    return Deployment("edge", programs=tuple(programs), interfaces=draw(interfaces()))


machines = st.builds(machine, tcx=st.booleans())


def made(observed, planned):
    """The machine once a plan is carried out and written down."""
    return replace(after(observed, planned.changes), stored=planned.commit)


def settled(observed):
    """What can be compared: programs that were loaded and unloaded again have other ids."""
    keys = {number: key for key, number in observed.programs.items()}
    return [
        replace(
            link,
            xdp=Xdp(*(keys.get(one, one) for one in (link.xdp.native, link.xdp.generic, link.xdp.offload))),
            tc=tuple(
                sorted(  # by hook: within one the order counts
                    (replace(one, program_id=keys.get(one.program_id, one.program_id)) for one in link.tc),
                    key=lambda one: one.hook,
                )
            ),
        )
        for link in observed.snapshot.links()
    ]


@given(deployments(), machines)
def test_what_is_as_desired_needs_nothing(desired, observed):
    there = made(observed, plan(desired, observed, OBJECTS))
    again = plan(desired, there, OBJECTS)
    assert again.changes == ()
    assert again.commit.found == there.stored.found
    assert dict(again.commit.entries) == dict(there.stored.entries)


@given(deployments(), deployments(), machines)
def test_from_any_deployment_to_any_other(first, second, observed):
    one = made(observed, plan(first, observed, OBJECTS))
    two = made(one, plan(second, one, OBJECTS))
    assert plan(second, two, OBJECTS).changes == ()


def test_an_order_across_tcx_and_clsact_is_the_kernels():
    """tcx runs first: who asks for another order is not served by putting a program on anew, again and again."""
    observed = machine(tcx=True)

    def wants(*attach):
        programs = tuple(ProgramWish(name, Path(f"{name}.o"), "00" * 32) for name in "ab")
        return Deployment("edge", programs=programs, interfaces=(InterfaceWish(name="v1", attach=attach),))

    first = made(observed, plan(wants(AttachWish("a", "ingress")), observed, OBJECTS))
    both = wants(AttachWish("a", "ingress", order=10), AttachWish("b", "ingress", via="clsact"))
    planned = plan(both, first, OBJECTS)
    assert [one.kind for one in planned.changes] == ["program.load", "tc.attach"]
    assert plan(both, made(first, planned), OBJECTS).changes == ()


@given(deployments(), deployments(), machines)
def test_destroying_brings_back_what_was_found(first, second, observed):
    one = made(observed, plan(first, observed, OBJECTS))
    two = made(one, plan(second, one, OBJECTS))
    gone = made(two, plan(Deployment("edge"), two, {}))
    assert settled(gone) == settled(observed)


@given(deployments(), deployments(), machines)
def test_inverses_lead_back(first, second, observed):
    before = made(observed, plan(first, observed, OBJECTS))
    planned = plan(second, before, OBJECTS)
    there = after(before, planned.changes)
    back = after(there, [one.inverse() for one in reversed(planned.changes)])
    assert settled(back) == settled(before)
    assert {key: one.elements for key, one in back.maps.items()} == {
        key: one.elements for key, one in before.maps.items()
    }
    assert dict(back.programs) == dict(before.programs)


@given(deployments(), machines)
def test_plans_survive_the_journal_and_the_state_file(desired, observed):
    planned = plan(desired, observed, OBJECTS)
    for one in planned.changes:
        assert one.kind in KINDS
        assert one.inverse().kind in KINDS
        assert Change.from_json(one.to_json()) == one
        assert one.inverse().inverse() == one
    assert deployment_from_json(deployment_to_json(desired)) == desired
    assert from_json(to_json(planned.commit)) == planned.commit


def wish(*attach, name="v0", **more):
    return InterfaceWish(name=name, attach=tuple(attach), **more)


def deployment(*interfaces_, **more):
    program = ProgramWish("a", Path("a.o"), "0" * 64)
    return Deployment("edge", programs=(program,), interfaces=tuple(interfaces_), **more)


def refused(desired, observed):
    with pytest.raises(DeploymentError) as caught:
        plan(desired, observed, OBJECTS)
    return [one.message for one in caught.value.errors]


def test_what_is_not_there_is_told_all_at_once():
    desired = deployment(
        wish(AttachWish("a"), name="v9"),
        wish(name="v0", netns="bleu"),
        redirects=(RedirectWish("v0", "nowhere"), RedirectWish("none", "v1")),
    )
    found = refused(desired, machine())
    assert len(found) == 4
    for said in (
        "no such interface: v9",
        "no such network namespace: bleu",
        "redirect to nowhere",
        "redirect from none",
    ):
        assert any(said in one for one in found)


def test_two_entries_that_want_different_things_of_one_link():
    desired = deployment(
        wish(settings=DeviceSettings(mtu=1400)),
        InterfaceWish(match=("v*",), settings=DeviceSettings(mtu=1300)),
    )
    assert ["mtu = 1300 of v0 contradicts 1400" in one for one in refused(desired, machine())] == [True]


def test_two_entries_with_two_programs_for_one_xdp_hook():
    both = Deployment(
        "edge",
        programs=tuple(ProgramWish(name, Path(f"{name}.o"), "0" * 64) for name in "ab"),
        interfaces=(wish(AttachWish("a")), InterfaceWish(match=("v*",), attach=(AttachWish("b"),))),
    )
    assert ["a second program on the XDP hook of v0" in one for one in refused(both, machine())] == [True]


def test_settings_that_a_device_cannot_take_are_told_before_anything_is_planned():
    assert "v0" in refused(deployment(wish(settings=DeviceSettings(rings={"rx": 512}))), machine())[0]


def test_a_foreign_program_stops_the_plan_and_adopt_takes_it_over():
    observed = machine(xdp=Xdp(native=77))
    with pytest.raises(DeploymentError) as caught:
        plan(deployment(wish(AttachWish("a"))), observed, OBJECTS)
    assert caught.value.errors[0].hint == "adopt = true in [deployment] takes it over"
    kinds = [
        one.kind for one in plan(deployment(wish(AttachWish("a")), adopt=True), observed, OBJECTS).changes
    ]
    assert kinds == ["program.keep", "program.load", "xdp.update"]


def test_a_duplicate_of_ours_on_a_tc_hook_goes():
    desired = deployment(wish(AttachWish("a", hook="ingress", via="clsact", order=7)))
    there = made(machine(), plan(desired, machine(), OBJECTS))
    link = there.snapshot.named("v0", HERE)
    twin = TcHook("clsact-ingress", link.tc[0].program_id, "", priority=9, handle=1)
    spaces = tuple(
        replace(
            space,
            links=tuple(replace(one, tc=(*one.tc, twin)) if one.name == "v0" else one for one in space.links),
        )
        for space in there.snapshot.namespaces
    )
    again = plan(desired, replace(there, snapshot=replace(there.snapshot, namespaces=spaces)), OBJECTS)
    assert [(one.kind, one.before["priority"], one.why) for one in again.changes] == [
        ("tc.detach", 9, "it is there twice")
    ]


def story(*, ensure):
    """v0 redirects into v1, whose peer p1 has no NAPI."""
    return deployment(wish(AttachWish("a")), redirects=(RedirectWish("v0", "v1", ensure=ensure),))


def judged_plan(desired, observed):
    found = resolve(desired, OBJECTS, observed.snapshot)
    return judged(of_resolved(found, observed), found, observed, OBJECTS)


def test_a_redirect_that_would_lose_its_frames_is_foreseen():
    failing = judged_plan(story(ensure=False), machine()).failing
    assert [one.id for one in failing] == ["redirect.veth-peer-napi"]


def test_ensure_gives_the_peer_what_it_needs_and_destroy_takes_it_back():
    observed = machine()
    planned = judged_plan(story(ensure=True), observed)
    assert planned.failing == ()
    (gro,) = (one for one in planned.changes if one.kind == "device.features")
    assert (gro.target, gro.netns, dict(gro.after)) == ("p1", "blue", {"rx-gro": True})
    there = made(observed, planned)
    again = judged_plan(story(ensure=True), there)
    assert again.changes == ()
    assert again.commit.found == there.stored.found
    gone = made(there, plan(Deployment("edge"), there, {}))
    assert settled(gone) == settled(observed)


def with_namespace(observed, inode, **more):
    """The same machine, where the namespace with this inode is another one."""
    spaces = tuple(
        replace(one, **more) if one.inode == inode else one for one in observed.snapshot.namespaces
    )
    return replace(observed, snapshot=replace(observed.snapshot, namespaces=spaces))


def test_a_glob_means_namespaces_with_a_name_and_none_that_is_only_seen_through_a_process():
    observed = with_namespace(machine(), BLUE, name=None, pid=77)
    everywhere = deployment(InterfaceWish(match=("*",), netns="*", settings=DeviceSettings(mtu=1400)))
    assert plan(everywhere, observed, OBJECTS).changes == ()
    by_pid = deployment(InterfaceWish(match=("p0",), netns="pid:77", settings=DeviceSettings(mtu=1400)))
    assert [one.target for one in plan(by_pid, observed, OBJECTS).changes] == ["p0"]


@pytest.mark.parametrize(
    "other", [{"name": "blue", "cookie": 6}, {"name": "green", "cookie": None}, {"name": None, "pid": 9}]
)
def test_a_namespace_that_was_given_the_inode_of_a_gone_one_is_left_alone(other):
    observed = with_namespace(machine(), BLUE, cookie=5)
    desired = deployment(wish(name="p0", netns="blue", settings=DeviceSettings(mtu=1400)))
    there = made(observed, plan(desired, observed, OBJECTS))
    assert [one.kind for one in plan(Deployment("edge"), there, {}).changes] == ["device.mtu"]
    assert (
        plan(Deployment("edge"), with_namespace(there, BLUE, **{"cookie": None, **other}), {}).changes == ()
    )


def test_changes_tell_the_very_namespace():
    observed = with_namespace(machine(), BLUE, cookie=5)
    story_there = judged_plan(story(ensure=True), observed)
    placed = {one.kind: one.space for one in story_there.changes if one.ifindex is not None}
    assert placed == {"device.features": (BLUE, 5), "xdp.attach": (HERE, None)}


def test_hardware_takes_a_program_beside_the_drivers():
    both = Deployment(
        "edge",
        programs=tuple(ProgramWish(name, Path(f"{name}.o"), "0" * 64) for name in "ab"),
        interfaces=(wish(AttachWish("a", mode="offload"), AttachWish("b", mode="native")),),
    )
    planned = plan(both, machine(), OBJECTS)
    loads = {
        one.target: (one.ifindex, one.after["offload"])
        for one in planned.changes
        if one.kind == "program.load"
    }
    assert loads == {"a": (10, True), "b": (None, False)}
    assert [one.after["mode"] for one in planned.changes if one.kind == "xdp.attach"] == ["offload", "native"]
    there = made(machine(), planned)
    assert plan(both, there, OBJECTS).changes == ()
    assert settled(made(there, plan(Deployment("edge"), there, {}))) == settled(machine())


@given(deployments(), machines, st.data())
def test_pins_that_somebody_removes_are_made_again_and_what_runs_goes_on(wanted, observed, data):
    try:
        seen = made(observed, plan(wanted, observed, OBJECTS))
    except DeploymentError:
        return  # another test's business
    running = {
        number
        for link in seen.snapshot.links()
        for number in (link.xdp.native, link.xdp.generic, *(one.program_id for one in link.tc))
    }
    gone = data.draw(st.sets(st.sampled_from(sorted(seen.programs)))) if seen.programs else set()
    lost = {key: seen.programs[key] for key in gone if seen.programs[key] in running}
    left = {key: number for key, number in seen.programs.items() if key not in gone}
    broken = replace(seen, programs=left, lost=lost)
    planned = plan(wanted, broken, OBJECTS)
    if set(lost) == gone:
        assert {one.kind for one in planned.changes} <= {"program.pin"}, "nothing but pins is gone"
    assert any(one.kind == "program.pin" for one in planned.changes) == bool(lost)
    healed = made(broken, planned)
    assert healed.lost == {}
    # the older load of what could not be kept whole goes when all is done (collect_garbage)
    assert plan(wanted, healed, OBJECTS).changes == ()
    nothing = plan(Deployment("edge"), broken, {})
    for link in made(broken, nothing).snapshot.links():
        assert (link.xdp.native, link.xdp.generic, link.tc) == (None, None, ()), "destroyed all the same"
