"""``xdpctl metrics``: the figures of ``xdpctl top`` for Prometheus, by its own client library."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import options
from xdpctl.errors import ConfigError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.trace.sampler import Sampler

app = typer.Typer()


@app.command()
def metrics(
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Serve /metrics here; [::1]:9435 for IPv6.")
    ] = "127.0.0.1:9435",
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.only(),
    ] = None,
    netns: Annotated[
        Optional[str],  # noqa: UP045
        options.netns("Watch this network namespace; the port is opened in the caller's."),
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="Watch every network namespace, containers' too.")
    ] = False,
    run_times: Annotated[
        bool, typer.Option("--run-times", help="Have programs' runs counted: costs each 20 to 70 ns.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print the exposition once, and end.")] = False,
) -> None:
    """Serve what `xdpctl top` shows for Prometheus, until Ctrl-C; nothing stays attached afterwards.

    docs/metrics.md lists the metrics; configs/ has a dashboard and alert rules.

    xdpctl metrics --iface 'eth*'

    xdpctl metrics --once
    """
    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns: give one of them")
    address, port = address_and_port(listen)
    from xdpctl.cli.ending import ends_by_signal
    from xdpctl.trace.sampler import Sampler

    with (
        ends_by_signal(),
        Sampler(
            interfaces or (),
            in_netns=netns,
            all_netns=all_netns,
            run_times="always" if run_times else "off",
        ) as sampler,
    ):
        if once:
            sys.stdout.write(exposition(sampler))
            sys.stdout.flush()
            return
        _serve(sampler, address, port)


def address_and_port(text: str) -> tuple[str, int]:
    """``127.0.0.1:9435``, ``[::1]:9435``, ``:9435`` (every address).

    Raises:
        ConfigError: it is none.
    """
    address, colon, port = text.rpartition(":")
    wrong = ConfigError(f"--listen {text}: not ADDRESS:PORT", hint="--listen 127.0.0.1:9435, or [::1]:9435")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise wrong
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise wrong
    return address or "0.0.0.0", int(port)  # noqa: S104 - asked for by leaving the address out


class Collector:
    """What the client library asks for families at each scrape.

    Args:
        sampler: looks at the machine; one scrape at a time does.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._lock = threading.Lock()
        from xdpctl.trace.metrics import Rising

        self._rising = Rising()
        self.failure: XdpctlError | None = None
        self.ended = threading.Event()
        """A look has failed: there will be no better one."""

    def describe(self) -> list[Any]:
        """Nothing: a look would be needed to answer."""
        return []

    def collect(self) -> Iterator[Any]:
        """Every family, with the samples of now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        from xdpctl.trace.metrics import METRICS, VERDICTS, Look

        with self._lock:
            start = time.monotonic()
            try:
                sample = self._sampler.sample()
            except XdpctlError as why:
                self.failure = why
                self.ended.set()
                return
            look = Look.of(sample, time.monotonic() - start, self._sampler.tracing)
            for metric in METRICS:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = kind(metric.name, metric.help, labels=metric.labels)
                for labels, value in metric.read(look):
                    steady = self._rising.of(labels, value) if metric.name == VERDICTS else value
                    family.add_metric(labels, steady)
                yield family


def registry(collector: Collector) -> Any:
    """A registry of our metrics alone: none of Python's or the process's."""
    from prometheus_client import CollectorRegistry

    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    return made


def exposition(sampler: Sampler) -> str:
    """The text that a scrape gets.

    Raises:
        XdpctlError: nothing can be read.
    """
    from prometheus_client import generate_latest

    collector = Collector(sampler)
    text = generate_latest(registry(collector)).decode()
    if collector.failure is not None:
        raise collector.failure
    return text


def _serve(sampler: Sampler, address: str, port: int) -> None:
    """Answer scrapes until a signal ends it."""
    import os
    import socket

    from prometheus_client import start_http_server

    from xdpctl.cli.output import note

    shown = f"[{address}]" if ":" in address else address
    collector = Collector(sampler)
    try:
        server, _thread = start_http_server(port, addr=address, registry=registry(collector))
    except socket.gaierror as why:
        raise ConfigError(f"can't listen on {shown}:{port}: {address} is no address of a machine") from why
    except OSError as why:
        raise ConfigError(
            f"can't listen on {shown}:{port}: {os.strerror(why.errno or 0).lower()}",
            hint=_listen_hint(why.errno),
        ) from why
    try:
        note(f"serving http://{shown}:{server.server_address[1]}/metrics; Ctrl-C ends it")
        for text in sampler.notes:
            note(f"note: {text}")
        collector.ended.wait()
    finally:
        server.shutdown()
        server.server_close()
    if collector.failure is not None:
        raise collector.failure


def _listen_hint(number: int | None) -> str | None:
    import errno

    return {
        errno.EADDRINUSE: "another process has the port (ss -ltnp shows it): --listen 127.0.0.1:9436",
        errno.EADDRNOTAVAIL: "no interface has this address: ip address",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
    }.get(number or 0)
