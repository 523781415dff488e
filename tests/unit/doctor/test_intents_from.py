"""Intents from an object made by hand, and from what a snapshot says is attached."""

from pathlib import Path

import pytest

from xdpctl.doctor import intents_from
from xdpctl.doctor.intent import AttachTc, AttachXdp, EmptySlot, Redirect, Transmit, UntoldTarget
from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.host.model import LinkRef, RedirectEntry
from xdpctl.obj.model import ObjFile, ObjMap, ObjProgram, RedirectCall


def program(name="prog", *calls, **more):
    fields = {
        "name": name,
        "section": "xdp",
        "type": "xdp",
        "attach_type": "xdp",
        "type_from": "section",
        "since_libbpf": None,
        "frags": False,
        "sleepable": False,
        "instructions": 4,
        "redirects": calls,
        "returns_tx": False,
    }
    return ObjProgram(**{**fields, **more})


def obj(*programs, maps=()):
    return ObjFile(Path("prog.bpf.o"), 100, "GPL", True, True, True, programs, maps, ())


def devmap(name="ports", pin=None):
    return ObjMap(name, "devmap", 4, 4, 8, 0, "btf", pin)


@pytest.fixture
def host(machine):
    host = machine()
    host.link("eth", None, driver="mlx5_core")
    host.link("out", None, driver="mlx5_core")
    return host


def wish(host, *calls, maps=(), redirect_to=(), more=None, **options):
    one = program("prog", *calls, **(more or {}))
    wanted = intents_from.Wish(obj(one, maps=maps), one, redirect_to=redirect_to, **options)
    return intents_from.from_wish(wanted, host.snapshot(), host.links["eth"])


def test_a_constant_target_is_a_redirect_in_the_same_namespace(host):
    attach, redirect = wish(host, RedirectCall("bpf_redirect", 3, ifindex=11))
    assert isinstance(attach, AttachXdp)
    assert attach.redirects
    assert redirect == Redirect(host.links["eth"].ref, LinkRef(1, 11), "native")


def test_generic_mode_redirects_generically(host):
    assert wish(host, RedirectCall("bpf_redirect", 3, ifindex=11), mode="generic")[1].mode == "generic"


def test_frags_and_metadata_go_into_the_attach(host):
    (attach,) = wish(host, more={"frags": True, "kfuncs": ("bpf_xdp_metadata_rx_hash",)})
    assert attach.frags
    assert attach.bound_ifindex == host.links["eth"].ifindex


def test_a_program_that_may_return_tx_transmits(host):
    _, transmit = wish(host, more={"returns_tx": True})
    assert transmit == Transmit(host.links["eth"].ref, "native")


def test_an_empty_devmap_is_told_with_its_key_and_flags(host):
    _, slot = wish(host, RedirectCall("bpf_redirect_map", 3, map="ports", key=2, flags=0), maps=(devmap(),))
    assert isinstance(slot, EmptySlot)
    assert (slot.map_name, slot.key, slot.flags, slot.promised) == ("ports", 2, 0, False)


def test_a_devmap_that_is_pinned_or_filled_is_nobody_s_empty_slot(host):
    call = RedirectCall("bpf_redirect_map", 3, map="ports", key=2, flags=0)
    assert len(wish(host, call, maps=(devmap(pin="ports"),))) == 1
    assert len(wish(host, call, maps=(devmap(),), filled=frozenset({"ports"}))) == 1


def test_redirect_to_says_what_only_runs_can_know(host):
    call = RedirectCall("bpf_redirect_map", 3, map="ports", flags=0)
    _, redirect = wish(host, call, maps=(devmap(),), redirect_to=("out",))
    assert (redirect.target, redirect.via_map) == (host.links["out"].ref, True)
    with pytest.raises(NotFoundError) as caught:
        wish(host, call, maps=(devmap(),), redirect_to=("ou",))
    assert caught.value.near == ["out"]


def test_a_target_from_elsewhere_is_untold(host):
    _, untold = wish(host, RedirectCall("bpf_redirect", 3, origin="bpf_fib_lookup"))
    assert isinstance(untold, UntoldTarget)
    assert untold.target == "bpf_fib_lookup"
    _, back = wish(host, RedirectCall("bpf_redirect", 3, origin="ctx->ingress_ifindex"))
    assert back.target == host.links["eth"].ref


def test_a_tc_program_is_attached_to_its_hook(host):
    (attach,) = wish(host, more={"type": "sched_cls", "attach_type": None}, hook="egress")
    assert attach == AttachTc(host.links["eth"].ref, "egress", "prog", "tcx", False)


def test_the_program_is_picked_by_name_or_because_it_is_the_only_one():
    one, two = program("one"), program("two")
    entry = program("entry", attach_type="xdp/devmap")
    assert intents_from.pick(obj(one, entry), None) is one
    assert intents_from.pick(obj(one, two), "two") is two
    with pytest.raises(ConfigError, match="several"):
        intents_from.pick(obj(one, two), None)
    with pytest.raises(NotFoundError):
        intents_from.pick(obj(one), "tow")
    with pytest.raises(ObjectError):
        intents_from.pick(obj(program("t", type="tracepoint")), None)


def test_live_redirects_come_from_the_devmaps_of_attached_programs(host):
    host.attach("eth", program=5)
    host.redirects[5] = (
        RedirectEntry(9, "ports", "devmap", 0, 11, None),
        RedirectEntry(9, "cpus", "cpumap", 0, None, None),
    )
    host.redirects[6] = (RedirectEntry(9, "ports", "devmap", 0, 10, None),)
    found = intents_from.live(host.snapshot())
    assert found == [Redirect(host.links["eth"].ref, LinkRef(1, 11), "native", via_map=True)]
    assert intents_from.concerning(host.snapshot(), found, [host.links["out"]]) == found
    assert intents_from.concerning(host.snapshot(), found, [host.links["eth"]]) == found


def test_an_attached_program_with_a_plain_redirect_is_untold(host):
    host.attach("eth", program=5)
    host.calls[5] = True
    (untold,) = intents_from.attached(host.snapshot(), host.links["eth"])
    assert untold.program == "prog"
    host.calls[5] = False
    assert list(intents_from.attached(host.snapshot(), host.links["eth"])) == []
