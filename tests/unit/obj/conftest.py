"""Objects for tests that need no root: compiled once a session by clang, from sources that stand in the tests."""

from __future__ import annotations

import os
import subprocess

import pytest

HEAD = """
#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """``compiled(source, *flags) -> Path``; the same source is compiled once."""
    folder = tmp_path_factory.mktemp("objects")
    made = {}

    def run(source: str, *flags: str):
        key = (source, flags)
        if key not in made:
            path = folder / f"o{len(made)}.bpf.c"
            path.write_text(HEAD + source)
            include = f"/usr/include/{os.uname().machine}-linux-gnu"
            subprocess.run(
                [
                    "clang",
                    "-g",
                    "-O2",
                    "-Wno-everything",
                    "-target",
                    "bpf",
                    "-I",
                    include,
                    *flags,
                    "-c",
                    str(path),
                    "-o",
                    str(path.with_suffix(".o")),
                ],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
            made[key] = path.with_suffix(".o")
        return made[key]

    return run
