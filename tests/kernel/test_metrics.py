"""`metrics` as Prometheus sees it: scraped over HTTP, against frames sent, two at once, and a clean end."""

from __future__ import annotations

import signal
import threading

import pytest
from exporter import Exporter
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
