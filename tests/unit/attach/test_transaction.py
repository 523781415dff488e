"""All or nothing: changes are undone in reverse, signals wait for a safe place."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from xdpctl.attach.transaction import held_signals, transaction
from xdpctl.errors import AttachError, XdpctlError


def test_changes_that_succeed_stay():
    undone = []
    with transaction() as changes:
        changes.add("one", lambda: undone.append(1))
    assert undone == []


def test_a_failure_undoes_the_last_change_first():
    undone = []
    with pytest.raises(AttachError, match="no"), transaction() as changes:  # noqa: PT012
        changes.add("one", lambda: undone.append(1))
        changes.add("two", lambda: undone.append(2))
        raise AttachError("no")
    assert undone == [2, 1]


def test_what_could_not_be_undone_is_told_and_the_rest_is_undone_all_the_same():
    undone = []

    def fails():
        raise OSError(5, "Input/output error")

    told = r"no; could not be put back: two .*Input/output error"
    with pytest.raises(AttachError, match=told), transaction() as changes:  # noqa: PT012
        changes.add("one", lambda: undone.append(1))
        changes.add("two", fails)
        raise AttachError("no")
    assert undone == [1]


def test_ctrl_c_waits_for_a_check_and_then_undoes_everything():
    undone, reached = [], []
    with pytest.raises(KeyboardInterrupt), transaction() as changes:  # noqa: PT012
        changes.add("one", lambda: undone.append(1))
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
        changes.check()
        reached.append("never")
    assert (undone, reached) == ([1], ["after the signal"])


def test_ctrl_c_after_the_last_change_undoes_too():
    undone = []
    with pytest.raises(KeyboardInterrupt), transaction() as changes:  # noqa: PT012
        changes.add("one", lambda: undone.append(1))
        signal.raise_signal(signal.SIGINT)
    assert undone == [1]


def test_signals_that_nobody_looked_at_are_delivered_at_the_end():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: got.append(number))
    try:
        with held_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == []
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with transaction() as changes:
            signal.raise_signal(signal.SIGINT)
            changes.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(XdpctlError), transaction():
        raise XdpctlError("x")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_have_nothing_to_hold():
    ended = []

    def work():
        with transaction() as changes:
            changes.check()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert ended == [True]
