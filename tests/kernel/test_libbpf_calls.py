"""Namespaces, ring buffers and raw system calls work as libbpf's room says."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import pytest

from xdpctl.bpf import load
from xdpctl.bpf.object import Object
from xdpctl.libbpf import libc, ring, syscalls, uapi
from xdpctl.libbpf.library import CallError

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } perf SEC(".maps");
__u64 number;
SEC("xdp") int send(struct xdp_md *ctx)
{
	__u64 one = number++;
	bpf_ringbuf_output(&ring, &one, sizeof(one), 0);
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &one, sizeof(one));
	return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def sender(compile_c):
    with Object.open(compile_c(SOURCE, "ring")) as opened:
        opened.load()
        yield opened


def test_records_of_a_ring_buffer_come_in_order(sender):
    with ring.RingBuffer(sender.maps["ring"].fd) as records:
        assert records.poll(0) == []
        sender.programs["send"].test_run(bytes(64), repeat=5)
        assert [struct.unpack("=Q", one)[0] for one in records.poll(100)] == [0, 1, 2, 3, 4]
        assert records.poll(0) == []
    with pytest.raises(CallError):
        records.poll(0)


@pytest.fixture
def one_cpu():
    """Stay on one CPU: what a CPU's buffer lost is told when that CPU writes again."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_cpu")
def test_records_of_a_perf_buffer_come_with_their_cpu(sender):
    with ring.PerfBuffer(sender.maps["perf"].fd, pages=1) as records:
        sender.programs["send"].test_run(bytes(64), repeat=3)
        found = records.poll(100)
        assert [struct.unpack_from("=Q", data)[0] for _, data in found] == [0, 1, 2]
        assert all(0 <= cpu < os.cpu_count() for cpu, _ in found)
        sender.programs["send"].test_run(bytes(64), repeat=1000)
        records.poll(100)
        sender.programs["send"].test_run(bytes(64))
        records.poll(100)
        assert records.lost > 0


def test_a_map_of_another_type_is_no_ring_buffer():
    fd = load.array(8)
    try:
        with pytest.raises(CallError):
            ring.RingBuffer(fd)
    finally:
        os.close(fd)


def namespace():
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_a_thread_enters_a_namespace_alone_and_comes_back(world):
    name = world.namespace()
    home, seen = namespace(), []

    def work():
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            libc.setns(other, libc.CLONE_NEWNET)
            seen.append(namespace())
            libc.setns(own, libc.CLONE_NEWNET)
            seen.append(namespace())
        finally:
            os.close(own)
            os.close(other)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert seen[0] != home
    assert seen[1] == namespace() == home


def test_a_filesystem_is_mounted_and_unmounted(tmp_path):
    libc.mount("bpf", str(tmp_path), "bpf")
    try:
        assert f" {tmp_path} bpf " in Path("/proc/mounts").read_text()
    finally:
        libc.umount(str(tmp_path))
    assert f" {tmp_path} bpf " not in Path("/proc/mounts").read_text()


def test_a_refused_call_names_what_it_was_about(tmp_path):
    with pytest.raises(OSError, match="No such device") as caught:
        libc.mount("none", str(tmp_path), "nosuchfilesystem")
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        libc.umount(str(tmp_path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        libc.setns(-1)


@pytest.mark.needs("tcx")
def test_the_raw_system_call_answers_as_libbpf_does():
    attr = syscalls.QueryAttr(target_fd=999999, attach_type=uapi.TCX_INGRESS)
    with pytest.raises(CallError) as caught:
        syscalls.bpf(syscalls.BPF_PROG_QUERY, attr)
    assert (caught.value.function, caught.value.errno) == ("bpf", 19)  # ENODEV
