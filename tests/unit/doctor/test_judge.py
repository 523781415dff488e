"""`judge` on snapshots nobody would make: it always answers, in order, and only with what the table lists."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachTc, AttachXdp, EmptySlot, Health, Redirect, Transmit
from xdpctl.doctor.rules import judge, mistakes
from xdpctl.doctor.rules.target_drivers import TARGETS
from xdpctl.host.model import (
    Bond,
    Caller,
    Channels,
    Feature,
    Kernel,
    Link,
    LinkRef,
    Namespace,
    Peer,
    Problem,
    Qdisc,
    Rings,
    Snapshot,
    Tun,
    Xdp,
)

small = st.integers(0, 5)
maybe = lambda one: st.none() | one  # noqa: E731 - a strategy of strategies
KINDS = [None, "veth", "bond", "tun", "bridge", "vlan", "macvtap", "ifb", *TARGETS]
peers = st.builds(Peer, small, maybe(st.integers(1, 3)), maybe(small))
features = st.dictionaries(
    st.sampled_from(["rx-gro", "rx-lro", "rx-gro-hw"]),
    st.builds(Feature, st.booleans(), st.booleans(), st.booleans()),
)
channels = st.builds(Channels, small, small, small, small, small, small, small, small)
links = st.builds(
    Link,
    ifindex=small,
    name=st.sampled_from(["a", "b", "c"]),
    netns=st.integers(1, 3),
    kind=st.sampled_from(KINDS),
    driver=st.sampled_from(KINDS),
    flags=st.sampled_from([0, 1, 0x41, 0x10041]),
    operstate=st.none(),
    type=st.sampled_from([1, 772, 65534, 0]),
    mtu=st.integers(0, 1 << 17),
    min_mtu=maybe(small),
    max_mtu=st.none(),
    address=st.none(),
    master=maybe(small),
    peer=maybe(peers),
    lower=maybe(peers),
    num_rx_queues=maybe(small),
    num_tx_queues=maybe(small),
    real_rx_queues=maybe(small),
    real_tx_queues=maybe(small),
    xdp=st.builds(Xdp, *[maybe(small)] * 6),
    features=maybe(features),
    xdp_features=maybe(st.integers(0, 127)),
    channels=maybe(channels),
    rings=maybe(
        st.builds(
            Rings, tcp_data_split=st.sampled_from([None, "on", "off"]), hds_thresh=maybe(st.integers(0, 9000))
        )
    ),
    private_flags=maybe(st.dictionaries(st.sampled_from(["legacy-rx", "rx_striding_rq"]), st.booleans())),
    qdiscs=maybe(st.tuples(st.builds(Qdisc, st.sampled_from(["pfifo_fast", "ingress", "fq"]), small, small))),
    bond=maybe(
        st.builds(
            Bond, st.sampled_from(["802.3ad", "broadcast"]), maybe(small), maybe(st.just("vlan+srcmac"))
        )
    ),
    tun=maybe(st.builds(Tun, st.sampled_from(["tun", "tap"]), maybe(st.booleans()), maybe(small))),
    virtio_features=maybe(st.text("01", max_size=64)),
    sriov_vfs=maybe(small),
)
kernels = st.builds(
    Kernel,
    release=st.just("x"),
    version=st.tuples(st.integers(4, 7), st.integers(0, 20), st.integers(0, 120)),
    machine=st.sampled_from(["x86_64", "aarch64", "s390x", "vax"]),
    page_size=st.sampled_from([0, 4096, 65536]),
    btf=st.none(),
    features=st.dictionaries(st.sampled_from(["tcx", "frags", "xdp_link"]), maybe(st.booleans())),
    config=maybe(st.dictionaries(st.just("CONFIG_MAX_SKB_FRAGS"), st.sampled_from(["17", "y", "45"]))),
)
snapshots = st.builds(
    Snapshot,
    taken_at=st.just(""),
    kernel=kernels,
    caller=st.builds(Caller, small, st.just(("CAP_NET_ADMIN",)) | st.just(())),
    cpus_online=small,
    cpus_possible=small,
    namespaces=st.lists(
        st.builds(
            Namespace,
            st.integers(1, 3),
            maybe(st.just("blue")),
            st.booleans(),
            st.none(),
            st.lists(links, max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    sysctls=st.dictionaries(st.just("net.core.bpf_jit_enable"), st.just("0")),
    problems=st.lists(st.builds(Problem, st.just("a"), st.just("b")), max_size=2).map(tuple),
)
refs = st.builds(LinkRef, st.integers(1, 4), small)
modes = st.sampled_from(["native", "generic", "offload", "auto"])
intents = st.one_of(
    st.builds(
        AttachXdp,
        refs,
        modes,
        st.just("p"),
        st.booleans(),
        st.sampled_from(["xdp", "xdp/devmap"]),
        maybe(small),
        st.booleans(),
        st.sampled_from(["link", "netlink"]),
        st.booleans(),
    ),
    st.builds(AttachTc, refs, st.just("egress"), st.just("p"), st.sampled_from(["tcx", "clsact", "netkit"])),
    st.builds(Redirect, maybe(refs), refs, modes, st.booleans(), maybe(st.integers(0, 9999)), st.booleans()),
    st.builds(
        EmptySlot, maybe(refs), st.just("p"), st.just("m"), st.just("devmap"), maybe(small), maybe(small)
    ),
    st.builds(Transmit, refs, modes),
    st.builds(Health, refs, st.booleans()),
)


@given(snapshots, st.lists(intents, max_size=4))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_judge_answers_whatever_the_snapshot_holds(snapshot, wanted):
    severity = [Status.FAIL, Status.UNKNOWN, Status.WARN]
    findings = judge(snapshot, wanted)
    ranks = [severity.index(one.status) for one in findings]
    assert ranks == sorted(ranks)
    for one in findings:
        assert one.id in {mistake.id for mistake in mistakes()}
        assert "None" not in one.summary
        assert one.summary
        assert one.errno is None or one.errno.startswith("E")
        if one.status is Status.UNKNOWN:
            assert (
                one.alternatives
                or one.fix
                or one.evidence
                or one.id.startswith(("attach.no-d", "redirect.target"))
            )
        one.to_json()


def test_ids_are_unique_and_tell_where_they_belong():
    ids = [one.id for one in mistakes()]
    assert len(ids) == len(set(ids))
    assert {one.split(".")[0] for one in ids} == {
        "attach",
        "redirect",
        "transmit",
        "page-pool",
        "qdisc",
        "environment",
        "link",
        "probe",
    }


def test_a_healthy_machine_is_silent(machine):
    host = machine()
    host.veth("a", "b", gro_a=True, gro_b=True)
    host.link("lo", None, type=772, driver=None)
    assert judge(host.snapshot(), [Health(one.ref) for one in host.links.values()]) == []


def test_the_first_failure_of_a_redirect_is_the_one_that_the_kernel_answers_with(machine):
    host = machine()
    host.veth("a", "b")
    host.down("a")
    findings = judge(host.snapshot(), [Redirect(None, host.links["a"].ref, frame_len=9000)])
    assert [one.errno for one in findings] == ["EOPNOTSUPP", "ENETDOWN", "EMSGSIZE"]


def test_the_environment_is_judged_once_and_only_for_a_whole_host(machine):
    host = machine()
    link = host.link("eth", None, driver="igb")
    snapshot = replace(host.snapshot(), sysctls={"net.core.bpf_jit_enable": "0"})
    ids = [one.id for one in judge(snapshot, [Health(link.ref), Health(link.ref)])]
    assert ids == ["environment.jit-off"]
    assert judge(snapshot, [Health(link.ref, named=True)]) == []
