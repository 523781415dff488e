"""A skeleton through its life on a real kernel: variables that programs see, attachments as long as they say."""

from __future__ import annotations

import gc
import warnings

import pytest
from kernels import RELEASE

from xdpctl import Skeleton
from xdpctl.bpf import features, net, pins
from xdpctl.errors import AttachError, ConfigError, NotFoundError, UnsupportedError, VerifierError

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
struct config { __u32 limit; __u8 mac[6]; __s16 delta; };
struct seen { __u64 packets, bytes; };
enum verdict { ABORT = 0, DROP = 1, PASS = 2 };
const volatile enum verdict verdict = PASS;
const volatile __u16 ports[3];
struct config config = { .limit = 5 };
__u64 seen;
struct seen last;
static volatile __u32 hidden = 77;
char label[16] SEC(".data.labels") = "first";
const volatile char motto[8] SEC(".rodata.words") = "hi";
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, struct seen); __uint(max_entries, 4);
} stats SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx) {
    __u32 key = 0;
    struct seen *one = bpf_map_lookup_elem(&stats, &key);
    seen += config.limit; last.packets = seen; last.bytes = hidden + ports[1] + label[0] + motto[0];
    if (one) one->packets++;
    return verdict;
}
SEC("xdp") int other(struct xdp_md *ctx) { return PASS; }
SEC("tc") int classify(struct __sk_buff *skb) { return 0; }
SEC("tracepoint/xdp/xdp_exception") int traced(void *ctx) { return 0; }
SEC("raw_tp/xdp_exception") int raw(void *ctx) { return 0; }
char _license[] SEC("license") = "GPL";
"""
FRAME = bytes(64)


@pytest.fixture(scope="module")
def obj(compile_c):
    return compile_c(SOURCE, "life")


@pytest.fixture
def skel(obj):
    with Skeleton.open(obj) as made:
        yield made


def test_the_example_of_the_documentation(obj, world):
    netns = world.namespace()
    world.veth("va", "vb", netns_a=netns, netns_b=netns)
    with Skeleton.open(obj) as skel:
        skel.rodata.verdict = "PASS"
        skel.maps.stats.max_entries = 128
        skel.load()
        skel.maps.stats[0] = {"packets": 7}
        with skel.progs.count.attach("va", mode="native", netns=netns) as link:
            skel.progs.count.test_run(FRAME)
            assert skel.bss.seen >= 5
            assert skel.maps.stats[0].packets >= 8
            path = link.pin("edge/a")
            assert path == pins.root() / "edge" / "a"
        assert path.exists()
        assert skel.maps.stats.info().max_entries == 128
    pins.unpin(path)


def test_what_is_set_before_load_is_what_the_program_sees(skel):
    skel.rodata.verdict = 1
    skel.rodata.ports = [1, 2000]
    skel.data.config = {"limit": 9, "mac": b"\1\2\3\4\5\6", "delta": -1}
    skel.data_labels.label = "A"
    skel.bss.seen = 100
    skel.load()
    assert skel.progs.count.test_run(FRAME).retval == 1
    assert skel.bss.seen == 109
    assert skel.bss.last.bytes == 77 + 2000 + ord("A") + ord("h")
    assert skel.rodata_words.motto == "hi"
    assert skel.data.config.delta == -1


def test_variables_stay_the_programs_own_after_load(skel):
    bss, config = skel.bss, skel.data.config  # taken before load
    skel.load()
    skel.progs.count.test_run(FRAME)
    assert (bss.seen, bss.last.packets) == (5, 5)
    config.limit = 1 << 20
    bss.seen = 1 << 40
    skel.data_labels.label = "Z"
    skel.progs.count.test_run(FRAME)
    assert bss.seen == (1 << 40) + (1 << 20)
    assert bss.last.bytes == 77 + ord("Z") + ord("h")


def test_constants_can_be_read_but_not_set_after_load(skel):
    rodata = skel.rodata
    skel.load()
    assert rodata.verdict == 2
    for change in (lambda: setattr(rodata, "verdict", 1), lambda: rodata.ports.__setitem__(0, 1)):
        with pytest.raises(ConfigError, match="constant since the load"):
            change()


def test_static_variables_have_their_place(skel):
    assert skel.data.hidden == 77
    skel.data.hidden = 0
    skel.load()
    skel.progs.count.test_run(FRAME)
    assert skel.bss.last.bytes == ord("f") + ord("h")


@pytest.mark.parametrize(
    ("ask", "hint"),
    [
        (lambda skel: skel.rodatta, "rodata"),
        (lambda skel: skel.stats, "skel.maps.stats"),
        (lambda skel: skel.count, "skel.progs.count"),
        (lambda skel: skel.seen, "skel.bss.seen"),
        (lambda skel: skel.bss.sene, "seen"),
        (lambda skel: skel.maps.stat, "stats"),
        (lambda skel: skel.progs.cuont, "count"),
        (lambda skel: setattr(skel.data.config, "limits", 1), "limit"),
    ],
)
def test_a_name_that_is_not_there_suggests_one_that_is(skel, ask, hint):
    with pytest.raises(AttributeError) as told:
        ask(skel)
    assert isinstance(told.value, NotFoundError)
    assert hint in told.value.hint


def test_a_call_in_the_wrong_state_says_what_to_do(obj, skel):
    with pytest.raises(ConfigError, match="is not loaded yet") as told:
        skel.progs.count.attach("eth0")
    assert told.value.hint == "call load() first"
    with pytest.raises(ConfigError, match="not loaded"):
        skel.progs.count.test_run(FRAME)
    skel.load()
    with pytest.raises(ConfigError, match="is loaded already"):
        skel.load()
    with pytest.raises(ConfigError, match="loaded"):
        skel.progs.count.autoload = False
    with pytest.raises(ConfigError):
        skel.maps.stats.max_entries = 9
    program, bss = skel.progs.count, skel.bss
    skel.close()
    skel.close()
    for use in (skel.load, lambda: skel.bss, lambda: bss.seen, lambda: skel.progs.raw, program.info,
                lambda: program.attach("eth0")):  # fmt: skip
        with pytest.raises(ConfigError, match="closed"):
            use()
    assert repr(skel).endswith("closed>")


def test_a_program_that_the_verifier_refuses_leaves_only_close(compile_c):
    bad = compile_c(
        "#include <linux/bpf.h>\n#include <linux/types.h>\n#include <bpf/bpf_helpers.h>\n__u32 x;\n"
        'SEC("xdp") int bad(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }\n'
        'char _license[] SEC("license") = "GPL";\n',
        "refused",
    )
    with Skeleton.open(bad) as skel:
        with pytest.raises(VerifierError):
            skel.load()
        assert skel.state == "failed"
        with pytest.raises(ConfigError, match="failed to load"):
            skel.load()
        with pytest.raises(ConfigError, match="failed to load"):
            skel.progs.bad.attach("lo")


def test_a_program_that_is_left_out_can_not_be_attached(skel):
    skel.progs.raw.autoload = False
    skel.load()
    with pytest.raises(ConfigError, match="left out"):
        skel.progs.raw.attach()


def test_programs_offer_what_their_type_can_do(skel):
    names = {name: type(skel.progs[name]).__name__ for name in skel.progs}
    assert names == {"count": "XdpProgram", "other": "XdpProgram", "classify": "TcProgram",
                     "traced": "TracingProgram", "raw": "TracingProgram"}  # fmt: skip
    assert not hasattr(skel.progs.count, "attach_tcx")
    with pytest.raises(ConfigError, match="no such XDP mode: fast"):
        skel.progs.count.attach("lo", mode="fast")


def attached(ifindex: int, netns: str) -> str:
    from xdpctl.netlink import netns as namespaces

    with namespaces.enter(netns):
        return net.xdp_query(ifindex).mode


def pair(world) -> tuple[str, int]:
    from xdpctl.netlink import interfaces
    from xdpctl.netlink import netns as namespaces

    netns = world.namespace()
    world.veth("va", "vb", netns_a=netns, netns_b=netns)
    with namespaces.enter(netns):
        return netns, interfaces.ifindex("va")


def test_xdp_attaches_by_name_or_ifindex_in_any_mode_and_is_off_when_its_block_ends(skel, world):
    netns, ifindex = pair(world)
    skel.load()
    for which, mode in (("va", "native"), (ifindex, "generic"), ("va", "auto")):
        with skel.progs.count.attach(which, mode=mode, netns=netns) as link:
            assert attached(ifindex, netns) == link.mode == mode.replace("auto", "native")
            assert link.note is None
            assert link.info().ifindex == ifindex
        assert attached(ifindex, netns) == "none"
        assert skel.links == ()
    with pytest.raises(ConfigError, match="not attached"):
        link.detach()


def test_a_refusal_keeps_the_kernels_own_words(skel, world):
    netns, _ = pair(world)
    skel.load()
    with skel.progs.count.attach("va", netns=netns), pytest.raises(AttachError) as told:
        skel.progs.other.attach("va", netns=netns)
    assert told.value.errno is not None
    # a tracepoint tells it since Linux 6.6 (bpf_xdp_link_attach_failed); before, a link's extack is lost
    assert bool(told.value.extack) == (RELEASE >= (6, 6))
    with pytest.raises(NotFoundError):
        skel.progs.count.attach("nothing", netns=netns)
    with pytest.raises(AttachError):
        skel.progs.count.attach("va", mode="offload", netns=netns)


def test_an_update_puts_another_program_in_its_place(skel, world):
    netns, _ = pair(world)
    skel.load()
    with skel.progs.count.attach("va", netns=netns) as link:
        before = link.info().program_id
        link.update(skel.progs.other)
        assert (link.program, link.info().program_id) == ("other", skel.progs.other.id)
        assert before == skel.progs.count.id


def test_a_pinned_link_outlives_the_skeleton_and_nothing_else_does(obj, world):
    netns, ifindex = pair(world)
    with Skeleton.open(obj) as skel:
        skel.load()
        link = skel.progs.count.attach("va", netns=netns)
        for wrong in ("../up", "a/../b", "", "dots.are.refused"):
            with pytest.raises(ConfigError, match="can't be the name of a pin"):
                link.pin(wrong)
        path = link.pin("edge/a")
        with pytest.raises(AttachError, match="pinned already"):
            link.pin("edge/b")
    assert attached(ifindex, netns) == "native"
    from xdpctl.bpf.link import open_link

    with open_link(path) as again:
        again.detach()
    pins.unpin(path)
    assert attached(ifindex, netns) == "none"
    with Skeleton.open(obj) as skel:
        skel.load()
        skel.progs.count.attach("va", netns=netns)
    assert attached(ifindex, netns) == "none"


def test_detach_removes_the_pin_too(skel, world):
    netns, ifindex = pair(world)
    skel.load()
    link = skel.progs.count.attach("va", netns=netns)
    path = link.pin("edge/a")
    link.detach()
    assert not path.exists()
    assert attached(ifindex, netns) == "none"


def test_a_forgotten_skeleton_warns_and_nothing_is_detached(obj, world):
    netns, ifindex = pair(world)
    skel = Skeleton.open(obj)
    skel.load()
    skel.progs.count.attach("va", netns=netns)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del skel
        gc.collect()
    told = [str(one.message) for one in said if one.category is ResourceWarning]
    assert any("was never closed" in one for one in told)
    assert any("count stays attached to xdp of va" in one for one in told)
    assert attached(ifindex, netns) == "native"
    with net_in(netns):
        net_detach(ifindex)


def net_in(netns):
    from xdpctl.netlink import netns as namespaces

    return namespaces.enter(netns)


def net_detach(ifindex: int) -> None:
    """End it through a descriptor of our own, found by id: nobody else holds it.

    Links don't tell their namespace, and every namespace may have a device of this index: the program tells.
    """
    from xdpctl.bpf import query
    from xdpctl.bpf.link import open_link

    program = net.xdp_query(ifindex).native_id
    for one in query.links():
        if one.type == "xdp" and (one.ifindex, one.program_id) == (ifindex, program):
            with open_link(one.id) as link:
                link.detach()


def test_a_view_keeps_what_it_lies_over_alive(obj):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        data = Skeleton.open(obj).data
        gc.collect()
        data.config.limit = 9
        assert data.config.limit == 9


def test_tc_attaches_to_clsact_and_where_the_kernel_has_it_to_tcx(skel, world):
    netns, ifindex = pair(world)
    skel.load()
    program = skel.progs.classify
    with pytest.raises(ConfigError, match="tells no direction"):
        program.attach("va", netns=netns)
    with program.attach_clsact("va", "ingress", priority=7, netns=netns) as link, net_in(netns):
        assert net.tc_query(ifindex, "ingress", priority=7, handle=1).program_id == program.id
        with pytest.raises(UnsupportedError, match="bpf_link"):
            link.pin("edge/a")
    with net_in(netns):
        assert net.tc_query(ifindex, "ingress", priority=7, handle=1) is None
    with program.attach("va", "egress", netns=netns) as link:
        assert link.via == ("link" if features.probe("tcx") else "clsact")
    if features.probe("tcx"):
        with program.attach_tcx("va", "ingress", netns=netns) as link:
            assert link.info().program_id == program.id
    else:
        with pytest.raises(UnsupportedError, match="tcx"):
            program.attach_tcx("va", "ingress", netns=netns)
    expected = (AttachError,) if features.probe("netkit") else (UnsupportedError, AttachError)
    with pytest.raises(expected):
        program.attach_netkit("va", netns=netns)


def test_tracing_programs_attach_where_their_section_says(skel):
    skel.load()
    with skel.progs.raw.attach() as link:
        assert link.info().program_id == skel.progs.raw.id
        with pytest.raises(UnsupportedError):
            link.update(skel.progs.raw)
    with skel.progs.traced.attach() as link:
        assert link.attached
    assert not link.attached


def test_an_interface_that_goes_away_ends_its_link_quietly(skel, world):
    netns, _ = pair(world)
    skel.load()
    with skel.progs.count.attach("va", netns=netns):
        world.ip("link del va", netns=netns)


def test_types_make_values_for_maps_and_variables(skel):
    skel.load()
    skel.maps.stats[1] = skel.types.seen(packets=3, bytes=4)
    assert (skel.maps.stats[1].packets, skel.maps.stats[1].bytes) == (3, 4)
    with pytest.raises(AttributeError, match="no such struct"):
        skel.types.sene  # noqa: B018


def test_maps_marked_for_pinning_are_pinned_where_it_is_asked(compile_c):
    path = compile_c(
        "#include <linux/bpf.h>\n#include <linux/types.h>\n#include <bpf/bpf_helpers.h>\n"
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u32);"
        " __uint(max_entries, 1);"
        ' __uint(pinning, LIBBPF_PIN_BY_NAME); } kept SEC(".maps");\n'
        'SEC("xdp") int p(struct xdp_md *ctx) { __u32 k = 0; bpf_map_lookup_elem(&kept, &k); return 2; }\n'
        'char _license[] SEC("license") = "GPL";\n',
        "pinned",
    )
    with Skeleton.open(path) as skel:
        skel.load()
    assert not (pins.root() / "edge").exists()
    with Skeleton.open(path, pin_maps="edge") as skel:
        skel.load()
        skel.maps.kept[0] = 7
    with Skeleton.open(path, pin_maps="edge") as skel:
        skel.load()
        assert skel.maps.kept[0] == 7
    pins.unpin(pins.root() / "edge" / "kept")


def test_a_section_that_libbpf_does_not_know_gets_a_type(compile_c):
    path = compile_c(
        "#include <linux/bpf.h>\n#include <linux/types.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("mine") int odd(struct xdp_md *ctx) { return 2; }\n'
        'SEC("tcx/ingress") int newer(struct __sk_buff *ctx) { return 0; }\nchar _license[] SEC("license") = "GPL";\n',
        "odd",
    )
    with Skeleton.open(path, program_types={"odd": "xdp"}) as skel:
        assert type(skel.progs.newer).__name__ == "TcProgram"
        if not features.probe("tcx"):
            skel.progs.newer.autoload = False  # its attach type is newer than the kernel
        skel.load()
        assert skel.progs.odd.test_run(FRAME).retval == 2
    with pytest.raises(NotFoundError, match="program type"):
        Skeleton.open(path, program_types={"odd": "xpd"})


def test_types_come_from_the_kernel_its_modules_and_loaded_maps(skel):
    from xdpctl.bpf import btf_id
    from xdpctl.btf import kernel
    from xdpctl.btf.layout import layout
    from xdpctl.btf.parse import STRUCT

    if features.probe("btf"):
        found = kernel.vmlinux().find("xdp_md", STRUCT)
        assert layout(kernel.vmlinux(), found.id).fields["ingress_ifindex"].offset == 12
        for name in kernel.modules()[:3]:
            split = kernel.module(name)
            assert split.base is kernel.vmlinux()
            assert all(one.id >= split.base.end for one in split)
        with pytest.raises(NotFoundError):
            kernel.module("no_such_module")
    else:
        with pytest.raises(UnsupportedError):
            kernel.vmlinux()
    skel.load()
    types = btf_id.of_map(skel.maps.stats.info())
    assert list(layout(types.btf, types.value_type_id).fields) == ["packets", "bytes"]
