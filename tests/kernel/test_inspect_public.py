"""Objects of other people's making, out of Debian's packages: the verdict beforehand, then the real load.

The packages are fetched by apt when the test runs and unpacked into a cache folder; nothing of them is kept in the
repository. Where a program carries its objects inside (libbpf skeletons), they are cut out of it.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from xdpctl.bpf.object import Object
from xdpctl.errors import ObjectError, VerifierError, XdpctlError
from xdpctl.libbpf.library import version
from xdpctl.obj import reader, sections
from xdpctl.obj.kernel import gather
from xdpctl.obj.kinds import ATTACH_TYPE_NUMBERS
from xdpctl.obj.verdict import fails, verdict

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDPCTL_CACHE") or ROOT / ".cache") / "public-objects"

PACKAGES = {
    # package: what styles of objects it brings
    "xdp-tools": "XDP dispatcher, freplace components, pinned maps",
    "libxdp1": "the same, where the distribution puts them into the library's package",
    "xdp-tests": "minimal XDP programs, long names",
    "golang-github-cilium-ebpf-dev": "legacy maps, static programs, both byte orders, CO-RE without a kernel's types",
    "ir-keytable": "lirc_mode2 programs with maps in sections of their own",
    "libbpf-tools": "CO-RE tracing programs inside of executables",
    "libknot13": "an XDP program inside of a shared library",
}
STYLES = {
    # id of a problem: how many objects at least must show it, so that the collection stays a broad one
    "byte-order": 5,
    "legacy-maps": 3,
    "bad-relocation": 3,
    "freplace-target": 1,
    "core-missing": 2,
    "max-entries-zero": 2,
    "missing-function": 2,
    "static-program": 1,
    "license": 1,
}


OUTSIDE = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
"""The machine's network namespace, for apt: taken on import, before the tests get an empty one of their own."""


def apt(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get in a folder, with the machine's network."""
    return subprocess.run(
        [
            "nsenter",
            f"--net=/proc/self/fd/{OUTSIDE}",
            "apt-get",
            "-qq",
            "-o",
            "APT::Sandbox::User=root",
            *words,
        ],
        cwd=folder,
        pass_fds=(OUTSIDE,),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fetch(package: str) -> Path | None:
    """The package's files, fetched by apt unless they are in the cache; None: this distribution has no such package."""
    folder = CACHE / package
    if (folder / "unpacked").is_dir():
        return folder / "unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    done = apt(folder, "download", package)
    if "Unable to locate" in done.stderr:  # perhaps only because nobody has fetched the lists yet
        apt(folder, "update")
        done = apt(folder, "download", package)
    files = sorted(folder.glob("*.deb"))
    if not files and "Unable to locate" in done.stderr:
        return None
    if not files:
        pytest.skip(f"Debian's packages can't be fetched here: {done.stderr.strip()}")
    subprocess.run(["dpkg-deb", "-x", files[-1], folder / "part"], check=True, timeout=120)
    (folder / "part").rename(folder / "unpacked")
    for one in files:
        one.unlink()
    return folder / "unpacked"


def embedded(data: bytes) -> list[bytes]:
    """The relocatable BPF objects inside of an executable."""
    found = []
    for match in re.finditer(rb"\x7fELF\x02\x01\x01.{9}\x01\x00\xf7\x00", data, re.DOTALL):
        start = match.start()
        if start == 0 or start + 64 > len(data):
            continue
        (shoff,) = struct.unpack_from("<Q", data, start + 40)
        (count,) = struct.unpack_from("<H", data, start + 60)
        end = shoff + 64 * count
        for index in range(count):
            kind, offset, size = struct.unpack_from("<4xI16xQQ", data, start + shoff + 64 * index)
            if kind != 8:
                end = max(end, offset + size)
        found.append(data[start : start + end])
    return found


def objects() -> dict[str, Path]:
    """Name -> object file, those of executables cut out into the cache."""
    found: dict[str, Path] = {}
    cut = CACHE / "cut-out"
    cut.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        folder = fetch(package)
        for path in sorted(folder.rglob("*")) if folder is not None else ():
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                head = file.read(20)
            if head[:4] != b"\x7fELF":
                continue
            if head[18:20] in (b"\xf7\0", b"\0\xf7"):
                found[f"{package}/{path.name}"] = path
                continue
            for number, data in enumerate(embedded(path.read_bytes())):
                target = cut / f"{package}-{path.name}-{number}.o"
                if not target.exists():
                    target.write_bytes(data)
                found[f"{package}/{target.name}"] = target
    return found


def load(path: Path, pins: Path, *, ours: bool) -> tuple[bool, str]:
    """Whether it loads (with at least one program), and what was said otherwise."""
    try:
        obj = reader.read(path)
        with Object.open(path, pin_root=pins) as opened:
            for one in obj.programs if ours else ():
                newer = one.since_libbpf is not None and sections.version(one.since_libbpf) > version()
                if one.type_from == "alias" or newer:
                    number = ATTACH_TYPE_NUMBERS[one.attach_type] if one.attach_type else None
                    opened.program(one.name).set_type(one.type, number)
            opened.load()
            return bool(opened.programs), "no program"
    except VerifierError as error:
        return False, f"verifier: {error.line}"
    except XdpctlError as error:
        return False, error.message


def logic_of(said: str) -> bool:
    """The verifier refused what a program does, which no verdict claims to know."""
    return said.startswith("verifier: ") and not re.search(
        "GPL|CO-RE|helper|unknown func|kernel function", said
    )


def test_verdicts_of_public_objects_are_what_loading_does():
    found = objects()
    assert len(found) >= 60, sorted(found)
    pins = Path("/sys/fs/bpf/public")
    pins.mkdir()
    wrong, styles, compared, loaded = [], Counter(), 0, 0
    for name, path in found.items():
        try:
            obj = reader.read(path)
        except ObjectError as error:
            assert "has no program" in error.message, name
            styles["no-program"] += 1
            continue
        facts = gather(obj, pin_root=pins)
        for ours in (True, False):
            problems = verdict(obj, facts, loader="xdpctl" if ours else "libbpf")
            loads, said = load(path, pins, ours=ours)
            for left in pins.iterdir():
                left.unlink()
            if ours:
                styles.update({one.id for one in problems})
                loaded += loads
            compared += 1
            if fails(problems) == loads and not logic_of(said):
                wrong.append((name, ours, [one.message for one in problems if one.severity == "fail"], said))
    assert not wrong, wrong
    assert loaded >= 20
    assert compared >= 100
    assert {style: styles[style] for style in STYLES if styles[style] < STYLES[style]} == {}
