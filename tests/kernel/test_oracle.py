"""Every diagnosis against the kernel: predicted before, happened, fixed (the table of tests/kernel/oracle)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The oracle's own JSON, from one run in namespaces of its own."""
    path = tmp_path_factory.mktemp("oracle") / "oracle.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel.oracle", "--bad", "--json", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(path.read_text()) | {"exit": done.returncode}


def rows_with(told, verdict):
    return [
        f"{row['scenario']}: predicted {row['predicted']}, happened {row['happened']} {row['note']}"
        for row in told["rows"]
        if row["verdict"] == verdict
    ]


def test_the_kernel_refused_or_lost_nothing_that_was_not_predicted(told):
    assert rows_with(told, "miss") == []


def test_nothing_that_works_was_accused(told):
    assert rows_with(told, "false alarm") == []


def test_the_predicted_errno_and_words_are_the_kernel_s(told):
    assert rows_with(told, "wrong reason") == []


def test_what_can_be_known_is_decided(told):
    assert rows_with(told, "undecided") == []


def test_every_offered_fix_helps_and_its_inverse_takes_it_back(told):
    assert [
        (row["scenario"], row["fix"], row["fixed"])
        for row in told["rows"]
        if row["fixed"] not in ("", "verified", "none offered")
    ] == []
    assert told["totals"]["fixes_verified"] >= 20


def test_the_table_holds_mistakes_and_healthy_twins_enough_to_mean_something(told):
    assert told["totals"]["scenarios"] >= 80
    assert min(told["totals"]["failing"], told["totals"]["healthy"]) >= 40


def test_what_this_kernel_cannot_produce_is_left_out_with_its_reason(told):
    left_out = [row for row in told["rows"] if row["verdict"] == "not here"]
    assert all(row["note"] for row in left_out)
    assert len(left_out) < len(told["rows"]) / 3


def test_the_exit_code_says_whether_anything_is_off(told):
    assert told["exit"] == (0 if all(row["good"] for row in told["rows"]) else 1)


def test_the_oracle_leaves_no_trace_instance_behind(told):
    assert list(Path("/sys/kernel/tracing/instances").glob("xdpctl-*")) == []
