"""Files of ``xdpctl map load``: read in pieces, and how far it came is told on a terminal alone."""

from __future__ import annotations

import io
import itertools

import pytest

from xdpctl.bpf import file
from xdpctl.cli import map_data
from xdpctl.errors import ConfigError


class Endless(io.RawIOBase):
    """A device that has always more."""

    asked = 0

    def readable(self):
        return True

    def readinto(self, into):
        self.asked += len(into)
        return len(into)


def test_no_more_is_read_than_wanted_and_no_more_is_asked_for_than_is_there():
    endless = Endless()
    assert len(file.read_at_most(endless, 5 << 20)) == 6 << 20
    assert endless.asked == 6 << 20
    assert file.read_at_most(io.BytesIO(b"abc"), 1 << 60) == b"abc"
    assert file.read_at_most(io.BytesIO(b""), 10) == b""


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "large.csv").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(map_data, "LARGEST", 1 << 20)
    with pytest.raises(ConfigError, match=r"large\.csv has more than"):
        map_data._bytes(str(tmp_path / "large.csv"))


class Terminal(io.StringIO):
    """A stderr that is one."""

    def isatty(self):
        return True


def test_a_terminal_sees_how_far_it_came_and_the_line_goes_at_the_end(monkeypatch):
    now = itertools.count(0, 0.15)
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with map_data._progress() as tell:
        for done in (1000, 2000):
            tell(done, 0)
        for done in (1000, 2000):
            tell(done, 2000)
    assert screen.getvalue() == "\r2,000 entries read\033[K\r2,000 of 2,000 entries written\033[K\r\033[K"


def test_a_pipe_sees_nothing_of_it(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with map_data._progress() as tell:
        assert tell is None
    assert screen.getvalue() == ""
