"""The reference: what a user may paste, and that the right cause comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.doctor.explain import errno_of, explain
from xdpctl.doctor.reference import causes
from xdpctl.doctor.rules import mistakes


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("ENXIO", "ENXIO"),
        ("enxio", "ENXIO"),
        ("-ENXIO", "ENXIO"),
        ("-95", "EOPNOTSUPP"),
        ("95", "EOPNOTSUPP"),
        ("ENOTSUP", "EOPNOTSUPP"),
        ("524", "ENOTSUPP"),
        ("Numerical result out of range", "ERANGE"),
        ("Error: interface xdpdrv attach failed: Numerical result out of range", "ERANGE"),
        ("Couldn't attach XDP program on iface 'rvQ': No space left on device(-28)", "ENOSPC"),
        ("sent=0 drops=1 err=-6", "ENXIO"),
        ("hello", None),
        ("", None),
    ],
)
def test_an_errno_is_found_in_what_people_paste(query, name):
    assert errno_of(query) == name


@pytest.mark.parametrize(
    ("query", "finding"),
    [
        ("Peer MTU is too large to set XDP", "attach.veth-peer-mtu"),
        ("Error: veth: Peer MTU is too large to set XDP.", "attach.veth-peer-mtu"),
        ("peer mtu too large", "attach.veth-peer-mtu"),
        ("underlying driver does not support xdp in native mode", "attach.no-native"),
        ("mlx5_core eth2: can't set XDP while HW-GRO/LRO is on, disable them first", "attach.driver-receive-offload"),
        ("MTU(9000) > 3498, too big for an XDP program not aware of multi buffer", "attach.driver-mtu"),
        ("XDP request 3 queues but max is 2. XDP_TX and XDP_REDIRECT will operate in a slower locked tx mode.",
         "attach.driver-queues"),
        ("ERANGE", "attach.veth-peer-mtu"),
        ("xdp_devmap_xmit: from_ifindex=3 to_ifindex=5 sent=0 drops=1 err=-6", "redirect.veth-peer-napi"),
    ],
)  # fmt: skip
def test_the_right_cause_comes_first(query, finding):
    assert explain(query)[0].cause.finding == finding


def test_driver_and_op_narrow_the_answer():
    for one in explain("EOPNOTSUPP", op="redirect"):
        assert one.cause.op == "redirect"
    first = explain("EINVAL", driver="ixgbe", op="attach")[0]
    assert first.cause.drivers == ("ixgbe",)
    assert all(not one.cause.drivers or "igb" in one.cause.drivers for one in explain("-95", driver="igb"))


def test_several_candidates_each_say_how_to_tell():
    found = explain("-6")
    assert len(found) > 3
    for one in found:
        document = one.to_json()
        assert document["how_to_tell"]
        assert document["fix"]
        assert 0 < document["fit"] <= 1


def test_what_nobody_knows_gets_no_answer():
    assert explain("the cat sat on the mat") == []
    assert explain("EFOO") == []


def test_every_text_of_the_reference_finds_its_own_row():
    for cause in causes():
        if cause.text:
            texts = [
                one.cause.text
                for one in explain(cause.text, driver=cause.drivers[0] if cause.drivers else None)
            ]
            assert cause.text in texts


def test_findings_named_in_the_reference_exist():
    known = {one.id for one in mistakes()}
    assert {one.finding for one in causes() if one.finding} <= known


@given(
    st.text(max_size=300),
    st.none() | st.text(max_size=9),
    st.sampled_from([None, "attach", "redirect", "load"]),
)
def test_any_text_is_answered_without_a_failure(query, driver, op):
    fits = [one.fit for one in explain(query, driver=driver, op=op)]
    assert fits == sorted(fits, reverse=True)
