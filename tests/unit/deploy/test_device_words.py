"""The words of `driver set`: what each becomes, and what is said of those that can't be read."""

from __future__ import annotations

import pytest

from xdpctl.deploy.device_names import kernel_feature_names, parse, words
from xdpctl.errors import ConfigError

KNOWN = words(features=["rx-gro", "rx-udp-gro-forwarding"], flags=["legacy-rx"])


def test_the_words_of_the_help_become_settings():
    given = (
        "rx-ring=2048 channels.combined=4 gro=on tcp-data-split=OFF mtu=3498 napi.threaded=on up=yes".split()
    )
    assert parse(given, KNOWN) == {
        "rings": {"rx": 2048, "tcp-data-split": "off"},
        "channels": {"combined": 4},
        "features": {"gro": True},
        "mtu": 3498,
        "napi": {"threaded": "on"},
        "up": True,
    }


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("rings.rx=64", {"rings": {"rx": 64}}),
        ("combined=2", {"channels": {"combined": 2}}),
        ("rx-udp-gro-forwarding=off", {"features": {"rx-udp-gro-forwarding": False}}),
        ("features.rx=off", {"features": {"rx": False}}),
        ("rx-usecs=20", {"coalesce": {"rx-usecs": 20}}),
        ("coalesce.adaptive-rx=on", {"coalesce": {"adaptive-rx": True}}),
        ("pause.rx=off", {"pause": {"rx": False}}),
        ("flag.legacy-rx=on", {"private_flags": {"legacy-rx": True}}),
        ("napi.threaded=busy-poll", {"napi": {"threaded": "busy-poll"}}),
        ("napi.gro-flush-timeout=20us", {"napi": {"gro-flush-timeout": 20_000}}),
    ],
)
def test_each_kind_of_word_has_its_place(word, part):
    assert parse([word], KNOWN) == part


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mtu", "mtu: give a value"),
        ("mtu=big", "mtu=big: not a whole number"),
        ("mtu=-1", "not a whole number"),
        ("mtu=4294967296", "not a whole number"),
        ("gro=maybe", "gro=maybe: not on or off"),
        ("tcp-data-split=yes", "not on, off or auto"),
        ("napi.gro-flush-timeout=2h", "not a time"),
        ("rx=2048", "rx: no such setting; rx-ring is its ring"),
        ("chanels.combined=2", "did you mean .*channels.combined"),
        ("=3", "no such setting"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_could(word, said):
    with pytest.raises(ConfigError, match=said):
        parse([word], KNOWN)


def test_one_setting_given_under_two_names_is_refused():
    with pytest.raises(ConfigError, match=r"rings.rx: given twice \(as rx-ring=64\)"):
        parse(["rx-ring=64", "rings.rx=128"], KNOWN)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse(["mtu=big", "nothing=1", "gro=on"], KNOWN)
    assert len(caught.value.message.splitlines()) == 2


def test_names_of_ethtool_stand_for_the_kernels():
    assert kernel_feature_names("gro") == kernel_feature_names("generic-receive-offload") == ("rx-gro",)
    assert len(kernel_feature_names("tso")) == 5
    assert kernel_feature_names("rx-gro-list") == ("rx-gro-list",)
