"""`metrics` as Prometheus sees it: scraped over HTTP, against frames sent, two at once, and a clean end."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kernels import LOST
from live import running, until
from prometheus_client.parser import text_string_to_metric_families

from xdpctl.bpf.program import program_by_id
from xdpctl.errors import NotFoundError
from xdpctl.netlink import netns
from xdpctl.trace.frames import Port, ethernet
from xdpctl.trace.metrics import METRICS

pytestmark = pytest.mark.kernel

FRAMES = 50
FRAME = ethernet(b"xdpctl-metrics", destination="02:00:00:00:00:77")


class Exporter:
    """A real `xdpctl metrics` on a free port of the namespace that the tests are in."""

    def __init__(self, *words: str, listen: str = "127.0.0.1:0") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xdpctl.cli", "metrics", "--listen", listen, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.host, self.port = "", 0

    def ready(self) -> None:
        """Waits until it serves."""
        first = self.process.stderr.readline()
        found = re.fullmatch(r"serving http://(\S+):(\d+)/metrics; Ctrl-C ends it\n", first)
        assert found, first + self.process.stderr.read()
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def scrape(self):
        """Families by name."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
        finally:
            connection.close()
        return {one.name: one for one in text_string_to_metric_families(text)}

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples that bear these labels."""
        family = self.scrape()[name]
        return sum(one.value for one in family.samples if labels.items() <= one.labels.items())

    def held(self):
        """Ids of the BPF programs that it holds."""
        texts = [one.read_text() for one in Path(f"/proc/{self.process.pid}/fdinfo").iterdir()]
        return {int(one) for text in texts for one in re.findall(r"^prog_id:\t(\d+)", text, re.MULTILINE)}

    def end(self, number: int = signal.SIGTERM):
        """Exit code, and what it said further."""
        self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out + errors


def loaded(number):
    try:
        program_by_id(number).close()
    except NotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def rig(world_of_module):
    """source s1 (far) - s0 (here) ... t0 (here) - t1 (far), with a redirect from s0 to t0 that is lost."""
    here, far = world_of_module.namespace(), world_of_module.namespace()
    world_of_module.veth("s0", "s1", netns_a=here, netns_b=far)
    world_of_module.veth("t0", "t1", netns_a=here, netns_b=far)
    with running("redirect", "s0", netns_name=here, target="t0"), netns.enter(far), Port("s1") as port:
        yield here, port


@pytest.fixture(scope="module")
def exporters(rig):
    """Two at once over the same namespace; one counts runs, too."""
    here, _ = rig
    made = [Exporter("--netns", here, "--run-times"), Exporter("--netns", here, listen="[::1]:0")]
    try:
        for one in made:
            one.ready()
        yield made
    finally:
        for one in made:
            one.process.kill()
            one.process.communicate()


def test_scrapes_tell_every_frame_that_was_lost_both_of_them(rig, exporters):
    here, port = rig
    before = [one.total("xdpctl_interface_receive_packets", interface="s0") for one in exporters]
    for _ in range(FRAMES):
        port.send(FRAME)
    way = {"from": "s0", "to": "t0", "from_netns": here, "to_netns": here, "errno": LOST[0]}
    for one, was in zip(exporters, before, strict=True):
        assert until(lambda: one.total("xdpctl_redirect_lost_frames", **way) >= FRAMES)  # noqa: B023 - called at once
        assert one.total("xdpctl_redirect_lost_frames", **way) == FRAMES
        assert one.total("xdpctl_redirect_sent_frames", **{"from": "s0"}) == 0
        assert one.total("xdpctl_interface_receive_packets", interface="s0", netns=here) - was == FRAMES
    runs = exporters[0].scrape()["xdpctl_program_runs"].samples
    assert [one.value for one in runs if one.labels["type"] == "xdp"] == [FRAMES]


def test_an_exposition_has_every_family_and_no_series_twice(exporters):
    told = exporters[0].scrape()
    assert set(told) == {one.name for one in METRICS}
    series = [(one.name, *sorted(one.labels.items())) for family in told.values() for one in family.samples]
    assert len(series) == len(set(series))
    attached = told["xdpctl_interface_xdp_attached"].samples
    assert [(one.labels["interface"], one.labels["mode"]) for one in attached] == [("s0", "native")]


def test_scrapes_at_the_same_time_are_all_answered(exporters):
    told = []
    askers = [threading.Thread(target=lambda: told.append(exporters[0].scrape())) for _ in range(4)]
    for one in askers:
        one.start()
    for one in askers:
        one.join()
    assert [len(one) for one in told] == [len(METRICS)] * 4


def test_a_port_in_use_is_said_in_one_line(exporters, xdpctl):
    done = xdpctl("metrics", "--listen", f"127.0.0.1:{exporters[0].port}")
    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{exporters[0].port}: address already in use" in done.stderr
    assert "hint: " in done.stderr


def test_an_address_of_nobody_here_is_said_in_one_line(xdpctl):
    done = xdpctl("metrics", "--listen", "192.0.2.77:9435")
    assert done.returncode == 2
    assert "can't listen on 192.0.2.77:9435: cannot assign requested address" in done.stderr


def test_once_prints_what_a_scrape_would_get(rig, xdpctl):
    done = xdpctl("metrics", "--once", "--netns", rig[0], "--iface", "s*", check=True)
    told = {one.name: one for one in text_string_to_metric_families(done.stdout)}
    assert set(told) == {one.name for one in METRICS}
    assert {one.labels["interface"] for one in told["xdpctl_interface_receive_bytes"].samples} == {"s0"}


def test_a_signal_ends_it_and_nothing_stays_attached(exporters):
    """The last test of the file: it ends what the others scrape."""
    for one, number in zip(exporters, (signal.SIGINT, signal.SIGTERM), strict=True):
        held = one.held()
        assert len(held) > 2
        assert one.end(number) == (0, "")
        assert until(lambda: not any(map(loaded, held)))  # noqa: B023 - called at once
