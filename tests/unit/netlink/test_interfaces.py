"""Names, globs and near names, with interfaces that the test makes up."""

from __future__ import annotations

import pytest

from xdpctl.errors import NotFoundError
from xdpctl.netlink import interfaces

KNOWN = {1: "lo", 2: "eth0", 7: "veth_a", 9: "veth_b"}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    def index(name):
        for number, one in KNOWN.items():
            if one == name:
                return number
        raise OSError(19, "no interface with this name")

    monkeypatch.setattr(interfaces.socket, "if_nameindex", lambda: list(KNOWN.items()))
    monkeypatch.setattr(interfaces.socket, "if_nametoindex", index)


def test_globs_expand_in_the_order_asked_and_each_interface_once():
    assert interfaces.expand(["veth_b", "veth_*", "l?"]) == [("veth_b", 9), ("veth_a", 7), ("lo", 1)]


def test_a_misspelt_name_suggests_near_ones():
    with pytest.raises(NotFoundError) as refusal:
        interfaces.ifindex("veth_c")
    assert {"veth_a", "veth_b"} <= set(refusal.value.near)


def test_a_glob_that_matches_nothing_lists_what_there_is():
    with pytest.raises(NotFoundError) as refusal:
        interfaces.expand(["enp*"])
    assert "eth0, lo, veth_a, veth_b" in refusal.value.hint
