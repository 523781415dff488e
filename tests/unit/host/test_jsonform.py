"""A snapshot survives JSON exactly; what is wrong with a file is told by its path, and costs no more than it must."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
import typing
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl.errors import ConfigError
from xdpctl.host import jsonform, model
from xdpctl.host.model import Caller, Feature, Kernel, Link, Namespace, Problem, Snapshot

slow = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def values_of(hint):
    """Any value of a type hint of the model."""
    scalars = {
        int: st.integers(-(2**70), 2**70),
        str: st.text(max_size=8),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    if hint in scalars:
        return scalars[hint]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, localns={"Mapping": Mapping, **vars(model)})
        fields = {one.name: values_of(hints[one.name]) for one in dataclasses.fields(hint) if one.init}
        if hint is Snapshot:
            fields["schema"] = st.just(model.SCHEMA)
        return st.builds(hint, **fields)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(st.none() if one is type(None) else values_of(one) for one in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is Mapping:
        return st.dictionaries(
            st.integers(0, 2**40) if arguments[0] is int else st.text(max_size=5),
            values_of(arguments[1]),
            max_size=2,
        )
    raise AssertionError(hint)


def link(number, name, **more):
    known = {
        "netns": 4026531840,
        "kind": "veth",
        "driver": "veth",
        "flags": 0x1043,
        "operstate": "up",
        "type": 1,
        "mtu": 1500,
        "min_mtu": 68,
        "max_mtu": 65535,
        "address": "aa:bb:cc:dd:ee:ff",
        "master": None,
        "peer": None,
        "lower": None,
        "num_rx_queues": 1,
        "num_tx_queues": 1,
        "real_rx_queues": 1,
        "real_tx_queues": 1,
    }
    return Link(ifindex=number, name=name, **{**known, **more})


def snapshot(*links, **more):
    return Snapshot(
        taken_at="2025-01-01T00:00:00+00:00",
        kernel=Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True, {"tcx": True, "netkit": None}),
        caller=Caller(0, ("CAP_NET_ADMIN",)),
        cpus_online=2,
        cpus_possible=4,
        namespaces=(Namespace(4026531840, None, True, links=tuple(links)),),
        **more,
    )


@slow
@given(values_of(Snapshot))
def test_what_is_dumped_is_loaded_exactly(taken):
    document = jsonform.dump(taken)
    assert jsonform.load(document) == taken
    written = jsonform.text(document)
    assert json.loads(written) == json.loads(json.dumps(document))
    loaded = jsonform.load(written)
    assert loaded == taken
    assert jsonform.load(written.encode()) == taken


def test_links_with_equal_features_share_one_set():
    on, fixed = Feature(True, True, False), Feature(False, True, True)
    first, second = {"rx-gro": on, "rx-lro": fixed}, {"rx-gro": on, "rx-lro": fixed}
    taken = snapshot(
        link(1, "a", features=first), link(2, "b", features=second), link(3, "c", features=first)
    )
    document = jsonform.dump(taken)
    assert document["feature_sets"] == [{"rx-gro": "on", "rx-lro": "off [requested on] [fixed]"}]
    loaded = jsonform.load(document)
    assert loaded == taken
    shared = [one.features for one in loaded.links()]
    assert shared[0] is shared[1] is shared[2]


def test_a_truncated_file_is_told_wherever_it_ends():
    written = jsonform.text(
        jsonform.dump(snapshot(link(1, "a", features={"rx-gro": Feature(True, True, False)})))
    )
    for end in range(0, len(written) - 2, 7):
        with pytest.raises(ConfigError) as refusal:
            jsonform.load(written[:end])
        assert "JSON" in refusal.value.message
    with pytest.raises(ConfigError) as refusal:
        jsonform.load(written[: len(written) // 2])
    assert "copied whole" in (refusal.value.hint or "")


def test_a_newer_snapshot_is_refused_with_both_versions():
    document = {**jsonform.dump(snapshot()), "schema": model.SCHEMA + 1}
    with pytest.raises(ConfigError, match=f"schema {model.SCHEMA + 1}.*up to {model.SCHEMA}") as refusal:
        jsonform.load(document)
    assert "at least as new" in refusal.value.hint


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "3",
        '"x"',
        "null",
        "{}",
        '{"schema": 1}',
        "[" * 50_000,
        b"\xff\xfe",
        '{"schema": NaN}',
        "1" * 10_000,
    ],
)
def test_other_documents_are_no_snapshots(document):
    with pytest.raises(ConfigError):
        jsonform.load(document)


@pytest.mark.parametrize("schema", [0, -1, "1", 1.0, True, None, [1]])
def test_a_schema_is_a_whole_number(schema):
    with pytest.raises(ConfigError, match="schema"):
        jsonform.load({**jsonform.dump(snapshot()), "schema": schema})


def test_an_absent_optional_field_is_unknown_and_the_rest_is_there():
    document = jsonform.dump(snapshot(link(1, "a", xdp_features=35), link(2, "b", xdp_features=35)))
    for one in document["namespaces"][0]["links"]:
        del one["xdp_features"], one["max_mtu"]
    del document["modules"]
    loaded = jsonform.load(document)
    assert [one.xdp_features for one in loaded.links()] == [None, None]
    assert [one.max_mtu for one in loaded.links()] == [None, None]
    assert [one.name for one in loaded.links()] == ["a", "b"]
    assert loaded.problems == (
        Problem("Link.max_mtu in the snapshot", "absent 2 times, so unknown"),
        Problem("Link.xdp_features in the snapshot", "absent 2 times, so unknown"),
        Problem("Snapshot.modules in the snapshot", "absent 1 times, so unknown"),
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (
            lambda d: d["namespaces"][0]["links"][1].pop("mtu"),
            r"namespaces\[0\]\.links\[1\]\.mtu: is missing",
        ),
        (
            lambda d: d["namespaces"][0]["links"][1].update(mtu="1500"),
            r"links\[1\]\.mtu: a whole number expected, not text",
        ),
        (lambda d: d["namespaces"][0]["links"][0].update(mtu=True), r"links\[0\]\.mtu: a whole number"),
        (
            lambda d: d["namespaces"][0]["links"][0].update(name=None),
            r"links\[0\]\.name: text expected, not null",
        ),
        (lambda d: d["namespaces"][0]["links"][0].update(features=9), r"links\[0\]\.features: a place"),
        (
            lambda d: d["namespaces"][0]["links"][0].update(xdp=[]),
            r"links\[0\]\.xdp: an object expected, not a list",
        ),
        (lambda d: d["kernel"].update(version=[6, 18]), r"kernel\.version: 3 items expected, not 2"),
        (lambda d: d["kernel"]["features"].update(tcx="yes"), r"kernel\.features\.tcx: true or false"),
        (lambda d: d.update(programs={"x": {}}), r"programs\.x: 'x' is no number"),
        (lambda d: d.pop("kernel"), r"kernel: is missing"),
        (lambda d: d.update(feature_sets={}), r"feature_sets: a list expected"),
        (lambda d: d.update(feature_sets=[{"rx-gro": "maybe"}]), r"feature_sets\[0\]\.rx-gro: on or off"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change, path):
    document = json.loads(jsonform.text(jsonform.dump(snapshot(link(1, "a"), link(2, "b")))))
    change(document)
    with pytest.raises(ConfigError, match=path):
        jsonform.load(document)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_change_anywhere_ends_in_a_snapshot_or_a_config_error(data):
    document = json.loads(
        jsonform.text(jsonform.dump(snapshot(link(1, "a", features={"f": Feature(True, True, True)}))))
    )
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        deeper = place[key]
        if not isinstance(deeper, (dict, list)) or not deeper or data.draw(st.booleans()):
            break
        place = deeper
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(anything)
    with contextlib.suppress(ConfigError):
        assert isinstance(jsonform.load(document), Snapshot)


@given(anything)
def test_any_json_ends_in_a_snapshot_or_a_config_error(document):
    with contextlib.suppress(ConfigError):
        jsonform.load(document)


def test_a_file_that_is_not_there_or_too_long_is_a_config_error(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="No such file"):
        jsonform.read(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="Is a directory"):
        jsonform.read(tmp_path)
    written = tmp_path / "host.json"
    written.write_text(jsonform.text(jsonform.dump(snapshot(link(1, "a")))))
    assert jsonform.read(written) == snapshot(link(1, "a"))
    monkeypatch.setattr(jsonform, "MOST_BYTES", 100)
    with pytest.raises(ConfigError, match="MiB"):
        jsonform.read(written)


def test_redaction_hides_addresses_and_keeps_which_is_which():
    taken = snapshot(
        link(1, "lo", address="00:00:00:00:00:00"),
        link(2, "enx001122334455", address="00:11:22:33:44:55"),
        link(3, "copy", address="00:11:22:33:44:55"),
        link(4, "other", address="66:77:88:99:aa:bb"),
        link(5, "gre1", address="203.0.113.9"),
        link(6, "gre2", address="2001:4860::7"),
        link(7, "pci", bus_info="0000:00:03.0"),
        problems=(Problem("x", "no route to 203.0.113.9 or 127.0.0.1, 66:77:88:99:AA:BB is down"),),
    )
    document = jsonform.dump(taken, redact=True)
    written = jsonform.text(document).lower()
    for secret in ("00:11:22", "001122334455", "66:77:88", "203.0.113", "2001:4860"):
        assert secret not in written
    hidden = jsonform.load(document)
    addresses = [one.address for one in hidden.links()]
    assert addresses[0] == "00:00:00:00:00:00"
    assert addresses[1] == addresses[2] != addresses[3]
    assert hidden.namespaces[0].links[1].name == "enx" + addresses[1].replace(":", "")
    assert hidden.problems[0].why == f"no route to {addresses[4]} or 127.0.0.1, {addresses[3]} is down"
    assert hidden.namespaces[0].links[6].bus_info == "0000:00:03.0"
    assert hidden.kernel == taken.kernel
    assert hidden.taken_at == taken.taken_at


@given(st.binary(min_size=6, max_size=6), st.text(max_size=20))
def test_no_hardware_address_stays_whatever_stands_around_it(address, words):
    shown = address.hex(":")
    taken = snapshot(link(1, "a", address=shown), problems=(Problem("x", f"{words} {shown} {words}"),))
    hidden = jsonform.load(jsonform.dump(taken, redact=True))
    if set(address) not in ({0}, {255}) and not shown.startswith("02:00:00"):
        assert shown not in hidden.problems[0].why
    (one,) = hidden.links()
    assert one.address in hidden.problems[0].why
