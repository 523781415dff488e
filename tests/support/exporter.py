"""A real `xdpctl metrics`, and what it tells who scrapes it."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


class Exporter:
    """A real `xdpctl metrics` in the network namespace that it is made in, on a free port if none is given."""

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

    def text(self) -> str:
        """What a scrape gets, of the older format."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
        finally:
            connection.close()
        return text

    def scrape(self):
        """Families by name."""
        return {one.name: one for one in text_string_to_metric_families(self.text())}

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
