"""Kernels, QEMU and what boots them, fetched once from Debian's archives into a cache folder.

Nothing here touches the machine's own packages: apt works on lists and a status of its own, packages are
unpacked privately, and QEMU runs on the loader and libraries it was unpacked with. The mirrors' addresses
are taken from the machine's apt at run time.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KERNELS = {"5.10": "bullseye-security", "6.1": "bookworm", "6.12": "bookworm-backports", "7": "sid"}
"""Kernel series -> the Debian suite whose linux-image-amd64 is fetched."""

QEMU_SUITES = ("bookworm", "bookworm-security", "bookworm-backports")
QEMU = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
"""QEMU 10 (backports) is the first in reach that emulates igb; these four must come from there together."""
BOOT_TOOLS = ("kmod", "busybox-static")
VIRTIOFSD_SUITE = "trixie"
"""virtiofs caches in the guest; over 9p every exec and import is read anew (`import typer` 10 s instead of 1)."""

LIBBPF = {"1.4": "bookworm-backports", "newest": "sid"}
"""libbpf variants for the bindings' tests."""


class FetchError(Exception):
    """Something could not be fetched; the message says what and why."""


def cache_dir() -> Path:
    """XDPCTL_CACHE, or xdpctl/matrix under the user's cache folder."""
    chosen = os.environ.get("XDPCTL_CACHE")
    base = (
        Path(chosen)
        if chosen
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xdpctl"
    )
    folder = base / "matrix"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One fetch at a time."""
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(*argv: str, cwd: Path | None = None, timeout: float = 900) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise FetchError(f"{' '.join(argv[:1] + argv[-3:])} ended {done.returncode}:\n{tail}")
    return done.stdout


def _sites() -> tuple[str, str]:
    """Addresses of the main and the security archive, as this machine's apt knows them."""
    listing = _run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages")
    pairs = [line.split() for line in listing.splitlines() if len(line.split()) == 2]
    main = next((site for site, release in pairs if re.fullmatch(r"[a-z]+", release)), None)
    security = next((site for site, release in pairs if release.endswith("-security")), None)
    if main is None:
        raise FetchError("apt knows no Debian archive: run `apt-get update` first")
    # Debian's security archive lies beside the main one on every full mirror
    return main, security or re.sub(r"/debian/?$", "/debian-security", main)


@dataclass(frozen=True)
class Suites:
    """An apt of our own over some suites, with an empty dpkg status: every dependency is told, none assumed."""

    folder: Path
    suites: tuple[str, ...]

    @property
    def _options(self) -> list[str]:
        pairs = {
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::State": self.folder,
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
            "APT::Get::List-Cleanup": "false",
        }
        return [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Fetch the suites' package lists."""
        for part in ("lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").write_text("")
        main, security = _sites()
        lines = [
            f"deb {security if suite.endswith('-security') else main} {suite} main" for suite in self.suites
        ]
        (self.folder / "sources.list").write_text("\n".join(lines) + "\n")
        _run("apt-get", *self._options, "-qq", "update")

    def closure(self, *packages: str) -> list[str]:
        """`name=version` of the packages and all they depend on."""
        plan = _run("apt-get", *self._options, "-s", "--no-install-recommends", "install", *packages)
        return [
            f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
        ]

    def depends(self, package: str) -> list[str]:
        """Names that the newest version of a package depends on (first alternatives)."""
        shown = _run("apt-cache", *self._options, "show", "--no-all-versions", package)
        line = next((one for one in shown.splitlines() if one.startswith("Depends: ")), "")
        return [part.split()[0] for part in line.removeprefix("Depends: ").split(",") if part.strip()]

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """The packages' files."""
        into.mkdir(parents=True, exist_ok=True)
        _run("apt-get", *self._options, "-qq", "download", *packages, cwd=into)
        return sorted(into.glob("*.deb"))


def _suites(cache: Path, name: str, suites: Sequence[str]) -> Suites:
    made = Suites(cache / "apt" / name, tuple(suites))
    made.update()
    return made


def _unpack(packages: Sequence[Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _run("dpkg-deb", "-x", str(package), str(target))


@contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it when the block succeeds: never a half-filled cache."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


@dataclass(frozen=True)
class KernelFiles:
    """One unpacked kernel package."""

    series: str
    release: str
    root: Path

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"


@dataclass(frozen=True)
class Tools:
    """QEMU and the tools that virtme-ng looks for, below one folder."""

    root: Path

    @property
    def bin(self) -> Path:
        """Wrappers to put in front of PATH."""
        return self.root / "wrappers"


def kernel(series: str, *, say: bool = True) -> KernelFiles:
    """A Debian kernel of `series`, fetched and unpacked once (`KERNELS` names the suite)."""
    cache = cache_dir()
    target = cache / f"kernel-{series}"
    with locked(cache):
        if not target.exists():
            if say:
                print(f"fetching kernel {series} from {KERNELS[series]}", flush=True)
            tools_root = _tools(cache, say=say)
            suites = _suites(cache, f"kernel-{series}", [KERNELS[series]])
            image = next(
                name for name in suites.depends("linux-image-amd64") if name.startswith("linux-image-")
            )
            names = [image]
            # from 7.x the image is split in three; the image package is then an empty one
            names += [
                name for name in suites.depends(image) if name.startswith(("linux-binary-", "linux-modules-"))
            ]
            with _fresh(target) as partial:
                _unpack(suites.download(names, partial / "packages"), partial)
                shutil.rmtree(partial / "packages")
                _arrange(partial, image.removeprefix("linux-image-"), tools_root)
    release = next(path.name.removeprefix("vmlinuz-") for path in (target / "boot").glob("vmlinuz-*"))
    return KernelFiles(series, release, target)


def _arrange(root: Path, release: str, tools: Path) -> None:
    """boot/ beside lib/modules/, as virtme-ng expects, with the module dependencies worked out."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    boot = root / "boot"
    boot.mkdir(exist_ok=True)
    if not (boot / f"vmlinuz-{release}").exists():
        shutil.copy(root / "usr/lib/modules" / release / "vmlinuz", boot / f"vmlinuz-{release}")
    for junk in ("usr/share", "usr/lib/debug"):
        shutil.rmtree(root / junk, ignore_errors=True)
    _run(str(tools / "wrappers" / "depmod"), "-b", str(root), release)


def tools(*, say: bool = True) -> Tools:
    """QEMU, depmod and busybox, fetched and unpacked once."""
    cache = cache_dir()
    with locked(cache):
        return Tools(_tools(cache, say=say))


def _tools(cache: Path, *, say: bool) -> Path:
    target = cache / "tools"
    if target.exists():
        return target
    if say:
        print("fetching QEMU and boot tools", flush=True)
    suites = _suites(cache, "tools", QEMU_SUITES)
    wanted = suites.closure(*(f"{name}/bookworm-backports" for name in QEMU), *BOOT_TOOLS)
    with _fresh(target) as partial:
        _unpack(suites.download(wanted, partial / "packages"), partial)
        shutil.rmtree(partial / "packages")
        for junk in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(partial / junk, ignore_errors=True)
        share = "$root/usr/share"
        _wrap(
            partial,
            "qemu-system-x86_64",
            "usr/bin/qemu-system-x86_64",
            f'-L "{share}/qemu" -L "{share}/seabios" -L "$root/usr/lib/ipxe/qemu"',
        )
        for name in ("depmod", "modprobe", "insmod", "rmmod", "modinfo"):
            _wrap(partial, name, "bin/kmod")
        (partial / "wrappers" / "busybox").symlink_to("../bin/busybox")  # static, needs no loader
        suites = _suites(cache, "virtiofsd", [VIRTIOFSD_SUITE])
        daemon = partial / "virtiofsd"
        _unpack(suites.download(suites.closure("virtiofsd"), daemon / "packages"), daemon)
        shutil.rmtree(daemon / "packages")
        _wrap(daemon, "virtiofsd", "usr/libexec/virtiofsd")
        (partial / "wrappers" / "virtiofsd").symlink_to("../virtiofsd/wrappers/virtiofsd")
    return target


def netdevsim(*, say: bool = True) -> Path:
    """netdevsim.ko for the 6.12 kernel, built from Debian's source package against Debian's headers.

    Debian builds its kernels without CONFIG_NETDEVSIM; the driver's folder alone is taken from the sources.
    """
    image = kernel("6.12", say=say)
    cache = cache_dir()
    target = cache / f"netdevsim-{image.release}"
    with locked(cache):
        if not target.exists():
            if say:
                print("fetching the 6.12 sources and headers, building netdevsim", flush=True)
            suites = _suites(cache, "kernel-6.12", [KERNELS["6.12"]])
            headers = f"linux-headers-{image.release}"
            names = [headers, *(one for one in suites.depends(headers) if one.startswith("linux-"))]
            with _fresh(target) as partial:
                _unpack(
                    suites.download([*names, "linux-source-6.12"], partial / "packages"), partial / "root"
                )
                shutil.rmtree(partial / "packages")
                _build_netdevsim(partial, headers)
    return target / "netdevsim.ko"


def _build_netdevsim(folder: Path, headers: str) -> None:
    root = folder / "root"
    source = next((root / "usr/src").glob("linux-source-*.tar.xz"))
    # GNU tar stops reading once the members were found only when it is told that each occurs once
    _run("tar", "-C", str(folder), "--strip-components=3", "--wildcards", "-xf", str(source),
         "linux-source-*/drivers/net/netdevsim")  # fmt: skip
    for makefile in (root / "usr/src" / headers).glob("Makefile"):
        # the packages name each other by the paths they would be installed under
        text = makefile.read_text()
        makefile.write_text(
            text.replace("/usr/src/", f"{root}/usr/src/").replace("/usr/lib/linux", f"{root}/usr/lib/linux")
        )
    _run("make", "-C", str(root / "usr/src" / headers), f"M={folder / 'netdevsim'}", "CONFIG_NETDEVSIM=m",
         "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules")  # fmt: skip
    shutil.move(folder / "netdevsim" / "netdevsim.ko", folder / "netdevsim.ko")
    for junk in ("root", "netdevsim"):
        shutil.rmtree(folder / junk)


def _wrap(root: Path, name: str, place: str, more: str = "") -> None:
    """wrappers/NAME, which runs PLACE on the loader and libraries it was unpacked with."""
    wrapper = root / "wrappers" / name
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(_WRAPPER.format(place=place, more=more))
    wrapper.chmod(0o755)


_WRAPPER = """#!/bin/sh
# runs a privately unpacked program on the loader and libraries it came with
root=$(dirname "$(dirname "$(readlink -f "$0")")")
libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
loader=$root/lib64/ld-linux-x86-64.so.2
[ -e "$loader" ] || loader=$root/usr/lib64/ld-linux-x86-64.so.2
exec "$loader" --argv0 "$0" --library-path "$libraries" "$root/{place}" {more} "$@"
"""


@dataclass(frozen=True)
class Libbpf:
    """Another libbpf, and the Python that can load it."""

    library: Path
    python: Path
    """The running one, or a wrapper that starts it on the C library that this libbpf was built for."""


def libbpf(variant: str, into: Path, *, say: bool = True) -> Libbpf:
    """A libbpf.so.1 of another Debian suite, for the bindings' tests (`LIBBPF`), copied to `into`.

    The cache may be for root's eyes only, and tests run as nobody too. A suite newer than this machine comes with
    its C library, and Python is started on that.
    """
    cache = cache_dir()
    target = cache / f"libbpf-{variant}"
    with locked(cache):
        if not target.exists():
            if say:
                print(f"fetching libbpf from {LIBBPF[variant]}", flush=True)
            suites = _suites(cache, f"libbpf-{variant}", [LIBBPF[variant]])
            names = [f"libbpf1/{LIBBPF[variant]}"]
            if variant == "newest":
                names = suites.closure("libbpf1", "libc6")
            with _fresh(target) as partial:
                _unpack(suites.download(names, partial / "packages"), partial)
                shutil.rmtree(partial / "packages")
                for junk in ("usr/share", "usr/bin", "usr/sbin"):
                    shutil.rmtree(partial / junk, ignore_errors=True)
    place = into / f"libbpf-{variant}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(target, place, symlinks=True)
    library = next(place.glob("**/libbpf.so.1"))
    python = Path(sys.executable)
    if (place / "usr/lib/x86_64-linux-gnu/libc.so.6").exists():
        python = _python_on(place, python)
    return Libbpf(library, python)


def _python_on(root: Path, python: Path) -> Path:
    """A virtual environment like the running one, whose Python runs on the loader and libraries below `root`."""
    folder = root / "venv"
    (folder / "bin").mkdir(parents=True)
    home = python.parents[1]
    shutil.copy(home / "pyvenv.cfg", folder)
    (folder / "lib").symlink_to(home / "lib")
    wrapper = folder / "bin" / python.name
    wrapper.write_text(
        "#!/bin/sh\n"
        f'exec "{root}/usr/lib64/ld-linux-x86-64.so.2" --argv0 "$0" '
        f'--library-path "{root}/usr/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu" '
        f'"{python.resolve()}" "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper
