"""Compiles BPF C into objects with BTF: what is current stays, the rest runs through clang side by side."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.build import depfile, diagnose, sources, stamp, toolchain, vmlinux
from xdpctl.build.pool import Ended, Pool
from xdpctl.errors import CompileError, ConfigError, NotFoundError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CPU = "v3"
"""BPF instruction set: Linux 5.1 has v3. Said aloud, for clang's default moved from v1 to v3 in LLVM 20."""

STATE = ".xdpctl"
"""Folder below the output folder: stamps, vmlinux.h, objects not yet whole."""

VMLINUX_FLAGS = ("-fms-extensions", "-Wno-microsoft-anon-tag")
"""As kernels from 6.19 on: their structs hold unnamed members of named types, which plain C drops."""


NEVER: stamp.Mark = (-1, -1)

MTIME_GRAIN = 10_000_000
"""ns that an mtime may lie behind the clock: a tick of the kernel (current_time(), CONFIG_HZ=100)."""


@dataclass(frozen=True, slots=True)
class Built:
    """One object of a build.

    Attributes:
        source: as it was named.
        object: where it lies.
        reason: why it was compiled; None: it was current.
        seconds: that it took clang.
        warnings: clang's, of the compilation that made the object, be it an earlier one.
        vmlinux: the vmlinux.h it was made with, if it asked for one.
    """

    source: Path
    object: Path
    reason: str | None
    seconds: float
    warnings: str
    vmlinux: Path | None

    @property
    def rebuilt(self) -> bool:
        """Whether it was compiled now."""
        return self.reason is not None


@dataclass(frozen=True, slots=True)
class _Options:
    """What all sources of a build are compiled with; see `build`."""

    btf: Path | None
    jobs: int
    include: tuple[Path, ...]
    define: tuple[str, ...]
    werror: bool
    force: bool


@dataclass(frozen=True, slots=True)
class _Job:
    source: Path
    target: Path
    argv: tuple[str, ...]
    recipe: str
    stamp: Path
    reason: str
    with_vmlinux: Path | None = None


def build(
    named: Sequence[Path],
    out_dir: Path,
    *,
    btf: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[Built, int, int], None] | None = None,
    clang: str | None = None,
    include: Sequence[Path] = (),
    define: Sequence[str] = (),
    werror: bool = False,
    force: bool = False,
) -> list[Built]:
    """Bring the objects of `named` up to date in `out_dir`; with nothing named, of ``bpf/*.bpf.c``.

    An object is current when it, its source, every header it included, the compiler's version, the flags and
    (if it asked for vmlinux.h) the BTF are what they were. A new object takes the place of the old one in one
    step; however this ends, none is half written and no clang runs on.

    Args:
        named: sources, or folders of ``*.bpf.c``.
        out_dir: is made where it is missing.
        btf: file that vmlinux.h is made from; None: the running kernel's.
        jobs: how many at once; None: as many as this process has CPUs.
        progress: called with each object that was compiled, how many are ready, and how many there will be.
        clang: path or name; None: the one in PATH.
        include: folders, searched before ``include`` beside the source and the system's.
        define: macros, ``NAME`` or ``NAME=VALUE``.
        werror: a warning is an error.
        force: compile what is current, too.

    Returns:
        One `Built` a source, in the order of the sources.

    Raises:
        CompileError: clang refused sources (the others are ready), or clang, a header or BTF is missing.
        NotFoundError: a source, include folder, BTF file or the clang named does not exist.
        ConfigError: two sources make one object, nothing to build, a bad value, `out_dir` can't be written.
    """
    width = len(os.sched_getaffinity(0)) if jobs is None else jobs
    options = _Options(btf, width, tuple(include), tuple(define), werror, force)
    wanted = sources.collect(named)
    targets = sources.objects(wanted, out_dir)
    _check(options)
    run = _Run(options, toolchain.find(clang), out_dir / STATE, progress)
    return run.build(list(zip(wanted, targets, strict=True)))


def _check(options: _Options) -> None:
    for folder in options.include:
        if not folder.is_dir():
            raise NotFoundError("include folder", str(folder))
    for macro in options.define:
        if not re.fullmatch(r"[A-Za-z_]\w*(\([^)]*\))?(=.*)?", macro, re.DOTALL):
            raise ConfigError(f"-D {macro}: not a macro", hint="-D NAME or -D NAME=VALUE")
    if options.jobs < 1:
        raise ConfigError(f"-j {options.jobs}: at least one compiler has to run")
    if options.btf is not None:
        vmlinux.source(options.btf)


class _Run:
    """One run of `build`: what it found out once, and the compilations under way."""

    def __init__(
        self,
        options: _Options,
        tools: toolchain.Toolchain,
        state: Path,
        progress: Callable[[Built, int, int], None] | None,
    ) -> None:
        self.options = options
        self.tools = tools
        self.state = state
        self.progress = progress
        self.extra_include = toolchain.libbpf_headers(tools.include)
        self.mark = functools.cache(lambda name: stamp.mark(Path(name)))

    def build(self, pairs: list[tuple[Path, Path]]) -> list[Built]:
        built: dict[Path, Built] = {}
        jobs: list[_Job] = []
        for source, target in pairs:
            one = self._plan(source, target)
            if isinstance(one, Built):
                built[target] = one
            else:
                jobs.append(one)
        if jobs:
            with _scratch(self.state) as scratch:
                built.update((one.object, one) for one in self._compile(jobs, scratch))
        return [built[target] for _, target in pairs]

    def _plan(self, source: Path, target: Path) -> _Job | Built:
        argv = self._argv(source)
        recipe = hashlib.blake2b(
            json.dumps([self.tools.version, str(Path.cwd()), argv]).encode(), digest_size=16
        ).hexdigest()
        kept = self.state / f"{target.name}.json"
        was = stamp.read(kept)
        reason = stamp.why_stale(was, target, recipe=recipe, btf=lambda: self._btf_digest, mark=self.mark)
        if self.options.force and reason is None:
            reason = "asked for"
        if reason is None and was is not None:
            header = vmlinux.folder(self.state, was.btf) / vmlinux.NAME if was.btf else None
            return Built(source, target, None, 0.0, was.warnings, header)
        return _Job(source, target, argv, recipe, kept, reason or "not built by us")

    def _argv(self, source: Path) -> tuple[str, ...]:
        """The compiler's arguments, less what differs from run to run."""
        options = self.options
        argv = [self.tools.clang, "-target", "bpf", f"-mcpu={CPU}", "-g", "-O2", "-Wall"]
        if options.werror:
            argv.append("-Werror")
        if self.tools.target_arch is not None:
            argv.append(f"-D__TARGET_ARCH_{self.tools.target_arch}")
        argv += [f"-D{macro}" for macro in options.define]
        beside = source.parent / "include"
        for folder in (*options.include, *([beside] if beside.is_dir() else []), *self.extra_include):
            argv += ["-I", str(folder)]
        for folder in self.tools.include:
            argv += ["-idirafter", str(folder)]
        # a name that begins with "-" would be taken for an option
        return (*argv, "-c", f"./{source}" if str(source).startswith("-") else str(source))

    @functools.cached_property
    def _btf(self) -> Path:
        return vmlinux.source(self.options.btf)

    @functools.cached_property
    def _btf_digest(self) -> str:
        return vmlinux.digest(self._btf)

    def _compile(self, jobs: list[_Job], scratch: Path) -> list[Built]:
        waiting = jobs[::-1]
        done: list[Built] = []
        failed: dict[Path, Ended[_Job]] = {}
        with Pool[_Job]() as pool:
            while waiting or len(pool):
                while waiting and len(pool) < self.options.jobs:
                    self._start(pool, waiting.pop(), scratch)
                ended = pool.wait()
                job = ended.key
                if ended.returncode == 0:
                    done.append(self._keep(ended, scratch))
                    if self.progress is not None:
                        self.progress(done[-1], len(done), len(jobs))
                elif job.with_vmlinux is None and diagnose.wants(vmlinux.NAME, ended.output):
                    waiting.append(self._again_with_vmlinux(job))
                else:
                    failed[job.target] = ended
        if failed:
            ordered = [failed[job.target] for job in jobs if job.target in failed]
            raise diagnose.error_of(
                [(one.key.source, one.returncode, one.output) for one in ordered],
                (*self.tools.include, *self.extra_include),
            )
        return done

    def _start(self, pool: Pool[_Job], job: _Job, scratch: Path) -> None:
        part = scratch / job.target.name
        vmlinux_flags = ("-isystem", str(job.with_vmlinux), *VMLINUX_FLAGS) if job.with_vmlinux else ()
        depends = ("-MD", "-MT", "object", "-MF", f"{part}.d")
        try:
            pool.start(job, (*job.argv, *vmlinux_flags, *depends, "-o", str(part)))
        except OSError as why:
            raise CompileError(f"{job.source}: can't start {self.tools.clang}: {why.strerror}") from why

    def _again_with_vmlinux(self, job: _Job) -> _Job:
        """The job once more, with the folder of vmlinux.h: clang itself said that the source asks for one."""
        where = vmlinux.folder(self.state, self._btf_digest)
        vmlinux.make(self._btf, where)
        return replace(job, with_vmlinux=where)

    def _keep(self, ended: Ended[_Job], scratch: Path) -> Built:
        """Put the object in its place, and beside it the stamp of what it was made from."""
        job = ended.key
        part = scratch / job.target.name
        header = job.with_vmlinux / vmlinux.NAME if job.with_vmlinux else None
        try:
            used = depfile.parse(Path(f"{part}.d").read_text(errors="surrogateescape"))
            inputs = {
                os.path.abspath(name): _trusted_mark(Path(name), ended)  # noqa: PTH100 - must not follow symlinks
                for name in used
            }
            # the old stamp goes first: if we are cut short here, the new object must not pass as current
            job.stamp.unlink(missing_ok=True)
            part.replace(job.target)
            made = stamp.mark(job.target) or NEVER
            btf = self._btf_digest if header else None
            stamp.write(job.stamp, stamp.Stamp(job.recipe, made, inputs, btf, ended.output))
        except OSError as why:
            raise ConfigError(f"can't write {job.target}: {why.strerror}") from why
        return Built(job.source, job.target, job.reason, ended.seconds, ended.output, header)


def _trusted_mark(path: Path, ended: Ended[_Job]) -> stamp.Mark:
    """The input's mark, or one that fits nothing: it was written while clang ran."""
    mark = stamp.mark(path)
    if mark is None or ended.began - MTIME_GRAIN <= mark[0] <= time.time_ns():
        ours = ended.key.with_vmlinux
        if mark is None or ours is None or path != ours / vmlinux.NAME:  # ours was whole before clang started
            return NEVER
    return mark


@contextlib.contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """A folder for objects that are not yet whole, on the file system of those that are; gone at the end.

    Raises:
        ConfigError: the output folder can't be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix="run-", dir=state)
    except OSError as why:
        raise ConfigError(
            f"can't write to {state.parent}: {why.strerror}", hint="name another folder with -o"
        ) from why
    try:
        yield Path(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
