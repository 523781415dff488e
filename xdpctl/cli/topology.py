"""``xdpctl topology``: the data path of this machine as a picture, a graph or a tree."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import complete, options

if TYPE_CHECKING:
    from xdpctl.doctor.topology import Promise, Topology
    from xdpctl.host.model import Snapshot

app = typer.Typer()

LONGEST = 120
"""Seconds that Graphviz may take."""


@app.command()
def topology(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            "--iface",
            metavar="IFACE",
            help="Only this interface (a name or glob; may be repeated) and what it is connected with.",
            autocompletion=complete.interface,
        ),
    ] = None,
    netns: Annotated[
        Optional[str],  # noqa: UP045
        options.netns("Only this network namespace, and what it is connected with."),
    ] = None,
    svg: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Draw it with Graphviz into this file; - is standard output."),
    ] = None,
    as_dot: Annotated[bool, typer.Option("--dot", help="Print it in Graphviz's language.")] = False,
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--from", metavar="FILE", help="Show this snapshot (xdpctl snapshot), not this machine."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where frames go: namespaces, interfaces, pairs, masters, programs by hook and mode, redirects.

    A redirect is *proven* (a program that is attached leads there, and nothing stands against it), *promised* (so far
    only a deployment says so), *broken* (frames are lost: the finding says why, and what clears it), or *unknown*
    (the machine does not tell).

    xdpctl topology

    xdpctl topology --svg path.svg

    xdpctl topology --netns blue --iface 'veth*'

    xdpctl topology --from host.json --dot | dot -Tpng -o host.png
    """
    from xdpctl.cli.output import note, print_json
    from xdpctl.doctor.topology_from import topology as make
    from xdpctl.errors import ConfigError

    asked = [name for name, given in (("--svg", svg), ("--dot", as_dot), ("--json", as_json)) if given]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)}: give one of them")
    draw = _renderer() if svg is not None else None  # before the machine is looked at: it may be missing
    taken = _observe(source)
    found = make(taken, _promises(taken) if source is None else ())
    found = _chosen(found, taken, tuple(interfaces or ()), netns)
    for problem in taken.problems:
        note(f"unknown: {problem.what}: {problem.why}")
    if as_json:
        print_json(
            {**found.to_json(), "problems": [{"what": one.what, "why": one.why} for one in taken.problems]}
        )
    elif as_dot:
        from xdpctl.doctor.topology_dot import dot

        sys.stdout.write(dot(found))
    elif svg is not None and draw is not None:
        _write_svg(found, draw, svg)
    else:
        _print_tree(found)


def _observe(source: Path | None) -> Snapshot:
    if source is not None:
        from xdpctl.host import jsonform

        return jsonform.read(source)
    from xdpctl.host.collect import collect

    return collect(netns="all", probes=(), tc_redirects=True)


def _promises(taken: Snapshot) -> list[Promise]:
    from xdpctl.deploy import promises

    return promises.of(promises.applied(), taken)


def _chosen(whole: Topology, taken: Snapshot, interfaces: tuple[str, ...], netns: str | None) -> Topology:
    if not interfaces and netns is None:
        return whole
    from xdpctl.doctor.diagnose import Question, choose
    from xdpctl.doctor.topology import around

    links = choose(taken, Question(interfaces, netns, all_netns=netns is None))
    return around(whole, {one.ref for one in links})


def _print_tree(found: Topology) -> None:
    from xdpctl.doctor.topology_text import tree

    for line in tree(found, colour=sys.stdout.isatty()):
        sys.stdout.write(line + "\n")


def _renderer() -> str:
    """Where Graphviz's dot is.

    Raises:
        UnsupportedError: nowhere.
    """
    import shutil

    from xdpctl.errors import UnsupportedError

    found = shutil.which("dot")
    if found is None:
        raise UnsupportedError(
            "--svg",
            needs="Graphviz's dot",
            has="a machine without it",
            hint="apt-get install graphviz; or draw it elsewhere: xdpctl topology --dot > path.dot",
        )
    return found


def _write_svg(found: Topology, draw: str, target: Path) -> None:
    """Draw, and put the picture in its place when it is whole.

    Raises:
        ConfigError: the file can't be written.
        UnsupportedError: this Graphviz can't draw it.
    """
    import os
    import subprocess

    from xdpctl.doctor.topology_dot import dot
    from xdpctl.errors import ConfigError, UnsupportedError

    try:
        done = subprocess.run(
            [draw, "-Tsvg"],
            input=dot(found).encode("utf-8", "backslashreplace"),
            capture_output=True,
            check=False,
            timeout=LONGEST,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = (
            f"took more than {LONGEST} s"
            if isinstance(error, subprocess.TimeoutExpired)
            else f"fails: {error}"
        )
        raise UnsupportedError(
            "--svg", needs="a Graphviz that runs", has=f"one that {why}", hint="show less: --netns, --iface"
        ) from error
    if done.returncode or not done.stdout.rstrip().endswith(b"</svg>"):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = f"one that says: {said[0]}" if said else "one that drew nothing"
        raise UnsupportedError("--svg", needs="a Graphviz that draws SVG", has=why)
    if str(target) == "-":
        sys.stdout.write(done.stdout.decode("utf-8"))
        return
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        fresh.write_bytes(done.stdout)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"can't write {target}: {(error.strerror or str(error)).lower()}") from error
