"""Probes answer what other evidence says too, and leave nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xdpctl.bpf import features

pytestmark = pytest.mark.kernel

RELEASE = tuple(int(number) for number in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
ALWAYS = [name for name in features.FEATURES if name not in {"netkit", "fentry", "freplace", "btf", "tp_btf"}]
"""Those that no configuration takes away from a kernel that has XDP."""


@pytest.mark.parametrize("name", ALWAYS)
def test_a_kernel_since_then_has_the_feature_and_an_older_one_does_not(name):
    since = tuple(int(number) for number in re.findall(r"(\d+)\.(\d+)", features.FEATURES[name].since)[-1])
    assert features.probe(name) == (since <= RELEASE)


def test_every_answer_says_what_it_stands_on():
    for name, answer in features.all().items():
        assert answer.supported is not None, name
        assert answer.evidence
        assert answer.supported or re.search(r": E[A-Z]+$", answer.evidence)


def test_trampolines_are_there_for_all_or_for_none():
    assert features.probe("fentry") or not features.probe("freplace")


def test_typed_tracepoints_need_the_kernel_s_btf():
    assert features.probe("btf") or not features.probe("tp_btf")


def test_an_unknown_feature_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        features.probe("no_such_feature")


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_probing_leaves_no_descriptor_open_so_that_all_it_made_is_gone():
    before = open_files()
    features.answer.cache_clear()
    features.all()
    assert open_files() == before


def test_all_probes_together_are_quick():
    code = (
        "import time; from xdpctl.bpf import features; start = time.monotonic(); features.all();"
        "print(time.monotonic() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) < (10 if os.environ.get("XDPCTL_TEST_SLOW") else 2)


def test_without_capabilities_the_answer_is_unknown_not_no():
    code = (
        "from xdpctl.bpf import failure, features\n"  # before the user changes: the files may not be its to read
        "import os; os.setresuid(65534, 65534, 65534)\n"
        "print(features.answer('frags')); print(features.probe('frags'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "supported=None" in done.stdout
    assert "CAP_BPF" in done.stdout
    assert done.stdout.endswith("False\n")
