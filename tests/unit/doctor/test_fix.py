"""Fixes: how they are typed, run, kept or taken back (with commands that touch nothing)."""

import sys

import pytest

from xdpctl.doctor.finding import Finding, Fix, Status
from xdpctl.doctor.fix import apply, command_line


def fix(*argv, netns=None, inverse=None):
    return Fix(argv, netns, False, inverse)


@pytest.mark.parametrize(
    ("netns", "argv", "line"),
    [
        (None, ("ethtool", "-K", "a", "gro", "on"), "ethtool -K a gro on"),
        ("blue", ("ethtool", "-K", "a", "gro", "on"), "ip netns exec blue ethtool -K a gro on"),
        ("pid:7", ("ip", "link"), "nsenter -t 7 -n ip link"),
        ("blue", ("xdpctl", "attach", "a", "p.o"), "xdpctl attach --netns blue a p.o"),
        (None, ("ip", "link", "set", "dev", "a b"), "ip link set dev 'a b'"),
    ],
)
def test_a_line_is_what_one_types(netns, argv, line):
    assert command_line(fix(*argv, netns=netns)) == line


def test_a_namespace_that_can_t_be_typed_is_a_remark():
    assert command_line(fix("ip", "link", netns="net:[5]")) == "ip link   # in net:[5]"


class Machine:
    """Files stand for state: a finding is there while its file is not."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = 0

    def touch(self, name, *, does=None, inverse=True):
        path = self.folder / name
        code = f"import pathlib; pathlib.Path({str(self.folder / (does or name))!r}).touch()"
        undo = f"import pathlib; pathlib.Path({str(path)!r}).unlink(missing_ok=True)"
        back = (sys.executable, "-c", undo) if inverse else None
        return fix(sys.executable, "-c", code, inverse=back)

    def finding(self, name, *steps, status=Status.FAIL):
        return Finding(f"test.{name}", status, "a", None, f"{name} is missing", fix=steps)

    def check(self, *findings):
        def look():
            self.seen += 1
            return [one for one in findings if not (self.folder / one.id.removeprefix("test.")).exists()]

        return look


@pytest.fixture
def state(tmp_path):
    return Machine(tmp_path)


def test_a_fix_that_helps_is_kept(state):
    finding = state.finding("x", state.touch("x"))
    (outcome,) = apply(state.check(finding), agree=lambda _: True)
    assert outcome.helped
    assert len(outcome.done) == 1
    assert (state.folder / "x").exists()


def test_a_fix_that_does_not_help_is_taken_back(state):
    step = fix(*state.touch("x", does="other").argv, inverse=state.touch("other").inverse)
    (outcome,) = apply(state.check(state.finding("x", step)), agree=lambda _: True)
    assert not outcome.helped
    assert len(outcome.undone) == 1
    assert not (state.folder / "other").exists()


def test_when_a_step_fails_those_before_it_are_taken_back_in_reverse(state):
    good = fix(*state.touch("first").argv, inverse=state.touch("first").inverse)
    bad = fix(sys.executable, "-c", "import sys; sys.exit('no such thing')", inverse=("true",))
    heard = []
    (outcome,) = apply(state.check(state.finding("x", good, bad)), agree=lambda _: True, tell=heard.append)
    assert "no such thing" in outcome.error
    assert not (state.folder / "first").exists()
    assert len(heard) == 3


def test_what_has_no_inverse_stays_and_is_told(state):
    step = fix(*state.touch("other").argv, inverse=None)
    (outcome,) = apply(state.check(state.finding("x", step)), agree=lambda _: True)
    assert not outcome.helped
    assert len(outcome.done) == 1
    assert (state.folder / "other").exists()


def test_a_missing_tool_is_a_word(state):
    (outcome,) = apply(state.check(state.finding("x", fix("no-such-tool-here"))), agree=lambda _: True)
    assert "not installed" in outcome.error


def test_nothing_runs_without_agreement_or_for_other_statuses(state):
    finding = state.finding("x", state.touch("x"))
    assert apply(state.check(finding), agree=lambda _: False) == []
    warning = state.finding("x", state.touch("x"), status=Status.WARN)
    assert apply(state.check(warning), agree=lambda _: True) == []
    assert not (state.folder / "x").exists()
    assert apply(state.check(warning), agree=lambda _: True, statuses=(Status.WARN,))[0].helped


def test_several_findings_are_fixed_one_after_the_other(state):
    both = [state.finding("x", state.touch("x")), state.finding("y", state.touch("y"))]
    outcomes = apply(state.check(*both), agree=lambda _: True)
    assert [one.helped for one in outcomes] == [True, True]
