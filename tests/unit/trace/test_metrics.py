"""The table of metrics: its page, the exposition as Prometheus reads it, and who uses which metric."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ticks import busy, sample

from xdpctl.cli.metrics import address_and_port, exposition
from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.trace.metrics import METRICS, Rising, page

ROOT = Path(__file__).resolve().parents[3]
USED = re.compile(r"\bxdpctl_[a-z_]+\b")
WORD = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)|([a-z_]+)\s*=~?\s*\"")


class Fixed:
    """A sampler that has only one thing to say."""

    tracing = {"redirects": True, "drops": True}  # noqa: RUF012 - nothing writes to it

    def __init__(self, said):
        self.said = said

    def sample(self):
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def families(said):
    return {one.name: one for one in text_string_to_metric_families(exposition(Fixed(said)))}


@pytest.fixture(scope="module")
def told():
    return families(busy(10.0, 3))


def value(told, name, **labels):
    (found,) = (
        one.value
        for family in told.values()
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )
    return found


def expressions():
    """Every PromQL expression of the dashboard and the alerts, and where it stands."""
    board = json.loads((ROOT / "configs" / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            yield f"variable {one['name']}", one["definition"]
    rules = (ROOT / "configs" / "alerts.yml").read_text()
    for found in re.finditer(r"- alert: (\w+)\n(?:\s+#.*\n)?\s+expr: (>-\n(?:\s{10}.*\n)+|.*\n)", rules):
        yield f"alert {found[1]}", found[2]


def test_the_page_is_written_from_the_table():
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), (
        "python -m xdpctl.trace.metrics > docs/metrics.md"
    )


def test_every_metric_of_the_table_is_exposed_with_its_type_and_help(told):
    assert {name: (one.type, one.documentation) for name, one in told.items()} == {
        one.name: (one.kind, one.help) for one in METRICS
    }


def test_every_sample_bears_the_labels_of_the_table(told):
    labels = {one.exposed: set(one.labels) for one in METRICS}
    for family in told.values():
        assert family.samples, f"{family.name} has no sample of a machine on which everything happens"
        for one in family.samples:
            assert set(one.labels) == labels[one.name]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_the_dashboard_and_the_alerts_use_is_exposed(told, where, expression):
    exposed = {one.exposed: {*one.labels, "instance", "job"} for one in METRICS}
    names = set(USED.findall(expression))
    assert names, f"{where} uses none of our metrics"
    assert names <= exposed.keys()
    assert names <= {one.name for family in told.values() for one in family.samples}
    asked = {
        word.strip() for found in WORD.findall(expression) for word in (found[0] or found[1]).split(",")
    } - {""}
    assert asked <= set.union(*(exposed[one] for one in names))
    assert expression.count("(") == expression.count(")")


def test_names_are_as_prometheus_wants_them():
    for one in METRICS:
        assert re.fullmatch(r"xdpctl_[a-z]+(_[a-z]+)*", one.name)
        assert not one.name.endswith(("_total", "_ms", "_ns", "_us", "_kb"))


def test_figures_are_those_of_the_sample(told):
    eth0 = {"netns": "", "interface": "eth0"}
    assert value(told, "xdpctl_interface_receive_packets_total", **eth0) == 300
    assert value(told, "xdpctl_interface_xdp_frames_total", action="redirect", **eth0) == 270
    assert value(told, "xdpctl_interface_xdp_frames_total", action="aborted", **eth0) == 3
    assert value(told, "xdpctl_program_run_seconds_total", program="redirect") == pytest.approx(60e-6)
    way = {"from": "eth0", "to": "veth0", "program": "redirect", "way": "redirect"}
    assert value(told, "xdpctl_redirect_sent_frames_total", **way) == 270
    assert value(told, "xdpctl_redirect_lost_frames_total", errno="ENXIO", **way) == 30
    assert value(told, "xdpctl_dropped_packets_total", reason="NO_SOCKET") == 9
    assert value(told, "xdpctl_ring_dropped_packets_total", ring="tap", queue="1", state="not_full") == 6
    assert value(told, "xdpctl_page_pool_closing_seconds", pool="2") == 100


def test_what_is_not_known_has_no_sample(told):
    generic = [
        one.labels["action"]
        for one in told["xdpctl_interface_xdp_frames"].samples
        if one.labels["interface"] == "tap0"
    ]
    assert generic == ["aborted"]
    nothing = families(sample(1, redirects=None, drops=None, pools=None, programs=None))
    assert not nothing["xdpctl_redirect_lost_frames"].samples
    assert not nothing["xdpctl_page_pool_inflight_pages"].samples


def test_a_look_that_fails_is_an_error_and_no_traceback():
    with pytest.raises(NotFoundError):
        exposition(Fixed(NotFoundError("network namespace", "blue")))


def test_a_counter_does_not_fall_by_a_hair_but_starts_anew():
    rising = Rising()
    assert [rising.of(("a",), one) for one in (100, 99, 103, 2)] == [100, 100, 103, 2]
    assert rising.of(("b",), 1) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9435", ("127.0.0.1", 9435)),
        ("[::1]:80", ("::1", 80)),
        (":9", ("0.0.0.0", 9)),  # noqa: S104 - text, nothing listens
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_and_a_port(text, found):
    assert address_and_port(text) == found


@pytest.mark.parametrize("text", ["", "9435", "::1:9435", "a:b", "a:70000", "a:-1", "[::1]", "a:٣"])
def test_what_is_no_address_and_port_is_said(text):
    with pytest.raises(ConfigError, match="--listen"):
        address_and_port(text)
