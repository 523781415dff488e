"""Facts of the machine, from files that the test can point to."""

from __future__ import annotations

import gzip

from xdpctl.host import machine


def test_lists_of_cpus_are_counted():
    assert [machine._listed(text) for text in ("0", "0-3", "0-3,8,10-11\n", "", "x-y")] == [1, 4, 7, 0, 0]


def test_no_fewer_cpus_are_possible_than_online():
    online, possible = machine.cpus()
    assert 1 <= online <= possible


def test_the_callers_capabilities_have_names(monkeypatch):
    monkeypatch.setattr(machine, "_lines", lambda _path: ["Name:\tx", "CapEff:\t0000028000001000"])
    assert machine.caller().capabilities == ("CAP_NET_ADMIN", "CAP_BPF", "CAP_41")


def test_configuration_is_what_concerns_us_and_tells_what_is_not_set(monkeypatch):
    text = b'CONFIG_VETH=y\n# CONFIG_BONDING is not set\nCONFIG_SOUND=y\n# a comment\nCONFIG_NR_CPUS="64"\n'
    monkeypatch.setattr(machine.Path, "read_bytes", lambda _self: gzip.compress(text))
    assert machine.config() == {"CONFIG_VETH": "y", "CONFIG_BONDING": "n", "CONFIG_NR_CPUS": "64"}
    monkeypatch.setattr(machine.Path, "read_bytes", lambda _self: b"not gzip")
    assert machine.config() is None


def test_mounts_with_blanks_in_their_path_are_read(monkeypatch):
    monkeypatch.setattr(
        machine,
        "_lines",
        lambda _path: ["bpf /sys/fs/bpf bpf rw 0 0", r"bpf /tmp/a\040b bpf rw 0 0", "proc /proc proc rw 0 0"],
    )
    assert machine.bpffs() == ("/sys/fs/bpf", "/tmp/a b")
