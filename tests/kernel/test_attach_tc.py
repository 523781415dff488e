"""TC programs stand side by side in an order, on tcx and on clsact, and are upgraded where they stand."""

from __future__ import annotations

import pytest
from attachments import HEADER, agree, attach, detach, nothing_left, programs_of, tc
from kernels import TCX

from xdpctl.attach import status as status_module
from xdpctl.attach.request import Position
from xdpctl.errors import AttachError, ConfigError, NotFoundError, UnsupportedError

pytestmark = pytest.mark.kernel

VIAS = ("tcx", "clsact") if TCX else ("clsact",)
HOOKS = [(via, hook) for via in VIAS for hook in ("ingress", "egress")]
DEFAULT = VIAS[0]
"""Where a TC program goes when nobody says."""


@pytest.fixture(scope="module")
def three(compile_c):
    return compile_c(tc("red", "green", "blue"), "three")


@pytest.fixture
def pair(world):
    """A namespace with a veth pair va, vb, both up."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


@pytest.mark.parametrize(("via", "hook"), HOOKS)
def test_bpftool_agrees_after_attach_replace_and_detach(world, pair, three, via, hook):
    (made,) = attach(three, "va", netns=pair, program="red", hook=hook, via=via)
    (seen,) = agree(world, pair)
    assert (seen["hook"], seen["via"], seen["mode"], seen["owner"]) == (f"{via}-{hook}", via, None, "xdpctl")
    assert (seen["program"]["name"], seen["link_id"], seen["priority"]) == (
        "red",
        made.link_id,
        made.priority,
    )

    (upgraded,) = attach(three, "va", netns=pair, program="red", hook=hook, via=via, replace=True)
    (seen,) = agree(world, pair)
    assert seen["program"]["id"] == upgraded.program.id != made.program.id
    assert (upgraded.link_id, upgraded.priority) == (made.link_id, made.priority), "where it stood"

    detach("va", netns=pair)
    assert agree(world, pair) == []
    assert nothing_left()
    assert "clsact" not in world.run("tc", "qdisc", "show", "dev", "va", netns=pair).stdout


@pytest.mark.parametrize(("via", "hook"), HOOKS)
def test_programs_stand_in_the_order_that_was_asked(world, pair, three, via, hook):
    def put(name, position=None):
        attach(three, "va", netns=pair, program=name, hook=hook, via=via, position=position)

    put("red")
    put("green")
    assert programs_of(pair, "va") == ["red", "green"], "last by default"
    put("blue", Position("first"))
    assert programs_of(pair, "va") == ["blue", "red", "green"]
    detach("va", netns=pair, program="blue")
    put("blue", Position("before", "green"))
    assert programs_of(pair, "va") == ["red", "blue", "green"]
    detach("va", netns=pair, program="blue")
    red = status_module.status(("va",), netns=pair).attachments[0].program.id
    put("blue", Position("after", str(red)))
    assert programs_of(pair, "va") == ["red", "blue", "green"]
    agree(world, pair)
    with pytest.raises(ConfigError, match="keeps its place"):
        attach(
            three,
            "va",
            netns=pair,
            program="red",
            hook=hook,
            via=via,
            replace=True,
            position=Position("last"),
        )
    detach("va", netns=pair, program="blue")
    with pytest.raises(NotFoundError, match=f"no such program: gren.*{via}-{hook}") as refused:
        attach(
            three, "va", netns=pair, program="blue", hook=hook, via=via, position=Position("before", "gren")
        )
    assert "green" in refused.value.hint
    detach("va", netns=pair, all=True)
    assert nothing_left()


def test_the_same_program_twice_is_refused(world, pair, three):
    attach(three, "va", netns=pair, program="red", hook="ingress")
    with pytest.raises(
        AttachError, match=rf"red is on {DEFAULT}-ingress of va in namespace .* already"
    ) as refused:
        attach(three, "va", netns=pair, program="red", hook="ingress")
    assert "--replace" in refused.value.hint
    attach(three, "va", netns=pair, program="red", hook="egress")
    assert len(agree(world, pair)) == 2
    with pytest.raises(AttachError, match="2 programs that could be meant"):
        detach("va", netns=pair)
    detach("va", netns=pair, hook="ingress")
    assert [one["hook"] for one in agree(world, pair)] == [f"{DEFAULT}-egress"]
    detach("va", netns=pair)


def test_replace_means_the_program_of_that_name_or_the_only_one_of_ours(world, pair, three):
    attach(three, "va", netns=pair, program="red", hook="ingress")
    attach(three, "va", netns=pair, program="green", hook="ingress", replace=True)
    assert programs_of(pair, "va") == ["green"], "an upgrade may bring a new name"
    attach(three, "va", netns=pair, program="red", hook="ingress")
    with pytest.raises(AttachError, match="several programs that --replace could mean"):
        attach(three, "va", netns=pair, program="blue", hook="ingress", replace=True)
    attach(three, "va", netns=pair, program="green", hook="ingress", replace=True)
    assert programs_of(pair, "va") == ["green", "red"]
    detach("va", netns=pair, all=True)


def test_what_others_put_on_clsact_stays(world, pair, three):
    world.run("tc", "qdisc", "add", "dev", "va", "clsact", netns=pair)
    world.run(
        "tc",
        "filter",
        "add",
        "dev",
        "va",
        "ingress",
        "pref",
        "7",
        "protocol",
        "ip",
        "u32",
        "match",
        "u32",
        "0",
        "0",
        netns=pair,
    )
    world.run(
        "tc", "filter", "add", "dev", "va", "ingress", "pref", "300", "bpf", "da", "obj", str(three), "sec", "tc",
        netns=pair,
    )  # fmt: skip
    (foreign,) = agree(world, pair)
    assert (foreign["owner"], foreign["priority"]) == ("other", 300)
    (made,) = attach(three, "va", netns=pair, program="blue", hook="ingress", via="clsact")
    assert made.priority > 300, "last"
    assert [one["owner"] for one in agree(world, pair)] == ["other", "xdpctl"]
    detach("va", netns=pair)
    filters = world.run("tc", "filter", "show", "dev", "va", "ingress", netns=pair).stdout
    assert "u32" in filters
    assert "pref 300 bpf" in filters
    with pytest.raises(AttachError, match="somebody else") as refused:
        detach("va", netns=pair)
    assert "tc filter del dev va ingress pref 300" in refused.value.hint


def test_clsact_of_our_making_goes_with_the_last_of_our_programs_unless_others_use_it(world, pair, three):
    attach(three, "va", netns=pair, program="red", hook="ingress", via="clsact")
    attach(three, "va", netns=pair, program="green", hook="egress", via="clsact")
    detach("va", netns=pair, program="red")
    assert "clsact" in world.run("tc", "qdisc", "show", "dev", "va", netns=pair).stdout
    world.run(
        "tc",
        "filter",
        "add",
        "dev",
        "va",
        "ingress",
        "pref",
        "7",
        "protocol",
        "ip",
        "u32",
        "match",
        "u32",
        "0",
        "0",
        netns=pair,
    )
    detach("va", netns=pair, program="green")
    assert "u32" in world.run("tc", "filter", "show", "dev", "va", "ingress", netns=pair).stdout
    assert nothing_left()


def test_when_one_interface_refuses_none_stays(world, pair, three):
    attach(three, "vb", netns=pair, program="red", hook="ingress")
    before = agree(world, pair)
    for via in VIAS:
        with pytest.raises((AttachError, NotFoundError)):
            # vb has no `nosuch` to go before, so the whole request is refused before anything is done
            attach(three, "va", "vb", netns=pair, program="blue", hook="ingress", via=via,
                   position=Position("before", "red"))  # fmt: skip
        assert agree(world, pair) == before
    detach("vb", netns=pair)
    assert nothing_left()


def test_a_section_tells_the_direction_and_the_user_may_overrule_it(world, pair, compile_c):
    obj = compile_c(tc("f", section="tc/egress"))
    attach(obj, "va", netns=pair)
    attach(obj, "vb", netns=pair, hook="ingress")
    assert {(one["interface"], one["hook"]) for one in agree(world, pair)} == {
        ("va", f"{DEFAULT}-egress"),
        ("vb", f"{DEFAULT}-ingress"),
    }
    detach("v*", netns=pair)
    with pytest.raises(ConfigError, match="ingress or egress"):
        attach(compile_c(tc("g")), "va", netns=pair)


def test_options_of_xdp_and_of_tc_exclude_each_other(world, pair, three, compile_c):
    with pytest.raises(ConfigError, match="--hook ingress is for TC programs, --mode generic for XDP"):
        attach(three, "va", netns=pair, hook="ingress", mode="generic")
    both = compile_c(tc("shape") + 'SEC("xdp") int filter(struct xdp_md *ctx) { return XDP_PASS; }\n')
    attach(both, "va", netns=pair, mode="native")
    attach(both, "va", netns=pair, hook="ingress")
    assert [(one["hook"], one["program"]["name"]) for one in agree(world, pair)] == [
        ("xdp", "filter"),
        (f"{DEFAULT}-ingress", "shape"),
    ]
    detach("va", netns=pair, all=True)
    assert nothing_left()


def test_tcx_on_a_kernel_without_it_is_refused_in_words(pair, three):
    if TCX:
        (made,) = attach(three, "va", netns=pair, program="red", hook="ingress")
        assert made.via == "tcx"
        detach("va", netns=pair)
        return
    with pytest.raises(UnsupportedError, match=r"tcx needs Linux 6\.6") as refused:
        attach(three, "va", netns=pair, program="red", hook="ingress", via="tcx")
    assert refused.value.hint == "--via clsact"
    assert nothing_left()


def test_a_tc_program_is_not_taken_for_xdp(pair, compile_c):
    obj = compile_c(HEADER + 'SEC("tc") int f(struct __sk_buff *skb) { return 0; }\n')
    with pytest.raises(ConfigError, match="program f is a TC program, which --mode native is not for"):
        attach(obj, "va", netns=pair, mode="native", program="f")
