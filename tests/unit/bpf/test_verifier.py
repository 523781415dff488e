"""The telling line of a verifier log is found, and the C line it belongs to; whatever the log, nothing raises."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.bpf import verifier

NULL = """\
0: R1=ctx() R10=fp0
; SEC("xdp") int p(struct xdp_md *c){ __u32 k=1; __u64 *v = bpf_map_lookup_elem(&m,&k); @ nullmap.bpf.c:5
0: (b7) r1 = 1                        ; R1=1
1: (63) *(u32 *)(r10 -4) = r1         ; R1=1 R10=fp0 fp-8=1???????
5: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=m,ks=4,vs=8)
;  return *v; } @ nullmap.bpf.c:6
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
LOOP = """\
; while (1) { x++; if (x == -1) break; } @ loop.bpf.c:5
2: (61) r1 = *(u32 *)(r10 -4)         ; R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R10=fp0
6: (56) if w1 != 0xffffffff goto pc-5 ; while (1) { x++; if (x == -1) break; } @ loop.bpf.c:5
infinite loop detected at insn 2
cur state: R1=scalar(smin=0,smax=umax=umax32=0xfffffffe,var_off=(0x0; 0xffffffff)) R10=fp0 fp-8=mmmm????
old state: R1=scalar(smin=0,smax=umax=umax32=0xfffffffe,var_off=(0x0; 0xffffffff)) R10=fp0 fp-8=mmmm????
processed 17 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""
RELOCATION = """\
Global function p() doesn't return scalar. Only those are supported.
0: R1=ctx() R10=fp0
; return d->nonexisting_field; @ core.bpf.c:5
1: <invalid CO-RE relocation>
failed to resolve CO-RE relocation <byte_off> [8] struct net_device.nonexisting_field (0:0 @ offset 0)
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
OLD_KERNEL = """\
Unrecognized arg#0 type PTR
; void *d = (void*)(long)c->data;
0: (61) r1 = *(u32 *)(r1 +0)
; return *(int *)d;
1: (61) r0 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
STATISTICS = """\
0: (95) exit
R0 !read_ok
verification time 21 usec
stack depth 0
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
CALLEE = """\
caller:
 R10=fp0
callee:
 frame1: R1=ctx() R10=fp0
3: frame1: R1=ctx() R10=fp0
;  return *(int*)d; } @ subprog.bpf.c:5
4: (61) r0 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "line", "source"),
    [
        (NULL, "R0 invalid mem access 'map_value_or_null'", "nullmap.bpf.c:6: return *v; }"),
        (LOOP, "infinite loop detected at insn 2", "loop.bpf.c:5: while (1) { x++; if (x == -1) break; }"),
        (
            RELOCATION,
            "failed to resolve CO-RE relocation <byte_off> [8] struct net_device.nonexisting_field (0:0 @ offset 0)",
            "core.bpf.c:5: return d->nonexisting_field;",
        ),
        (OLD_KERNEL, "R1 offset is outside of the packet", "return *(int *)d;"),
        (STATISTICS, "R0 !read_ok", None),
        (CALLEE, "R1 offset is outside of the packet", "subprog.bpf.c:5: return *(int*)d; }"),
    ],
    ids=["null", "loop", "relocation", "old kernel", "statistics", "callee"],
)
def test_the_line_that_says_why_is_found_with_its_source(log, line, source):
    found = verifier.telling(log)
    assert (found.line, found.source) == (line, source)


def test_the_refused_instruction_is_found():
    assert verifier.telling(NULL).instruction == 6
    assert verifier.telling(STATISTICS).instruction == 0


def test_a_log_of_statistics_alone_tells_nothing():
    assert verifier.telling("processed 5 insns (limit 1000000)\n").line == ""
    assert verifier.telling("").line == ""


def test_a_log_that_ends_within_the_trace_gives_its_last_line():
    assert verifier.telling(NULL.splitlines()[2] + "\n").line.startswith("0: (b7) r1 = 1")


@given(st.text(alphabet=st.sampled_from("R0123:; ()@.\n=acprs#"), max_size=300) | st.text(max_size=200))
def test_no_log_makes_it_raise(log):
    found = verifier.telling(log)
    assert found.line in log
    assert found.line == found.line.strip()


def test_the_log_is_kept_where_only_we_may_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    where = verifier.keep(NULL, "prog/../../name with\nodd things")
    assert where.read_text() == NULL
    assert where.parent == tmp_path / "state/xdpctl"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700


def test_two_logs_of_one_program_get_two_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert verifier.keep("a", "p") != verifier.keep("b", "p")


def test_an_unusable_state_folder_falls_back_to_a_temporary_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(verifier.tempfile, "tempdir", str(tmp_path))
    where = verifier.keep("log", "p")
    assert where.parent == tmp_path
    assert where.read_text() == "log"


def test_a_log_that_can_be_kept_nowhere_does_not_hide_the_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(verifier.tempfile, "tempdir", str(tmp_path / "file"))
    error = verifier.rejected("p", None, NULL)
    assert (error.log_file, error.hint, error.line) == (
        None,
        None,
        "R0 invalid mem access 'map_value_or_null'",
    )


def test_the_error_carries_program_line_source_and_log(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    error = verifier.rejected("p", tmp_path / "nullmap.bpf.o", NULL)
    assert str(error) == (
        "the verifier rejected program p of nullmap.bpf.o: R0 invalid mem access 'map_value_or_null'"
        " (at nullmap.bpf.c:6: return *v; })"
    )
    assert error.log == NULL
    assert error.hint == f"the whole log is in {error.log_file}"
    assert error.exit_code == 5


def test_a_log_that_was_cut_is_not_called_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "whole" not in verifier.rejected("p", None, NULL, truncated=True).hint
