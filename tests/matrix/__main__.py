"""``python -m tests.matrix``: the oracle and the kernel tests on Debian's kernels, in guests, as one report.

Ends with 1 on any miss, false alarm, fix that doesn't help, failed test or guest that died; with 2 when it can't run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import fetch, report
from .guest import ROOT, Guest, Outcome, boot

HOST = "here"
"""How the report calls the running kernel."""

ELSEWHERE = (
    "test_oracle.py",  # runs beside them, as a part of its own
    "test_build_unprivileged.py",  # clang is the same on every kernel, and takes a guest most of a minute
    "test_inspect_public.py",  # loads two hundred objects: minutes of emulation for what the specimens show too
    "test_lab.py::test_the_demo_goes_as_told",  # its text is this kernel's
    "test_unit_systemd.py",  # boots this machine's systemd, and waits for its watchdog
    "test_metrics_prometheus.py",  # what Prometheus makes of metrics is the same on every kernel
)
"""Kernel tests that guests leave out, and why."""
SECONDS = 1100.0
"""Deadline of one guest: four times what it takes."""
SHARES = 24
"""Into how many shares the tests that no kernel decides are cut; each guest runs one, with --all it runs all."""

PARTS = ("host", "libbpf", "oracle", "tests")
"""host: the oracle on this very kernel; libbpf: the bindings' tests on other libbpfs; in guests: oracle, tests."""
LABS = "labs"
"""Only when asked for, and alone: every lab in each guest. In a whole run each lab has its test in one of them."""
# what takes time there is waiting for RCU, so more processes than CPUs
ORACLE = "python3 -m tests.kernel.oracle --jobs 5 --json $OUT/oracle.json"
PYTEST = (
    "XDPCTL_TEST_LOG=$OUT/tests.log PYTHONPATH=$PYTHONPATH:tests/support python3 -m pytest -p forks --forks 4 "
    "-p no:cacheprovider -q --durations=15 --junitxml=$OUT/tests.xml --basetemp=/tmp/pytest "
)
TESTS = f"{PYTEST} tests/kernel " + " ".join(f"--deselect tests/kernel/{one}" for one in ELSEWHERE)
BINDINGS = ("-q", "-p", "no:cacheprovider", "--no-header", "-m", "not alone")


def _command(what: tuple[str, ...], series: str) -> str:
    """What the guest runs; each part runs whatever became of the other, the first failure counts.

    The oracle mostly waits (for links to come up, for RCU), the tests compute: side by side they fill two CPUs. The
    oracle leaves the NICs to the tests of NICs first, and the tests that want a machine for themselves wait for it.
    """
    begin = f"modprobe -a -q psample macsec; insmod {fetch.netdevsim()}\n" if series == "6.12" else ""
    if LABS in what:
        return f"{PYTEST} -m shared tests/kernel/test_labs.py"
    if not {"oracle", "tests"} <= set(what):
        return begin + (ORACLE if "oracle" in what else TESTS)
    return (
        begin
        + f"""
    export XDPCTL_NICS_FREE=/tmp/nics-free XDPCTL_ALONE_AFTER=/tmp/oracle-done
    {{ {ORACLE} > $OUT/oracle.log; ended=$?; touch $XDPCTL_ALONE_AFTER; exit $ended; }} & oracle=$!
    # it has seen which NICs there are
    until [ -s $OUT/oracle.log ] || ! kill -0 $oracle; do sleep 0.2; done
    # not in the background, where a shell has SIGINT ignored
    {TESTS}
    worst=$?
    touch $XDPCTL_NICS_FREE
    wait $oracle || worst=$?
    exit $worst"""
    )


def _objects() -> None:
    """Compile here, once, what tests compile: clang takes a guest ten seconds for each of two hundred."""
    kept = ROOT / "build" / "test-objects"
    if kept.exists() and any(kept.iterdir()):
        return
    print("no compiled objects of tests: the kernel tests run here first", flush=True)
    argv = [
        sys.executable,
        *"-m pytest -q -p no:cacheprovider -n auto --dist loadfile".split(),
        "-m",
        "not alone",
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        # what they say is said by make test; what is not compiled by then, guests compile
        subprocess.run([*argv, "tests/kernel"], cwd=ROOT, check=False, stdout=subprocess.DEVNULL, timeout=600)


def _frozen(work: Path) -> Path:
    """A copy of what git would commit, and of the compiled programs, for all guests."""
    copy = work / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if (ROOT / "build").exists():
        shutil.copytree(ROOT / "build", copy / "build")
    # guests can't keep bytecode, and take seconds to make it at each start of xdpctl
    subprocess.run([sys.executable, "-m", "compileall", "-q", "xdpctl", "tests"], cwd=copy, check=True)
    # pytest keeps rewritten tests as bytecode of its own
    subprocess.run(
        [sys.executable, *"-m pytest --collect-only -q -p no:cacheprovider tests/kernel".split()],
        cwd=copy, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )  # fmt: skip
    return copy


def _interpreter(work: Path) -> Path:
    """The Python of guests: Debian's own with this environment's packages where it is of the same version, else ours.

    Debian's is built with profiles and without a shared library: a quarter fewer instructions for an emulated CPU.
    """
    ours = Path(sys.executable)
    name = "python{}.{}".format(*sys.version_info[:2])
    system = Path("/usr/bin", name)
    if not system.exists() or Path(sys._base_executable).resolve() == system.resolve():
        return ours
    folder = work / "python"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / name).mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {system.parent}\ninclude-system-site-packages = false\n")
    (folder / "lib" / name / "site-packages").symlink_to(sysconfig.get_path("purelib"))
    made = folder / "bin" / "python3"
    made.symlink_to(system)
    modules = "numpy, prometheus_client, pydantic, pyroute2, pytest, typer, importlib.util as one"
    fits = f"import {modules}; raise SystemExit(one.MAGIC_NUMBER != {importlib.util.MAGIC_NUMBER!r})"
    if subprocess.run([made, "-c", fits], check=False, capture_output=True).returncode:
        return ours
    command = folder / "bin" / "xdpctl"  # labs run it as a user would
    command.write_text(f"#!{made}\nimport sys\nfrom xdpctl.cli.main import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return made


def _on_host(work: Path) -> Outcome:
    """The oracle on the running kernel, as one more column."""
    folder = work / HOST
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        try:
            argv = [sys.executable, "-m", "tests.kernel.oracle", "--json", str(folder / "oracle.json")]
            code = subprocess.run(argv, stdout=out, stderr=err, check=False, timeout=SECONDS).returncode
            reason = f"command ended {code}"
        except subprocess.TimeoutExpired:
            code, reason = -1, f"no answer within {SECONDS:.0f} s"
    took = time.monotonic() - started
    print(f"this kernel: {reason} after {took:.0f} s", flush=True)
    return Outcome(HOST, code == 0, reason, took, folder / "stdout")


def _with_libbpf(variant: str, work: Path) -> dict[str, object]:
    """The bindings' kernel tests on this kernel with another libbpf."""
    work.chmod(0o755)  # some run as nobody
    found = fetch.libbpf(variant, work)
    folder = work / f"tests-libbpf-{variant}"
    folder.mkdir(exist_ok=True)
    files = sorted(
        str(path)
        for pattern in ("bpf", "libbpf")
        for path in (ROOT / "tests/kernel").glob(f"test_{pattern}_*.py")
    )
    with (folder / "stdout").open("wb") as out:
        code = subprocess.run(
            [str(found.python), "-m", "pytest", *BINDINGS, f"--junitxml={folder / 'tests.xml'}", *files],
            stdout=out, stderr=subprocess.STDOUT, check=False, timeout=300,
            env={**os.environ, "XDPCTL_LIBBPF": str(found.library)},
        ).returncode  # fmt: skip
    version = found.library.resolve().name.removeprefix("libbpf.so.")
    print(f"libbpf {version}: pytest ended {code}", flush=True)
    return report.library(variant, version, code == 0, folder)


def _boot(
    series: str, what: tuple[str, ...], work: Path, python: Path, share: str | None, seconds: float
) -> Outcome:
    guest = Guest(
        kernel=fetch.kernel(series),
        tools=fetch.tools(),
        command=_command(what, series),
        checkout=work / "checkout",
        shared=work / series,
        seconds=seconds,
        python=python,
        # emulated CPUs: what takes a millisecond elsewhere takes tens here
        environment={
            "ORACLE_PATIENCE": "2",
            "XDPCTL_TEST_SLOW": "1",
            **({"XDPCTL_SHARE": share} if share else {}),
        },
    )
    print(f"{series}: booting {guest.kernel.release}", flush=True)
    outcome = boot(guest)
    print(f"{series}: {outcome.reason} after {outcome.seconds:.0f} s", flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--kernel", action="append", choices=list(fetch.KERNELS), help="only this one (repeatable)"
    )
    parser.add_argument(
        "--what",
        default=",".join(PARTS),
        help=f"parts, with commas between (default: {','.join(PARTS)}), or {LABS}: every lab in each guest",
    )
    # two of two CPUs each on two CPUs wait for each other's locks: 1.6 times the work of one after the other
    usual = 2 if len(os.sched_getaffinity(0)) >= 4 else 1
    parser.add_argument(
        "--jobs", type=int, default=usual, help=f"guests at a time, at most 2 (default here: {usual})"
    )
    parser.add_argument(
        "--work", type=Path, help="keep the guests' files there (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--html", type=Path, metavar="FILE")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every kernel test in every guest, also those that take turns (hours)",
    )
    parser.add_argument("--fetch-only", action="store_true", help="fill the cache and stop")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the matrix makes taps and namespaces for its guests: run it as root", file=sys.stderr)
        return 2
    kernels = asked.kernel or list(fetch.KERNELS)
    what = tuple(asked.what.split(","))
    if set(what) - set(PARTS) and what != (LABS,):
        parser.error(f"--what: {', '.join(sorted(set(what) - set(PARTS)))}: not one of {', '.join(PARTS)}")
    started = time.monotonic()
    try:
        fetch.tools()
        for series in kernels:
            fetch.kernel(series)
        if "6.12" in kernels:
            fetch.netdevsim()
    except fetch.FetchError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 2
    if asked.fetch_only:
        return 0
    work = asked.work or Path(tempfile.mkdtemp(prefix="xdpctl-matrix-"))
    try:
        work.mkdir(parents=True, exist_ok=True)
        outcomes = [_on_host(work)] if "host" in what else []
        # first, for it also compiles what guests would compile for minutes
        libraries = [_with_libbpf(one, work) for one in fetch.LIBBPF] if "libbpf" in what else []
        if {"oracle", "tests", LABS} & set(what):
            _objects()
            _frozen(work)
            python = _interpreter(work)
            with ThreadPoolExecutor(max_workers=min(max(asked.jobs, 1), 2)) as pool:
                every = list(fetch.KERNELS)
                shares = {
                    one: None if asked.all or LABS in what else f"{every.index(one)}/{SHARES}"
                    for one in kernels
                }
                seconds = SECONDS * 3 if asked.all else SECONDS
                # the newest take the longest: they are not left for the end
                ended = pool.map(
                    lambda one: _boot(one, what, work, python, shares[one], seconds), kernels[::-1]
                )
                outcomes += list(ended)[::-1]
        made = report.gather(outcomes, libraries, work, seconds=time.monotonic() - started)
    except fetch.FetchError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 2
    finally:
        if asked.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(report.table(made))
    if asked.json:
        asked.json.write_text(json.dumps(made, indent=1) + "\n")
    if asked.html:
        asked.html.write_text(report.page(made))
    return 0 if made["good"] else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
