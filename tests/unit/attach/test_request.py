"""Requests that contradict themselves are refused before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.attach.request import AttachRequest, DetachRequest, MapSetting, Position, merge_maps, parse_map
from xdpctl.errors import ConfigError


def request(**more):
    return AttachRequest(object=Path("x.o"), interfaces=("eth0",), **more)


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"mode": "auto", "via": "netlink"},
        {"hook": "xdp", "via": "link"},
        {"hook": "ingress", "via": "clsact", "position": Position("first")},
    ],
)
def test_what_fits_together_is_taken(fine):
    made = request(**fine)
    assert made.check() is made


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "drv"}, "--mode drv: no such choice"),
        ({"hook": "tc"}, "--hook tc: no such choice"),
        ({"via": "dispatcher"}, "--via dispatcher: no such choice"),
        ({"hook": "egress", "mode": "native"}, "--hook egress is for TC programs, --mode native for XDP"),
        ({"via": "tcx", "hook": "xdp"}, "--via tcx is for TC programs, --hook xdp for XDP"),
        (
            {"via": "netlink", "position": Position("last")},
            "--last is for TC programs, --via netlink for XDP",
        ),
    ],
)
def test_contradictions_name_both_options(wrong, said):
    with pytest.raises(ConfigError, match=said):
        request(**wrong).check()


def test_an_interface_must_be_given():
    with pytest.raises(ConfigError, match="no interface given"):
        AttachRequest(object=Path("x.o"), interfaces=()).check()
    with pytest.raises(ConfigError, match="no interface given"):
        DetachRequest(interfaces=()).check()


def test_a_mode_is_not_for_tc_hooks_when_detaching():
    with pytest.raises(ConfigError, match="--mode generic is for XDP, --hook ingress for TC programs"):
        DetachRequest(interfaces=("eth0",), hook="ingress", mode="generic").check()


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("flows=max_entries=64", MapSetting("flows", max_entries=64)),
        ("flows=max_entries=0x40", MapSetting("flows", max_entries=64)),
        ("flows=xdpctl/maps/flows", MapSetting("flows", pin="xdpctl/maps/flows")),
        ("flows=/sys/fs/bpf/a=b", MapSetting("flows", pin="/sys/fs/bpf/a=b")),
    ],
)
def test_map_settings(text, setting):
    assert parse_map(text) == setting


@pytest.mark.parametrize("text", ["", "flows", "flows=", "=x", "f=max_entries=0", "f=max_entries=-1",
                                  "f=max_entries=4294967296", "f=max_entries=x", "f=max_entries="])  # fmt: skip
def test_map_settings_that_are_none(text):
    with pytest.raises(ConfigError, match="--map"):
        parse_map(text)


def test_a_pinned_map_has_a_size_already():
    with pytest.raises(ConfigError, match="given twice"):
        merge_maps([MapSetting("f", pin="x"), MapSetting("f", max_entries=3)])
    assert merge_maps([MapSetting("f", max_entries=1), MapSetting("f", max_entries=3)]) == (
        MapSetting("f", max_entries=3),
    )
