"""What libbpf says is captured by the thread that made it speak, and printed nowhere."""

from __future__ import annotations

import threading

import pytest

from xdpctl.libbpf import log
from xdpctl.libbpf.library import CallError, lib


@pytest.fixture
def speak(tmp_path):
    """Make libbpf complain about a file that is no object; the file's name is in what it says."""

    def run(name):
        path = tmp_path / name
        path.write_bytes(b"not ELF " * 20)
        with pytest.raises(CallError):
            lib().bpf_object__open_file(str(path).encode(), None)

    return run


def test_a_message_lands_in_the_capture_and_not_on_stderr(speak, capfd):
    with log.capture() as lines:
        speak("one")
    assert any("one" in line for line in lines)
    assert all(not line.endswith("\n") for line in lines)
    assert capfd.readouterr() == ("", "")


def test_outside_a_capture_nothing_is_printed(speak, capfd):
    speak("silent")
    assert capfd.readouterr() == ("", "")


def test_the_inner_capture_takes_all_and_the_outer_goes_on(speak):
    with log.capture() as outer:
        speak("first")
        with log.capture() as inner:
            speak("second")
        speak("third")
    assert any("second" in line for line in inner)
    assert not any("second" in line for line in outer)
    assert any("third" in line for line in outer)


def test_each_thread_hears_itself_alone(speak):
    heard, together = {}, threading.Barrier(4)

    def work(name):
        with log.capture() as lines:
            together.wait(timeout=10)
            for _ in range(20):
                speak(name)
        heard[name] = lines

    threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(heard) == 4
    for name, lines in heard.items():
        assert sum(name in line for line in lines) >= 20
        assert not any(other in line for other in heard if other != name for line in lines)


def test_debug_messages_come_only_when_asked_for(speak):
    with log.capture() as some:
        speak("x")
    with log.capture(log.DEBUG) as more:
        speak("x")
    assert len(more) > len(some)


def test_an_exception_inside_the_callback_stays_there(speak, monkeypatch, capfd):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(log, "_vsnprintf", fail)
    with log.capture() as lines:
        speak("x")
    assert lines == []
    assert capfd.readouterr().err == ""


def test_ctrl_c_inside_the_callback_comes_out_after_the_call(speak, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    after = []
    monkeypatch.setattr(log, "_vsnprintf", interrupt)

    def call():
        with log.capture():
            speak("x")
            after.append("the call ended as it would have")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert after


def test_a_long_message_is_cut_and_not_overrun(tmp_path):
    path = tmp_path / ("d" * 200) / ("e" * 200)
    with log.capture() as lines, pytest.raises(CallError):
        lib().bpf_object__open_file(b"/".join([str(path).encode()] * 60), None)
    assert all(len(line) < 16384 for line in lines)
