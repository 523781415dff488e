"""`xdpctl metrics` before a real Prometheus: what it scrapes, the alerts that fire, what the dashboard would draw.

Prometheus comes from Debian's package (tests/support/prometheus.py), and runs in a namespace of its own for some
seconds. `for` and the intervals of scrapes are shortened there; how long alerts wait is for alerts_test.yml to show.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from pathlib import Path

import prometheus
import pytest
from exporter import Exporter
from kernels import LOST
from live import running, until
from tap import opened

from xdpctl.netlink import netns
from xdpctl.trace.frames import Port, ethernet

pytestmark = pytest.mark.kernel

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ALERTS = CONFIGS / "alerts.yml"
BOARD = json.loads((CONFIGS / "grafana-dashboard.json").read_text())
RULES_TEST = Path(__file__).with_name("alerts_test.yml")
FRAME = ethernet(b"xdpctl-prometheus", destination="02:00:00:00:00:77")
SCRAPES = "500ms"
TARGET = "127.0.0.1:9435"
WITHOUT_DATA = {"Pages in flight", "New pages"}
"""Panels of page pools: veths and taps don't list theirs."""
EMPTY = {"netns", "from_netns", "to_netns"}
"""Labels that are empty in the namespace of xdpctl; Prometheus has no empty labels."""


@pytest.fixture(scope="module")
def programs(isolated):
    """Paths of prometheus and promtool."""
    found = prometheus.commands()
    if found is None:
        pytest.skip(
            "no prometheus and promtool: Debian's package can't be fetched (.ci/setup dev does, from a network)"
        )
    return found


def promtool(programs, *words, **more):
    done = subprocess.run(
        [programs["promtool"], *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Traffic:
    """Frames through every port, again and again until it is ended; `sent` by port."""

    def __init__(self, ports):
        self.sent = dict.fromkeys(ports, 0)
        self._ports, self._ended = ports, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ended.wait(0.02):
            for name, port in self._ports.items():
                port.send(FRAME)
                self.sent[name] += 1

    def end(self):
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def rig(world_of_module):
    """s0 of `here` redirects to t0, whose peer has no NAPI; tap0 has a ring of 2 frames that nobody reads."""
    here, far = world_of_module.namespace(), world_of_module.namespace()
    for near, other in (("s0", "s1"), ("t0", "t1")):
        world_of_module.veth(near, other, netns_a=here, netns_b=far)
    world_of_module.ip("tuntap add tap0 mode tap", here)
    world_of_module.ip("link set tap0 txqueuelen 2", here)
    return here, far


@pytest.fixture(scope="module")
def watched(rig, programs, tmp_path_factory):
    """The Prometheus that watches the rig, its exporter, and the traffic."""
    here, far = rig
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "alerts.yml").write_text(re.sub(r"\bfor: \d+m\b", "for: 1s", ALERTS.read_text()))
    # rule_files and scrape_configs are those that the head of alerts.yml says
    asked = re.findall(r"^#   (.*)$", ALERTS.read_text(), re.MULTILINE)
    intervals = (
        f"global: {{scrape_interval: {SCRAPES}, scrape_timeout: {SCRAPES}, evaluation_interval: {SCRAPES}}}"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("redirect", "s0", netns_name=here, target="t0"))
        with netns.enter(here):
            stack.callback(os.close, opened("tap0"))
            subprocess.run("ip link set tap0 up".split(), check=True)
            exporter = Exporter("--run-times", listen="127.0.0.1:9435")
            stack.callback(exporter.process.communicate)
            stack.callback(exporter.process.kill)
            exporter.ready()
            server = prometheus.Server(programs["prometheus"], folder, "\n".join([intervals, *asked]) + "\n")
            stack.callback(server.close)
            server.ready()
            ports = {"tap0": stack.enter_context(Port("tap0"))}
        with netns.enter(far):
            ports["s1"] = stack.enter_context(Port("s1"))
        traffic = Traffic(ports)
        stack.callback(traffic.end)
        with netns.enter(here):
            yield server, exporter, traffic


def test_what_is_served_has_no_fault_that_promtool_knows(watched, programs):
    _, exporter, _ = watched
    assert promtool(programs, "check", "metrics", input=exporter.text()) == ""


def test_the_rules_are_sound(programs):
    assert "SUCCESS: 9 rules found" in promtool(
        programs, "check", "rules", "--lint=all", "--lint-fatal", ALERTS
    )


def test_every_alert_fires_when_it_should_and_no_alert_on_healthy_figures(programs):
    assert "SUCCESS" in promtool(programs, "test", "rules", RULES_TEST)


def test_the_tests_of_rules_have_each_alert_fire_and_be_silent():
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    tests = RULES_TEST.read_text()
    assert set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", tests)) == set(alerts)
    healthy, _ = tests.split("- name: ", 2)[1:]
    assert set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", healthy)) == set(alerts)


def test_prometheus_takes_every_sample_that_is_served(watched):
    server, exporter, _ = watched

    def targets():
        found = server.ask("targets")["activeTargets"]
        return [(one["scrapeUrl"], one["health"], one["lastError"]) for one in found]

    assert until(lambda: targets() == [(f"http://{TARGET}/metrics", "up", "")], 20), targets()

    def all_of_them():
        served = [one for one in exporter.text().splitlines() if not one.startswith("#")]
        (taken,) = server.ask("query", query='count({__name__=~"xdpctl_.*"})')["result"]
        return int(taken["value"][1]) == len(served)

    assert until(all_of_them)
    assert "ingesting" not in server.said()  # samples twice, or out of order


def test_a_redirect_that_fails_raises_its_alert_and_healthy_things_none(watched):
    server, _, _ = watched
    lossy = (("XdpRedirectsFail", "s0"), ("InterfaceDrops", "s0"), ("InterfaceDrops", "tap0"))
    expected = dict.fromkeys(lossy, "firing")

    def told():
        return {
            (one["labels"]["alertname"], one["labels"].get("interface") or one["labels"].get("from")): one
            for one in server.ask("alerts")["alerts"]
        }

    # nothing else is even pending
    assert until(lambda: {key: one["state"] for key, one in told().items()} == expected, 20), told()
    failing = told()["XdpRedirectsFail", "s0"]
    wanted = {"instance": TARGET, "program": "xdp_redirect", "from": "s0", "to": "t0", "errno": LOST[0]}
    assert wanted.items() <= failing["labels"].items()
    assert failing["annotations"]["summary"] == f"xdp_redirect loses frames from s0 to t0 ({LOST[0]})"
    assert re.match(r"[\d.]+ frames a second\. ", failing["annotations"]["description"])
    states = {
        rule["name"]: (rule["health"], rule.get("lastError"))
        for group in server.ask("rules")["groups"]
        for rule in group["rules"]
    }
    assert len(states) == 9
    assert set(states.values()) == {("ok", None)}


def expressions():
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield pytest.param(panel["title"], target, id=f"{panel['title']}, {target['refId']}")


def filled_in(expression, **chosen):
    """Variables as Grafana fills them in: all of each, or what was picked."""
    values = {"instance": ".*", "netns": ".*", "interface": ".*", "__rate_interval": "5s", **chosen}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


@pytest.mark.parametrize(("title", "target"), list(expressions()))
def test_what_the_dashboard_asks_is_answered(watched, title, target):
    server, _, _ = watched

    def asked(**chosen):
        return server.ask("query", query=filled_in(target["expr"], **chosen))["result"]

    if title in WITHOUT_DATA:
        assert asked() == []
        return
    assert until(asked)
    legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - EMPTY
    assert all(legend <= one["metric"].keys() for one in asked())
    assert not [one for one in asked(instance="(192\\\\.0\\\\.2\\\\.1:9435)") if one["metric"]]
    if "$interface" in target["expr"]:
        assert {one["metric"].get("interface", "s0") for one in asked(interface="(s0|t0)")} <= {"s0", "t0"}


def test_variables_of_the_dashboard_have_their_values(watched):
    server, _, _ = watched
    found = {}
    for one in BOARD["templating"]["list"]:
        if one["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"]).groups()
            found[one["name"]] = server.ask(f"label/{label}/values", **{"match[]": filled_in(selector)})
    assert found == {"instance": [TARGET], "netns": [], "interface": ["lo", "s0", "t0", "tap0"]}


def test_in_the_end_prometheus_has_counted_every_frame_and_misses_who_is_gone(watched):
    """The last test of the file: it ends what the others scrape."""
    server, exporter, traffic = watched
    traffic.end()

    def lost():
        query = 'sum(xdpctl_redirect_lost_frames_total{from="s0", to="t0"})'
        return [float(one["value"][1]) for one in server.ask("query", query=query)["result"]]

    assert until(lambda: lost() == [traffic.sent["s1"]]), (lost(), traffic.sent)
    assert exporter.end() == (0, "")
    gone = {"alertname": "XdpctlGone", "severity": "critical", "job": "xdpctl", "instance": TARGET}
    assert until(
        lambda: gone in [one["labels"] for one in server.ask("alerts")["alerts"] if one["state"] == "firing"]
    )
