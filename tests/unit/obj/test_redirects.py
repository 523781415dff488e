"""Where a program redirects to, read from what clang makes of C; for BPF with and without 32-bit registers."""

from __future__ import annotations

import pytest

from xdpctl.obj import reader

SOURCE = """
volatile const __u32 out = 7;
volatile const int targets[4] = {1, 2, 3, 4};
struct c { __u32 a; __u32 ifi; };
volatile struct c cfg;
volatile struct c cfgs[4];
volatile const __u64 wide = 9;
#define MAP(name, t, v) struct { __uint(type, BPF_MAP_TYPE_##t); __uint(max_entries, 8); __type(key, int); \\
  __type(value, v); } name SEC(".maps")
MAP(dm, DEVMAP, int); MAP(dm2, DEVMAP, int); MAP(cm, CPUMAP, int); MAP(xsk, XSKMAP, int); MAP(arr, ARRAY, struct c);
MAP(jmp, PROG_ARRAY, int); MAP(jmp2, PROG_ARRAY, int);
#define X SEC("xdp") int
#define CTX struct xdp_md *c
X constant(CTX) { return bpf_redirect(42, 0); }
X variable(CTX) { return bpf_redirect(out, 0); }
X low_half(CTX) { return bpf_redirect(wide, 0); }
X member(CTX) { return bpf_redirect(cfg.ifi, 0); }
X element(CTX) { return bpf_redirect(targets[2], 0); }
X some_element(CTX) { __u32 i = c->rx_queue_index; return i > 3 ? XDP_DROP : bpf_redirect(targets[i], 0); }
X some_member(CTX) { __u32 i = c->rx_queue_index; return i > 3 ? XDP_DROP : bpf_redirect(cfgs[i].ifi, 0); }
X either(CTX) { return bpf_redirect(c->rx_queue_index ? out : 3, 0); }
X spilled(CTX) {
  volatile __u32 kept = out;
  bpf_ktime_get_ns();
  return bpf_redirect(kept, 0);
}
X arithmetic(CTX) { return bpf_redirect(out + 1, 0); }
X packet(CTX) {
  int *d = (void *)(long)c->data;
  return (void *)(d + 1) > (void *)(long)c->data_end ? XDP_PASS : bpf_redirect(*d, 0);
}
X back(CTX) { return bpf_redirect(c->ingress_ifindex, 0); }
X map_key(CTX) { return bpf_redirect_map(&dm, 3, 0); }
X map_queue(CTX) { return bpf_redirect_map(&xsk, c->rx_queue_index, XDP_PASS); }
X map_cpu(CTX) { return bpf_redirect_map(&cm, bpf_get_smp_processor_id(), XDP_TX); }
X map_variable(CTX) { void *m = c->rx_queue_index ? (void *)&dm : (void *)&dm2; return bpf_redirect_map(m, out, 0); }
X map_loop(CTX) {
  for (int i = 0; i < 1000; i++) if (bpf_get_prandom_u32() == i) return bpf_redirect_map(&dm, i, 0);
  return XDP_PASS;
}
X map_value(CTX) {
  int k = 0; struct c *v = bpf_map_lookup_elem(&arr, &k);
  return v ? bpf_redirect(v->ifi, 0) : XDP_DROP;
}
X fib(CTX) {
  struct bpf_fib_lookup p = { .family = 2, .ifindex = c->ingress_ifindex };
  return bpf_fib_lookup(c, &p, sizeof(p), 0) ? XDP_PASS : bpf_redirect(p.ifindex, 0);
}
__attribute__((noinline)) int sub(int i) { return bpf_redirect(i, 0); }
X through_a_function(CTX) { return c->rx_queue_index ? sub(out) : sub(5); }
static long callback(__u32 i, void *data) { bpf_redirect(77, 0); return 0; }
X in_a_callback(CTX) { bpf_loop(3, callback, 0, 0); return XDP_PASS; }
X tail(CTX) { bpf_tail_call(c, c->rx_queue_index ? (void *)&jmp : (void *)&jmp2, 1); return XDP_PASS; }
X tx(CTX) { return c->rx_queue_index ? XDP_TX : XDP_PASS; }
X pass(CTX) { return XDP_PASS; }
X from_variable(CTX) { return out; }
X aborted_when_empty(CTX) { return bpf_redirect_map(&dm, 3, 0); }
static __attribute__((noinline)) int decide(int i) { return i > 3 ? XDP_TX : XDP_DROP; }
X tx_through_a_function(CTX) { return decide(c->rx_queue_index); }
SEC("tc") int peer(struct __sk_buff *s) { return bpf_redirect_peer(out, 0); }
SEC("tc") int neigh(struct __sk_buff *s) { return bpf_redirect_neigh(out, 0, 0, 0); }
SEC("tc") int clone(struct __sk_buff *s) {
  bpf_clone_redirect(s, out, BPF_F_INGRESS);
  return bpf_clone_redirect(s, s->ifindex, 0);
}
X adjusting(CTX) { return bpf_xdp_adjust_head(c, 4) + bpf_xdp_adjust_tail(c, 4) + bpf_xdp_adjust_meta(c, 4); }
"""


@pytest.fixture(scope="module", params=["v1", "v2", "v3"])
def obj(compiled, request):
    return reader.read(compiled(SOURCE, f"-mcpu={request.param}"))


def targets(obj, name):
    """What is known of each call of a program, without the place."""
    known = ("map", "ifindex", "variable", "key", "origin", "origin_map")
    return [
        {field: getattr(call, field) for field in known if getattr(call, field) is not None}
        for call in obj.program(name).redirects
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [{"ifindex": 42}]),
        ("variable", [{"variable": "out"}]),
        ("low_half", [{"variable": "wide"}]),
        ("member", [{"variable": "cfg.ifi"}]),
        ("element", [{"variable": "targets[2]"}]),
        ("some_element", [{"variable": "targets[*]"}]),
        ("some_member", [{"variable": "cfgs[*].ifi"}]),
        ("either", [{"ifindex": 3}, {"variable": "out"}]),
        ("spilled", [{"variable": "out"}]),
        ("arithmetic", [{}]),
        ("packet", [{}]),
        ("back", [{"origin": "ctx->ingress_ifindex"}]),
        ("map_key", [{"map": "dm", "key": 3}]),
        ("map_queue", [{"map": "xsk", "origin": "ctx->rx_queue_index"}]),
        ("map_cpu", [{"map": "cm", "origin": "bpf_get_smp_processor_id"}]),
        ("map_variable", [{"map": "dm", "variable": "out"}, {"map": "dm2", "variable": "out"}]),
        ("map_loop", [{"map": "dm"}]),
        ("map_value", [{"origin": "a value of map arr", "origin_map": "arr"}]),
        ("fib", [{"origin": "bpf_fib_lookup"}]),
        ("through_a_function", [{"ifindex": 5}, {"variable": "out"}]),
        ("in_a_callback", [{"ifindex": 77}]),
        ("peer", [{"variable": "out"}]),
        ("neigh", [{"variable": "out"}]),
        ("clone", [{"variable": "out"}, {"origin": "ctx->ifindex"}]),
        ("tail", []),
        ("pass", []),
    ],
)
def test_targets_of_a_program(obj, name, expected):
    assert targets(obj, name) == expected


def test_helpers_flags_and_lines_are_kept(obj):
    (call,) = obj.program("map_queue").redirects
    assert (call.helper, call.flags) == ("bpf_redirect_map", 2)
    first, second = obj.program("clone").redirects
    assert (first.helper, first.flags, second.flags) == ("bpf_clone_redirect", 1, 0)
    assert second.line == first.line + 1


def test_tail_calls_name_every_map(obj):
    assert obj.program("tail").tail_calls == ("jmp", "jmp2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tx", True),
        ("tx_through_a_function", True),
        ("map_cpu", True),
        ("pass", False),
        ("variable", False),
        ("map_queue", False),
        ("from_variable", None),
        ("peer", False),
    ],
)
def test_whether_xdp_tx_may_come_back(obj, name, expected):
    assert obj.program(name).returns_tx is expected


def test_packet_adjustments_are_listed(obj):
    assert obj.program("adjusting").adjusts == ("head", "tail", "meta")


def test_rx_metadata_kfuncs_make_a_program_device_bound(compiled):
    obj = reader.read(
        compiled(
            "extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *, __u32 *, int *)"
            ' __attribute__((section(".ksyms")));'
            'SEC("xdp") int prog(struct xdp_md *c) { __u32 h; int t;'
            " return bpf_xdp_metadata_rx_hash(c, &h, &t) ? 1 : 2; }"
        )
    )
    assert obj.programs[0].rx_metadata == ("bpf_xdp_metadata_rx_hash",)
    assert [(one.name, one.kind, one.weak) for one in obj.externs] == [
        ("bpf_xdp_metadata_rx_hash", "kfunc", False)
    ]


def test_a_store_through_an_unknown_pointer_forgets_the_stack(compiled):
    """An index into the stack may overwrite what was spilled there: unknown, not a guess."""
    source = """
    volatile const __u32 out = 7;
    SEC("xdp") int prog(struct xdp_md *c) {
      volatile __u32 slots[4] = {out, out, out, out};
      slots[c->rx_queue_index & 3] = 99;
      return bpf_redirect(slots[1], 0);
    }
    """
    obj = reader.read(compiled(source))
    assert targets(obj, "prog") == [{}]


def test_a_helper_that_writes_to_the_stack_makes_it_unknown(compiled):
    source = """
    SEC("xdp") int prog(struct xdp_md *c) {
      __u32 index = 3;
      bpf_xdp_load_bytes(c, 0, &index, sizeof(index));
      return bpf_redirect(index, 0);
    }
    """
    assert targets(reader.read(compiled(source)), "prog") == [{}]


def test_a_function_that_writes_through_its_argument_makes_it_unknown(compiled):
    source = """
    __attribute__((noinline)) int fill(__u32 *p) { if (!p) return 0; *p = bpf_get_prandom_u32(); return 0; }
    SEC("xdp") int prog(struct xdp_md *c) { __u32 index = 3; fill(&index); return bpf_redirect(index, 0); }
    """
    assert targets(reader.read(compiled(source)), "prog") == [{}]


def test_an_object_too_large_to_follow_keeps_its_calls_but_no_targets(compiled, monkeypatch):
    from xdpctl.obj import flow

    monkeypatch.setattr(flow.Steps, "__init__", lambda self: setattr(self, "left", 3))
    obj = reader.read(compiled(SOURCE))
    assert targets(obj, "variable") == [{}]
    assert obj.program("variable").returns_tx is None
    assert obj.program("tail").tail_calls == ("",)
