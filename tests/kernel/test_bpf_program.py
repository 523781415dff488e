"""Programs run on frames given to them, and are told apart by type, id and pin."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from xdpctl.bpf import pins, program, query, statistics
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError, NotFoundError, UnsupportedError

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
__u64 runs;
SEC("xdp") int where(struct xdp_md *ctx) { __sync_fetch_and_add(&runs, 1); return ctx->ingress_ifindex & 0xffff; }
SEC("xdp") int swap(struct xdp_md *ctx)
{
	unsigned char *d = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, keep;
	if (d + 14 > end) return XDP_ABORTED;
	keep = d[0]; d[0] = d[6]; d[6] = keep;
	return XDP_TX;
}
SEC("xdp") int shorter(struct xdp_md *ctx) { return bpf_xdp_adjust_head(ctx, 4) ? XDP_ABORTED : XDP_PASS; }
SEC("xdp") int drop(struct xdp_md *ctx) { __sync_fetch_and_add(&runs, 1); return XDP_DROP; }
SEC("tc") int skb(struct __sk_buff *skb) { return skb->ifindex & 0xffff; }
SEC("raw_tp/xdp_exception") int tp(void *ctx) { return 0; }
SEC("xdp") int a_name_longer_than_the_kernel_keeps(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def opened(compile_c):
    with Object.open(compile_c(SOURCE, "programs")) as made:
        made.load()
        yield made


@pytest.fixture
def veth(world):
    a, b = f"a{world.tag}", f"b{world.tag}"
    world.veth(a, b)
    yield socket.if_nametoindex(a)
    world.run("ip", "link", "del", a)


def test_a_run_gives_verdict_frame_and_time(opened):
    frame = bytes(range(64))
    done = opened.programs["swap"].test_run(frame, repeat=5)  # each run goes on with the frame of the last
    assert done.retval == 3
    assert done.data_out == bytes([6, 1, 2, 3, 4, 5, 0]) + frame[7:]
    assert done.duration_ns >= 0


def test_a_frame_that_was_cut_comes_back_shorter(opened):
    assert opened.programs["shorter"].test_run(bytes(range(64))).data_out == bytes(range(4, 64))


@pytest.mark.needs("test_run_context")
def test_a_frame_seems_to_come_in_where_it_is_told_to(opened, veth):
    assert opened.programs["where"].test_run(bytes(64), ifindex=veth).retval == veth
    assert opened.programs["where"].test_run(bytes(64)).retval == socket.if_nametoindex("lo")
    assert opened.programs["skb"].test_run(bytes(64), ifindex=veth).retval == veth


@pytest.mark.needs("test_run_context")
def test_a_context_of_one_s_own_is_taken(opened, veth):
    context = program.XDP_MD.pack(0, 64, 0, veth, 0, 0)
    done = opened.programs["where"].test_run(bytes(64), ctx=context)
    assert done.retval == veth
    assert struct.unpack_from("=I", done.ctx_out, 12) == (veth,)


@pytest.mark.needs("live_frames")
def test_live_frames_run_as_often_as_asked(opened):
    counter = next(one for name, one in opened.maps.items() if name.endswith(".bss"))
    with counter.mapped() as live:
        before = struct.unpack_from("=Q", live)[0]
        done = opened.programs["drop"].test_run(bytes(64), live_frames=True, repeat=100, batch_size=16)
        assert struct.unpack_from("=Q", live)[0] - before == 100
    assert done.data_out == b""


def test_a_frame_larger_than_any_is_refused(opened):
    with pytest.raises(AttachError, match="test run of program where: E"):
        opened.programs["where"].test_run(bytes(2**20))


def test_a_type_that_can_t_be_run_on_a_frame_is_told(opened):
    with pytest.raises((UnsupportedError, AttachError)):
        opened.programs["tp"].test_run(bytes(64))


def test_types_are_those_of_the_section(opened):
    kinds = {name: one.type for name, one in opened.programs.items()}
    assert (kinds["where"], kinds["skb"], kinds["tp"]) == ("xdp", "sched_cls", "raw_tracepoint")


def test_a_loaded_program_is_found_by_its_id_and_pin(opened):
    one = opened.programs["drop"]
    path = pins.root() / "programs" / "drop"
    one.pin(path)
    with program.program_by_id(one.info().id) as by_id:
        assert by_id.info() == one.info()
    with program.LoadedProgram(pins.open_pin(path, "program")) as by_pin:
        assert by_pin.info() == one.info()
    with pytest.raises(NotFoundError, match="no such program: id 4294967295"):
        program.program_by_id(2**32 - 1)


def test_what_the_kernel_says_of_a_program_is_read(opened):
    found = opened.programs["drop"].info()
    assert (found.name, found.type, found.uid, found.gpl_compatible) == ("drop", "xdp", 0, True)
    assert len(found.tag) == 16
    assert found.map_ids == (
        next(one for name, one in opened.maps.items() if name.endswith(".bss")).info().id,
    )
    assert found.btf_id
    assert found.xlated_len % 8 == 0
    assert found.xlated_len > 0
    assert found in list(query.programs())
    assert opened.programs["a_name_longer_than_the_kernel_keeps"].info().name == "a_name_longer_t"


@pytest.mark.alone
def test_runs_are_counted_while_that_is_asked_for(opened):
    one = opened.programs["drop"]
    before = one.info().run_cnt
    with statistics.counting():
        one.test_run(bytes(64), repeat=7)
    assert one.info().run_cnt - before == 7
    assert one.info().run_time_ns > 0
    if Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() == "0":
        counted = one.info().run_cnt
        one.test_run(bytes(64), repeat=7)
        assert one.info().run_cnt == counted


def test_a_program_of_many_maps_tells_all_of_them(compile_c):
    count = 64  # MAX_USED_MAPS
    maps = "".join(
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }"
        f' m{n} SEC(".maps");'
        for n in range(count)
    )
    uses = "".join(f"v = bpf_map_lookup_elem(&m{n}, &k); if (v) sum += *v;" for n in range(count))
    source = (
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        + maps
        + 'SEC("xdp") int p(struct xdp_md *ctx) { __u32 k = 0, sum = 0, *v; '
        + uses
        + " return sum; }"
        + 'char _license[] SEC("license") = "GPL";'
    )
    with Object.open(compile_c(source)) as many:
        many.load()
        assert len(set(many.programs["p"].info().map_ids)) == count


def test_the_instructions_of_a_program_are_read(opened):
    code = query.xlated(opened.programs["drop"].info().id)
    assert len(code) == opened.programs["drop"].info().xlated_len
    assert code[-8] == 0x95  # exit
