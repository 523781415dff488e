"""kill -9 before and after every step of an apply; what it leaves is finished, or undone, without a difference."""

from __future__ import annotations

import os

import pytest
from attachments import agree
from deployments import (
    SOURCE,
    apply_file,
    assert_same,
    carry_out,
    destroy,
    forget_all,
    killed_at,
    machine,
    plan_of,
    recover,
)

from xdpctl.attach.status import status
from xdpctl.deploy import apply, journal, state
from xdpctl.errors import XdpctlError

pytestmark = pytest.mark.kernel
SLOW = "XDPCTL_TEST_SLOW" in os.environ
"""In a guest without hardware's help every third step has to do; the running kernel takes them all."""

FILE = """
[deployment]
name = "edge"
[[program]]
name = "guard"
object = "{first}"
[program.globals]
limit = 9
[program.maps.table]
entries = {{ 1 = 5, 2 = 6 }}
[[interface]]
match = "ka*"
netns = "{netns}"
mtu = 1400
features = {{ gro = true }}
[[interface.attach]]
program = "guard"
[[interface.attach]]
program = "guard"
hook = "ingress"
"""
NEXT = """
[deployment]
name = "edge"
[[program]]
name = "guard"
object = "{second}"
[program.maps.table]
entries = {{ 2 = 60, 3 = 70 }}
[[interface]]
name = "kb0"
netns = "{netns}"
features = {{ gro = true, tso = false }}
mtu = 1300
[[interface.attach]]
program = "guard"
mode = "generic"
[[interface]]
name = "ka0"
netns = "{netns}"
mtu = 1350
[[interface.attach]]
program = "guard"
[[interface.attach]]
program = "guard"
hook = "egress"
"""


@pytest.fixture(autouse=True)
def _history_ends_with_the_test():
    yield
    forget_all()


@pytest.fixture
def files(world, compile_c, tmp_path):
    """Two deployments of one name: from the first to the second takes more than twelve changes."""
    inside = world.namespace()
    for name in ("ka0", "ka1", "kb0"):
        world.veth(name, f"{name}p", netns_a=inside, netns_b=inside)
    made = []
    names = {
        "first": compile_c(SOURCE, None, "-DVERSION=1"),
        "second": compile_c(SOURCE, None, "-DVERSION=2"),
        "netns": inside,
    }
    for number, text in enumerate((FILE, NEXT)):
        path = tmp_path / f"{number}.toml"
        path.write_text(text.format(**names))
        made.append(path)
    return (*made, inside)


def test_every_step_may_be_the_last_and_both_ways_lead_out(world, files):
    first, second, inside = files
    empty = machine(inside)
    apply_file(first)
    before = machine(inside)
    there = plan_of(second)  # planned once: the machine comes back to the same state each time
    count = len(there.changes)
    assert count >= 12, [one.kind for one in there.changes]
    carry_out(there)
    after = machine(inside)
    back = plan_of(first)
    carry_out(back)
    assert_same(before, inside)
    points = ["begin", "commit", *(f"{side}:{at}" for at in range(count) for side in ("before", "after"))]
    for point in points[:: 3 if SLOW else 1]:
        for resume in (False, True):
            assert killed_at(point, lambda: carry_out(there)), point
            assert status(netns=inside).notes == (), point  # what is there is told, half done or not
            if not resume and points.index(point) % 4 == 0:
                agree(world, inside)
            with pytest.raises(XdpctlError, match="was interrupted"):
                apply.require_nothing_pending()
            recover(resume=resume)
            assert_same(after if resume else before, inside)
            kept = state.existing("edge").deployment
            assert len(kept.interfaces) == (2 if resume else 1)
            if resume:
                carry_out(back)
                assert_same(before, inside)
    destroy("edge")
    assert_same(empty, inside)


def test_after_the_commit_only_the_cleaning_up_is_left(files):
    first, second, inside = files
    apply_file(first)
    apply_file(second)
    after = machine(inside)
    apply_file(first)
    assert killed_at("end", lambda: apply_file(second))
    found = journal.read()
    assert found is not None
    assert found.committed
    recover(resume=True)
    assert_same(after, inside)
    destroy("edge")


def test_an_undoing_that_is_killed_is_undone_further(files):
    first, second, inside = files
    apply_file(first)
    before = machine(inside)
    count = len(plan_of(second).changes)
    assert killed_at(f"after:{count - 1}", lambda: apply_file(second))
    for number in range(0, count, 3):
        assert killed_at(f"before-undo:{count - 1 - number}", lambda: recover(resume=False))
    recover(resume=False)
    assert_same(before, inside)
    destroy("edge")


def test_destroying_is_journalled_too(files):
    first, _, inside = files
    empty = machine(inside)
    apply_file(first)
    before = machine(inside)
    assert killed_at("after:3", lambda: destroy("edge"))
    recover(resume=False)
    assert_same(before, inside)
    assert killed_at("before:3", lambda: destroy("edge"))
    recover(resume=True)
    assert_same(empty, inside)
