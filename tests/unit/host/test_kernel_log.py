"""Lines of the kernel's log about page pools, as old and new kernels print them."""

from __future__ import annotations

from xdpctl.host.kernel_log import parse

LOG = """\
<4>[  100.500000] page_pool_release_retry() stalled pool shutdown 20 inflight 60 sec
<4>[  160.500000][  T123] page_pool_release_retry() stalled pool shutdown: id 9, 7 inflight 120 sec
<6>[  161.000000] eth0: link up
<4>[  220.500000] page_pool_release_retry() stalled pool shutdown: id 9, 5 inflight 181 sec
<4>[  221.000000] Negative(-3) inflight packet-pages
<0>[  230.000000] unregister_netdevice: waiting for veth0 to become free. Usage count = 2
page_pool_release_retry() stalled pool shutdown: id 10, 1 inflight 60 sec
""".splitlines()


def test_the_last_line_about_each_pool_and_device_is_kept_with_how_often_it_came():
    told = [
        (one.kind, one.at, one.pool_id, one.pages, one.seconds, one.device, one.count) for one in parse(LOG)
    ]
    assert told == [
        ("stalled", 100.5, None, 20, 60, None, 1),
        ("stalled", 220.5, 9, 5, 181, None, 2),
        ("negative", 221.0, None, -3, None, None, 1),
        ("device-waits", 230.0, None, None, None, "veth0", 1),
        ("stalled", None, 10, 1, 60, None, 1),
    ]
