"""What is in the way, and what may be replaced: decided without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.attach import conflicts
from xdpctl.attach.clsact import HIGHEST, STEP, priority
from xdpctl.attach.hints import hint
from xdpctl.attach.model import Attachment, ProgramRef
from xdpctl.attach.request import AttachRequest, Position
from xdpctl.attach.strategy import Target
from xdpctl.attach.tcx import order
from xdpctl.bpf.link import Order
from xdpctl.errors import AttachError, ConfigError, NotFoundError


def there(name="theirs", *, hook="xdp", mode="native", via="netlink", owner="other", number=7, **more):
    return Attachment(
        "eth0", 2, None, 1, hook, mode, via, ProgramRef(number, name, "aa"), owner=owner, **more
    )


def target(hook="xdp", mode="native", netns=None):
    return Target("eth0", 2, None, netns, 1, hook, mode)


def request(**more):
    return AttachRequest(object=Path("x.o"), interfaces=("eth0",), **more)


def test_nothing_there_is_nothing_in_the_way():
    assert conflicts.xdp(target(), [], request(), "new") is None


@pytest.mark.parametrize(
    ("old", "hint_"),
    [
        (there(), "ip link set dev eth0 xdpdrv off"),
        (there(mode="generic"), "ip link set dev eth0 xdpgeneric off"),
        (there(via="link", link_id=5), "bpftool link detach id 5"),
        (there(owner="xdpctl", via="link", link_id=5), "xdpctl detach eth0 --mode native"),
    ],
)
def test_what_is_there_is_named_with_the_command_that_clears_it(old, hint_):
    with pytest.raises(AttachError, match="program 7") as refused:
        conflicts.xdp(target(mode=old.mode), [old], request(), "new")
    assert hint_ in refused.value.hint
    assert "--replace" in refused.value.hint
    assert conflicts.xdp(target(mode=old.mode), [old], request(replace=True), "new") is old


def test_commands_run_in_the_namespace_of_the_interface():
    with pytest.raises(AttachError, match="eth0 in namespace blue") as refused:
        conflicts.xdp(target(netns="blue"), [there()], request(), "new")
    assert "ip netns exec blue ip link set dev eth0 xdpdrv off" in refused.value.hint


def test_auto_takes_the_mode_that_is_active():
    old = there(mode="generic", owner="xdpctl")
    assert conflicts.xdp(target(mode="auto"), [old], request(mode="auto", replace=True), "new") is old


def test_an_offloaded_program_is_not_in_the_way_of_a_native_one():
    assert conflicts.xdp(target(), [there(mode="offload")], request(), "new") is None


def test_a_dispatcher_is_spared_with_and_without_replace():
    for replace in (False, True):
        with pytest.raises(AttachError, match="never replaced"):
            conflicts.xdp(target(), [there("xdp_dispatcher")], request(replace=replace), "new")


def test_a_link_does_not_take_the_place_of_a_netlink_program():
    with pytest.raises(AttachError, match="attached by netlink"):
        conflicts.xdp(target(), [there()], request(replace=True, via="link"), "new")


def test_tc_programs_stand_side_by_side():
    hook = target("tcx-ingress", None)
    others = [
        there("a", hook="tcx-ingress", mode=None, via="tcx"),
        there("b", hook="tcx-ingress", owner="xdpctl"),
    ]
    assert conflicts.tc(hook, others, request(), "new") is None
    with pytest.raises(AttachError, match="already"):
        conflicts.tc(hook, others, request(), "b")
    assert conflicts.tc(hook, others, request(), "a") is None, (
        "theirs of the same name is no duplicate of ours"
    )


def test_replace_prefers_the_same_name_and_ours():
    hook = target("tcx-ingress", None)
    theirs, ours = there("a", hook="tcx-ingress"), there("a", hook="tcx-ingress", owner="xdpctl", number=8)
    assert conflicts.tc(hook, [theirs, ours], request(replace=True), "a") is ours
    assert conflicts.tc(hook, [theirs], request(replace=True), "a") is theirs
    assert conflicts.tc(hook, [theirs, ours], request(replace=True), "renamed") is ours
    assert conflicts.tc(hook, [theirs], request(replace=True), "b") is None
    with pytest.raises(ConfigError, match="keeps its place"):
        conflicts.tc(hook, [ours], request(replace=True, position=Position("first")), "a")


def filters(*taken):
    return [there(f"p{one}", hook="clsact-ingress", via="clsact", priority=one) for one in taken]


@pytest.mark.parametrize(
    ("position", "taken", "chosen"),
    [
        (None, (), STEP),
        (None, (100,), 200),
        (None, (HIGHEST - 2,), HIGHEST - 1),
        (Position("first"), (100,), 50),
        (Position("first"), (2,), 1),
        (Position("before", "p300"), (100, 300), 200),
        (Position("after", "p100"), (100, 102), 101),
        (Position("after", "p102"), (100, 102), 202),
    ],
)
def test_a_priority_is_found_between_the_neighbours(position, taken, chosen):
    found = priority(position, taken, filters(*taken), target("clsact-ingress", None))
    assert found == chosen
    assert found not in taken


@pytest.mark.parametrize(
    ("position", "taken"),
    [
        (Position("first"), (1, 5)),
        (None, (HIGHEST,)),
        (Position("before", "p6"), (5, 6)),
        (Position("after", "p5"), (5, 6)),
    ],
)
def test_where_no_priority_is_left_it_says_so(position, taken):
    with pytest.raises(AttachError, match="no priority is left"):
        priority(position, taken, filters(*taken), target("clsact-ingress", None))


def test_orders_are_told_by_link_where_there_is_one():
    hook = target("tcx-ingress", None)
    present = [there("a", number=3, link_id=9), there("b", number=4), there("b", number=5)]
    assert order(None, present, hook) == Order(before=False)
    assert order(Position("first"), present, hook) == Order(before=True)
    assert order(Position("before", "a"), present, hook) == Order(before=True, link_id=9)
    assert order(Position("after", "4"), present, hook) == Order(before=False, program_id=4)
    with pytest.raises(ConfigError, match="2 programs named b"):
        order(Position("after", "b"), present, hook)
    with pytest.raises(NotFoundError, match="no such program: c"):
        order(Position("after", "c"), present, hook)


@pytest.mark.parametrize(
    ("extack", "errno", "part"),
    [
        ("Underlying driver does not support XDP in native mode", 95, "--mode generic"),
        ("veth: Peer MTU is too large to set XDP", 34, "mtu 3506"),
        ("MTU too large for linear frames and XDP prog does not support frags", 22, "xdp.frags"),
        (None, 22, "dmesg"),
        (None, 19, "gone"),
    ],
)
def test_hints_follow_the_kernel_s_sentence(extack, errno, part):
    assert part in hint(AttachError("x", errno=errno, extack=extack), target())


def test_an_unknown_refusal_gets_no_made_up_hint():
    assert hint(AttachError("x", errno=22, extack="something nobody has seen"), target()) is None
    assert hint(AttachError("x", errno=22), target("tcx-ingress", None)) is None
