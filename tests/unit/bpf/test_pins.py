"""Names of pins stay below the root, and a place that is no bpffs is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.bpf import pins
from xdpctl.errors import ConfigError, UnsupportedError


def test_the_root_follows_the_environment(monkeypatch):
    monkeypatch.delenv("XDPCTL_BPFFS", raising=False)
    assert pins.root() == Path("/sys/fs/bpf/xdpctl")
    monkeypatch.setenv("XDPCTL_BPFFS", "/run/my/bpf")
    assert pins.root() == Path("/run/my/bpf/xdpctl")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a.b", "a b", "a\n", "a\0", "é", "x" * 256, "/"]
)
def test_what_leads_elsewhere_or_bpffs_refuses_is_no_component(name):
    with pytest.raises(ConfigError):
        pins.component(name)


@pytest.mark.parametrize("name", ["eth0", "3-eth0-xdp", "veth_a@if2", "a:b", "A+2e"])
def test_ordinary_names_are_components(name):
    assert pins.below(Path("/r"), "links", name) == Path("/r/links") / name


@given(st.binary(min_size=1, max_size=15).map(os.fsdecode))
def test_any_name_escaped_is_a_component_and_no_two_are_the_same(name):
    escaped = pins.escaped(name)
    assert pins.component(escaped) == escaped
    # back again: so it is one to one
    out, rest = b"", escaped
    while rest:
        if rest[0] == "+":
            out, rest = out + bytes.fromhex(rest[1:3]), rest[3:]
        else:
            out, rest = out + rest[0].encode(), rest[1:]
    assert os.fsdecode(out) == name


def test_dots_of_a_vlan_device_are_escaped():
    assert pins.escaped("eth0.100") == "eth0+2e100"


def test_a_place_that_is_no_bpffs_is_told_with_the_mount_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDPCTL_BPFFS", str(tmp_path))
    with pytest.raises(UnsupportedError) as caught:
        pins.require_bpffs()
    assert caught.value.hint == f"mount -t bpf bpf {tmp_path}"
    with pytest.raises(UnsupportedError):
        pins.require_bpffs(tmp_path / "not/there/yet")


def test_nothing_to_walk_is_no_error(tmp_path):
    assert list(pins.walk(tmp_path / "nowhere")) == []


def test_walking_follows_no_symbolic_link(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/pin").write_text("")
    (tmp_path / "away").symlink_to("/etc")
    (tmp_path / "file").symlink_to("/etc/passwd")
    assert list(pins.walk(tmp_path)) == [tmp_path / "d/pin"]


def test_unpinning_removes_empty_folders_up_to_the_root_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDPCTL_BPFFS", str(tmp_path))
    pin = pins.root() / "links/7/eth0"
    pin.parent.mkdir(parents=True)
    pin.write_text("")
    (pins.root() / "maps").mkdir()
    assert pins.unpin(pin)
    assert not (pins.root() / "links").exists()
    assert (pins.root() / "maps").exists()
    assert not pins.unpin(pin)


def test_unpinning_elsewhere_leaves_the_folders_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDPCTL_BPFFS", str(tmp_path / "bpffs"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/pin").write_text("")
    assert pins.unpin(tmp_path / "theirs/pin")
    assert (tmp_path / "theirs").exists()
