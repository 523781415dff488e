"""Every command that README.md and docs/ show is run, in namespaces of its own, and prints what they say.

Two commands are not run here line by line: ``make test``, because it runs this very test (that it passes is
shown by its own run, and .ci/run calls it), and ``make demo``, which has a test of its own below.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from console import SKIP, disagreement, other_shape, steps, tidy
from sandbox import ROOT, sandbox

FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN_ON_THIS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 6)
"""The pages show Linux 6.6 and newer (tcx, xdp-features): before, commands end the same but say it otherwise."""
COMMANDS = [
    pytest.param(path, step, id=f"{path.name}:{step.line}:{step.command[:60]}")
    for path in FILES
    for step in steps(path.read_text())
    if step.command not in SKIP
]


@pytest.fixture(scope="module")
def boxes():
    """One sandbox a file: its commands build on each other, in the file's order."""
    open_boxes = {}
    try:
        yield open_boxes
    finally:
        for manager, _ in open_boxes.values():
            manager.__exit__(None, None, None)


@pytest.mark.kernel
@pytest.mark.parametrize(("path", "step"), COMMANDS)
def test_a_shown_command_does_what_the_page_says(path: Path, step, boxes):
    if path not in boxes:
        manager = sandbox()
        boxes[path] = (manager, manager.__enter__())
    done = boxes[path][1].run(step.command)
    if done.returncode != step.exit_code:
        there = (
            boxes[path][1]
            .run("ip -d link; bpftool link; find /sys/fs/bpf /run/xdpctl /run/netns; ps -ef")
            .stdout
        )
        pytest.fail(f"{step.command}\nended {done.returncode}, not {step.exit_code}:\n{done.stdout}\n{there}")
    assert "Traceback" not in done.stdout
    if SHOWN_ON_THIS:
        assert disagreement(step.shown, tidy(done.stdout)) is None
    if step.example is not None:
        assert other_shape(step.example, json.loads(done.stdout)) is None


@pytest.mark.kernel
def test_make_demo_does_the_main_job():
    with sandbox() as box:
        done = box.run("make demo", timeout=300)
        left = box.run("ls /run/netns /sys/fs/bpf/xdpctl 2>/dev/null; ip -br link").stdout
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    assert "veth" not in left, f"the demo left something behind: {left}"


def test_the_readme_opens_with_the_two_commands():
    first = [step.command for step in steps((ROOT / "README.md").read_text())][:2]
    assert first == ["make demo", "make test"]
