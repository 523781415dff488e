"""Which distribution package brings a tool or a header that a build misses."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Package(NamedTuple):
    """A package by distribution family.

    Attributes:
        debian: its name there.
        fedora: its name there.
        witness: a header it surely brings, "" where it brings none.
    """

    debian: str
    fedora: str
    witness: str = ""

    def hint(self) -> str:
        """What to type."""
        return f"apt install {self.debian} (Fedora: dnf install {self.fedora})"


CLANG = Package("clang", "clang")
BPFTOOL = Package("bpftool", "bpftool")
LIBBPF_HEADERS = Package("libbpf-dev", "libbpf-devel", "bpf/bpf_helpers.h")
KERNEL_HEADERS = Package("linux-libc-dev", "kernel-headers", "asm/types.h")
LIBC_HEADERS = Package("libc6-dev", "glibc-devel", "features.h")
LIBC_32_HEADERS = Package("libc6-dev-i386", "glibc-devel.i686", "gnu/stubs-32.h")
LIBXDP_HEADERS = Package("libxdp-dev", "libxdp-devel", "xdp/libxdp.h")

HEADERS = (
    ("bpf/", LIBBPF_HEADERS),
    ("xdp/", LIBXDP_HEADERS),
    ("linux/", KERNEL_HEADERS),
    ("asm/", KERNEL_HEADERS),
    ("asm-generic/", KERNEL_HEADERS),
    # features.h asks for the stubs of the one architecture that the bpf target looks like: 32 bit
    ("gnu/stubs-32.h", LIBC_32_HEADERS),
    ("gnu/", LIBC_HEADERS),
    ("bits/", LIBC_HEADERS),
    ("sys/", LIBC_HEADERS),
    ("net/", LIBC_HEADERS),
    ("netinet/", LIBC_HEADERS),
    ("arpa/", LIBC_HEADERS),
    ("features.h", LIBC_HEADERS),
    ("stdint.h", LIBC_HEADERS),
    ("stdio.h", LIBC_HEADERS),
    ("stdlib.h", LIBC_HEADERS),
    ("string.h", LIBC_HEADERS),
)
"""How an included name begins -> what brings it; the first that fits."""


def header_hint(name: str, include: Iterable[Path]) -> str:
    """What helps against a missing header, as ``#include`` spells it.

    Args:
        name: ``bpf/bpf_helpers.h``.
        include: folders that were searched: a package that is there already is not told to be installed.
    """
    package = next((package for prefix, package in HEADERS if name.startswith(prefix)), None)
    if package is None:
        return f"name the folder that holds {name} with -I DIR"
    if any((folder / package.witness).exists() for folder in include):
        return f"{package.debian} is installed but has no {name}: name the folder that holds it with -I DIR"
    return package.hint()
