"""How much of the time runs are counted, and which links a name means."""

from __future__ import annotations

import pytest

from xdpctl.netlink.rtnl import RawLink
from xdpctl.trace.sampler import MOST_OF_A_CPU, RUN_NS, Sampler, matches


def share_after(*looks):
    sampler = object.__new__(Sampler)
    sampler._total, sampler.share = None, 1.0
    for runs, seconds in looks:
        sampler._adjust_share(runs, seconds)
    return sampler.share


@pytest.mark.parametrize(
    ("runs", "share"),
    [(0, 1.0), (1_000, 1.0), (140_000, 1.0), (1_000_000, 1 / 7), (10_000_000, 1 / 70), (10**12, 0.01)],
)
def test_the_more_programs_run_the_less_of_the_time_their_runs_are_counted(runs, share):
    found = share_after((5, 10.0), (5 + runs, 11.0))
    assert found == pytest.approx(share)
    assert found == 0.01 or runs * found * RUN_NS / 1e9 <= MOST_OF_A_CPU * 1.001


def test_a_look_without_counting_changes_nothing():
    assert share_after((0, 1.0), (1_000_000, 2.0), (1_000_000, 2.0)) == pytest.approx(1 / 7)


def test_programs_that_went_take_their_runs_along():
    assert share_after((5_000_000, 1.0), (10, 2.0)) == 1.0


def test_a_link_is_meant_by_name_altname_and_glob():
    link = RawLink(2, "eth0", 1, 1, 1500, altnames=("enp1s0",))
    assert [matches(link, one) for one in ("eth0", "eth*", "enp1s0", "e", "veth*")] == [
        True,
        True,
        True,
        False,
        False,
    ]
