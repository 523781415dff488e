"""XDP programs go onto interfaces and off again, and bpftool sees the same after every step."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from attachments import HEADER, agree, attach, detach, nothing_left, pins, programs_of, xdp

from xdpctl.attach import status as status_module
from xdpctl.attach.request import MapSetting
from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.bpf.program import program_by_id, run
from xdpctl.bpf.query import maps
from xdpctl.errors import AttachError, ConfigError, MapError, NotFoundError, ObjectError
from xdpctl.libbpf import uapi
from xdpctl.netlink import netns as namespaces

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def passing(compile_c):
    return compile_c(xdp("pass"), "pass")


@pytest.fixture(scope="module")
def dropping(compile_c):
    return compile_c(xdp("drop", "XDP_DROP"), "drop")


@pytest.fixture
def pair(world):
    """A namespace with a veth pair va, vb, both up."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("via", ["link", "netlink"])
def test_bpftool_agrees_after_attach_replace_and_detach(world, pair, passing, dropping, mode, via):
    assert agree(world, pair) == []
    (made,) = attach(passing, "va", netns=pair, mode=mode, via=via)
    (seen,) = agree(world, pair)
    assert (seen["interface"], seen["hook"], seen["mode"], seen["via"]) == ("va", "xdp", mode, via)
    assert (seen["program"]["name"], seen["owner"], seen["netns"]) == ("pass", "xdpctl", pair)
    assert seen["link_id"] == made.link_id
    assert (seen["pin"] is not None) == (via == "link")

    (upgraded,) = attach(dropping, "va", netns=pair, mode=mode, replace=True)
    (seen,) = agree(world, pair)
    assert (seen["program"]["name"], seen["mode"], seen["via"]) == ("drop", mode, via), (
        "replaced where it was"
    )
    assert upgraded.link_id == made.link_id, "the very same link"

    detach("va", netns=pair)
    assert agree(world, pair) == []
    assert nothing_left()


@pytest.mark.shared(4)
def test_several_interfaces_share_one_loaded_object(world, compile_c):
    inside = world.namespace()
    for number in range(3):
        world.veth(f"v{number}", f"w{number}", netns_a=inside, netns_b=inside)
    counting = compile_c(
        HEADER
        + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, int); __type(value, long);
         __uint(max_entries, 1); } hits SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx) { int key = 0; return bpf_map_lookup_elem(&hits, &key) ? XDP_PASS : XDP_DROP; }
"""
    )
    made = attach(counting, "v*", "w1", netns=inside)
    assert sorted(one.interface for one in made) == ["v0", "v1", "v2", "w1"]
    assert len({one.program.id for one in made}) == 1
    assert len(agree(world, inside)) == 4
    detach("*", netns=inside)
    assert nothing_left()


@pytest.mark.shared(4)
def test_when_the_third_of_five_refuses_none_stays(world, passing, dropping):
    inside = world.namespace()
    for number in (0, 1, 3, 4):
        world.veth(f"v{number}", f"w{number}", netns_a=inside, netns_b=inside)
    world.ip("link add br2 type bridge", inside)
    names = ("v0", "v1", "br2", "v3", "v4")
    with pytest.raises(AttachError, match=r"br2.*the 2 interfaces before it are as before") as refused:
        attach(passing, *names, netns=inside)
    assert refused.value.extack == "Underlying driver does not support XDP in native mode"
    assert agree(world, inside) == []
    assert nothing_left()

    attach(passing, "v0", "v1", "v3", "v4", netns=inside)
    before = agree(world, inside)
    with pytest.raises(AttachError):
        attach(dropping, *names, netns=inside, replace=True)
    assert agree(world, inside) == before, "the two that were replaced run their old program again"
    detach("v*", netns=inside)
    assert nothing_left()


def test_a_link_refused_by_the_driver_tells_the_kernel_s_sentence(world, pair, passing):
    world.ip("link set vb mtu 9000", pair)
    with pytest.raises(AttachError) as refused:
        attach(passing, "va", netns=pair)
    assert refused.value.extack == "veth: Peer MTU is too large to set XDP"
    assert "ERANGE" in refused.value.message
    assert "mtu 3506" in refused.value.hint


def test_auto_falls_back_to_generic_and_says_why(world, pair, passing):
    world.ip("link set vb mtu 9000", pair)
    (made,) = attach(passing, "va", netns=pair, mode="auto")
    assert made.mode == "generic"
    assert "Peer MTU is too large" in made.note
    assert agree(world, pair)[0]["mode"] == "generic"
    detach("va", netns=pair)
    world.ip("link set vb mtu 1500", pair)
    (made,) = attach(passing, "va", netns=pair, mode="auto")
    assert (made.mode, made.note) == ("native", None)
    detach("va", netns=pair)


@pytest.mark.shared(4)
def test_the_same_again_is_refused_and_says_how_to_upgrade(world, pair, passing):
    (made,) = attach(passing, "va", netns=pair)
    with pytest.raises(
        AttachError, match=rf"pass \(program {made.program.id}, link {made.link_id}"
    ) as refused:
        attach(passing, "va", netns=pair)
    assert "--replace" in refused.value.hint
    detach("va", netns=pair)


@pytest.mark.parametrize(("there", "asked"), [("generic", "native"), ("native", "generic")])
def test_the_other_mode_is_in_the_way_and_named(world, pair, passing, there, asked):
    attach(passing, "va", netns=pair, mode=there)
    for replace in (False, True):
        with pytest.raises(AttachError, match=f"{there} XDP is active there, pass") as refused:
            attach(passing, "va", netns=pair, mode=asked, replace=replace)
        assert f"xdpctl detach --netns {pair} va --mode {there}" in refused.value.hint
    detach("va", netns=pair)


@pytest.mark.shared(4)
def test_a_detach_in_the_wrong_mode_is_an_error_that_names_the_active_one(world, pair, passing):
    attach(passing, "va", netns=pair)
    with pytest.raises(AttachError, match="nothing in generic mode; active is native: pass"):
        detach("va", netns=pair, mode="generic")
    assert programs_of(pair, "va") == ["pass"]
    detach("va", netns=pair, mode="native")
    with pytest.raises(AttachError, match="has no program"):
        detach("va", netns=pair)


def test_a_foreign_netlink_program_is_spared_until_asked(world, pair, passing, dropping):
    world.ip(f"link set dev va xdpdrv obj {dropping} sec xdp", pair)
    (foreign,) = agree(world, pair)
    assert (foreign["owner"], foreign["via"], foreign["program"]["name"]) == ("other", "netlink", "drop")
    with pytest.raises(
        AttachError, match=rf"drop \(program {foreign['program']['id']}, not attached by"
    ) as refused:
        attach(passing, "va", netns=pair)
    assert "ip link set dev va xdpdrv off" in refused.value.hint
    with pytest.raises(AttachError, match="somebody else"):
        detach("va", netns=pair)
    attach(passing, "va", netns=pair, replace=True)
    (ours,) = agree(world, pair)
    assert (ours["owner"], ours["via"], ours["program"]["name"]) == ("xdpctl", "netlink", "pass")
    detach("va", netns=pair)
    assert nothing_left()


def test_a_foreign_link_is_spared_until_asked_and_then_updated_in_place(world, pair, passing, dropping):
    with Object.open(dropping) as obj:
        obj.load()
        with namespaces.enter(pair):
            link = link_xdp(obj.program("drop").fd, socket.if_nametoindex("va"), uapi.XDP_FLAGS_DRV_MODE)
        with link:
            with pytest.raises(AttachError, match=rf"link {link.id}, not attached by") as refused:
                attach(passing, "va", netns=pair)
            assert f"bpftool link detach id {link.id}" in refused.value.hint
            (made,) = attach(passing, "va", netns=pair, replace=True)
            assert made.link_id == link.id
            assert "made by somebody else" in made.note
            assert agree(world, pair)[0]["owner"] == "xdpctl"
    assert programs_of(pair, "va") == ["pass"], "it stays when its maker goes"
    detach("va", netns=pair)
    assert agree(world, pair) == []
    assert nothing_left()


def test_foreign_programs_are_detached_only_on_request(world, pair, dropping):
    world.ip(f"link set dev va xdpgeneric obj {dropping} sec xdp", pair)
    with pytest.raises(AttachError, match="somebody else"):
        detach("va", netns=pair)
    detach("va", netns=pair, foreign=True)
    assert agree(world, pair) == []


def test_a_dispatcher_is_never_replaced(world, pair, passing, compile_c):
    dispatcher = compile_c(xdp("xdp_dispatcher"))
    world.ip(f"link set dev va xdpdrv obj {dispatcher} sec xdp", pair)
    with pytest.raises(AttachError, match=r"dispatcher of libxdp or bpfman.*never replaced") as refused:
        attach(passing, "va", netns=pair, replace=True)
    assert "xdp-loader unload va --all" in refused.value.hint
    assert programs_of(pair, "va") == ["xdp_dispatcher"]


def test_a_device_that_is_down_takes_programs(world, passing):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside, up=False)
    attach(passing, "va", netns=inside)
    assert agree(world, inside)[0]["mode"] == "native"
    detach("va", netns=inside)


def test_a_renamed_and_moved_device_is_still_ours(world, pair, passing):
    attach(passing, "va", netns=pair)
    other = world.namespace()
    world.ip("link set va down", pair)
    world.ip("link set va name renamed", pair)
    assert agree(world, pair)[0]["owner"] == "xdpctl"
    world.ip(f"link set renamed netns {other}", pair)
    (seen,) = agree(world, other)
    assert (seen["interface"], seen["owner"], seen["via"]) == ("renamed", "xdpctl", "link")
    assert agree(world, pair) == []
    detach("renamed", netns=other)
    assert nothing_left()


def test_the_stale_pin_of_a_device_that_is_gone_is_told_and_removed(world, pair, passing):
    attach(passing, "va", netns=pair)
    world.ip("link del va", pair)
    found = status_module.status(netns=pair)
    assert found.attachments == ()
    assert any("va is gone" in note for note in found.notes)
    done = detach("va", netns=pair)
    assert [path.name.split("-")[1] for path in done.stale] == ["va"]
    assert nothing_left()


@pytest.mark.shared(4)
def test_long_program_names_are_told_in_full(world, pair, compile_c):
    long = compile_c(xdp("a_name_that_is_longer_than_fifteen"))
    attach(long, "va", netns=pair)
    assert programs_of(pair, "va") == ["a_name_that_is_longer_than_fifteen"]
    for record in Path("/run/xdpctl/programs").iterdir():
        record.unlink()
    assert programs_of(pair, "va") == ["a_name_that_is_longer_than_fifteen"], (
        "from its BTF, without our record"
    )
    detach("va", netns=pair)


@pytest.mark.shared(4)
def test_globals_are_set_before_load(world, pair, compile_c):
    source = HEADER + (
        "const volatile __u32 answer = 1; __u32 plain = 2; \n"
        'SEC("xdp") int f(struct xdp_md *c) { return answer == 42 && plain == 7 ? XDP_PASS : XDP_DROP; }\n'
    )
    attach(compile_c(source), "va", netns=pair, settings=("answer=42", "plain=7"))
    program_id = status_module.status(("va",), netns=pair).attachments[0].program.id
    with program_by_id(program_id) as program:
        assert run(program.fd, bytes(64)).retval == 2, "XDP_PASS"
    detach("va", netns=pair)
    with pytest.raises(NotFoundError, match="anser"):
        attach(compile_c(source), "va", netns=pair, settings=("anser=42",))
    with pytest.raises(ConfigError, match="answer"):
        attach(compile_c(source), "va", netns=pair, settings=("answer=4294967296",))


MAPS = (
    HEADER
    + """
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, int); __type(value, long); %s } seen SEC(".maps");
SEC("xdp") int f(struct xdp_md *ctx) { int key = 0; return bpf_map_lookup_elem(&seen, &key) ? XDP_DROP : XDP_PASS; }
"""
)


@pytest.mark.shared(4)
def test_a_map_is_sized_or_taken_from_a_pin(world, pair, compile_c):
    unsized = compile_c(MAPS % "")
    with pytest.raises(MapError, match="seen"):
        attach(unsized, "va", netns=pair)
    attach(unsized, "va", netns=pair, maps=(MapSetting("seen", max_entries=77),))
    world.run("bpftool", "map", "create", "/sys/fs/bpf/mine", "type", "hash", "key", "4", "value", "8",
              "entries", "5", "name", "mine")  # fmt: skip
    attach(unsized, "vb", netns=pair, maps=(MapSetting("seen", pin="mine"),))
    sizes = {}
    for one in status_module.status(netns=pair).attachments:
        with program_by_id(one.program.id) as program:
            ids = program.info().map_ids
        sizes[one.interface] = [found.max_entries for found in maps() if found.id in ids]
    assert sizes == {"va": [77], "vb": [5]}
    with pytest.raises(NotFoundError, match="sen"):
        attach(unsized, "va", netns=pair, replace=True, maps=(MapSetting("sen", max_entries=1),))
    with pytest.raises(NotFoundError, match="nosuch"):
        attach(unsized, "va", netns=pair, replace=True, maps=(MapSetting("seen", pin="nosuch"),))
    detach("va", "vb", netns=pair)
    Path("/sys/fs/bpf/mine").unlink()
    assert nothing_left()


def test_maps_pinned_by_name_live_as_long_as_a_program_uses_them(world, pair, compile_c):
    pinned = compile_c(MAPS % "__uint(max_entries, 4); __uint(pinning, LIBBPF_PIN_BY_NAME);")
    attach(pinned, "va", netns=pair)
    assert Path("/sys/fs/bpf/xdpctl/maps/seen") in pins()
    attach(pinned, "vb", netns=pair)
    detach("va", netns=pair)
    assert Path("/sys/fs/bpf/xdpctl/maps/seen") in pins(), "vb shares it"
    done = detach("vb", netns=pair)
    assert done.map_pins == (Path("/sys/fs/bpf/xdpctl/maps/seen"),)
    assert nothing_left()
    attach(pinned, "va", netns=pair)
    detach("va", netns=pair, keep_maps=True)
    assert pins() == [Path("/sys/fs/bpf/xdpctl/maps/seen")]


@pytest.mark.shared(4)
def test_a_failed_attach_leaves_no_pinned_map(world, pair, compile_c):
    pinned = compile_c(MAPS % "__uint(max_entries, 4); __uint(pinning, LIBBPF_PIN_BY_NAME);")
    with pytest.raises(AttachError):
        attach(pinned, "va", "lo", netns=pair)
    assert nothing_left()


@pytest.mark.shared(4)
def test_sections_of_older_tools_are_recognised_or_asked_about(world, pair, compile_c):
    attach(compile_c(xdp("f", section="xdp/upf")), "va", netns=pair)
    attach(compile_c(xdp("g", section="prog")), "vb", netns=pair, type="xdp")
    assert programs_of(pair, "va") + programs_of(pair, "vb") == ["f", "g"]
    detach("va", "vb", netns=pair)
    with pytest.raises(ObjectError, match="no program for an interface: it has g") as refused:
        attach(compile_c(xdp("g", section="prog")), "va", netns=pair)
    assert "--type xdp" in refused.value.hint
    with pytest.raises(ObjectError, match="runs on an entry of a devmap"):
        attach(compile_c(xdp("h", section="xdp/devmap")), "va", netns=pair, program="h")


@pytest.mark.shared(4)
def test_of_several_programs_one_is_named_and_only_it_is_loaded(world, pair, compile_c):
    # `broken` would not pass the verifier: it reads beyond the context
    several = compile_c(
        xdp("first")
        + 'SEC("xdp") int second(struct xdp_md *ctx) { return XDP_DROP; }\n'
        + 'SEC("xdp") int broken(struct xdp_md *ctx) { return *(volatile int *)((char *)ctx + 4000); }\n'
    )
    with pytest.raises(ConfigError, match=r"first \(SEC xdp\), second \(SEC xdp\), broken"):
        attach(several, "va", netns=pair)
    attach(several, "va", netns=pair, program="second")
    assert programs_of(pair, "va") == ["second"]
    detach("va", netns=pair)


def test_tail_calls_work_as_long_as_the_program_is_attached(world, pair, compile_c):
    source = (
        HEADER
        + """
int callee(struct xdp_md *ctx);
int caller(struct xdp_md *ctx);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(key_size, 4); __uint(max_entries, 2);
         __array(values, int (struct xdp_md *)); } jumps SEC(".maps") =
         { .values = { [0] = (void *)&callee, [1] = (void *)&caller } };
SEC("xdp") int callee(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int caller(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 0); return XDP_PASS; }
SEC("tc") int other(struct __sk_buff *skb) { return 0; }
"""
    )
    obj = compile_c(source)
    attach(obj, "va", "vb", netns=pair, program="caller", via="netlink")

    def verdict(interface):
        (one,) = status_module.status((interface,), netns=pair).attachments
        with program_by_id(one.program.id) as program:
            return run(program.fd, bytes(64)).retval

    time.sleep(0.1)  # the kernel empties an array that nobody holds a little later
    assert verdict("va") == 1, "the callee's XDP_DROP"
    attach(obj, "va", netns=pair, program="caller", replace=True)
    detach("va", netns=pair)
    time.sleep(0.1)
    assert verdict("vb") == 1, "vb runs the first one still"
    assert len(pins()) == 1
    detach("vb", netns=pair)
    assert nothing_left()
