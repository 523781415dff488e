"""``xdpctl gen``: Python modules made from BPF objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.errors import EXIT_FINDINGS

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def gen() -> None:
    """Write Python modules for BPF objects.

    xdpctl gen skeleton prog.bpf.o
    """


@app.command(no_args_is_help=True)
def skeleton(
    obj: Annotated[Path, typer.Argument(metavar="OBJ", help="The object, or builtin:NAME.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            "-o", metavar="FILE.py", help="The module; its .pyi goes beside it. Default: NAME_skel.py here."
        ),
    ] = None,
    embed: Annotated[
        Optional[bool],  # noqa: UP045 - see above
        typer.Option(
            "--embed/--beside",
            help="Put the object into the module (default), or look for it in the module's folder.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing: exit code 1 when the module or its .pyi is out of date."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a typed subclass of xdpctl.Skeleton for an object: a module, and a .pyi for mypy and editors.

    The same object gives the same files on every machine. Nothing is loaded, no root needed.

    xdpctl gen skeleton build/bpf/redirect.bpf.o -o redirect_skel.py

    xdpctl gen skeleton prog.bpf.o --beside

    xdpctl gen skeleton prog.bpf.o --check
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.obj.shipped import resolve
    from xdpctl.skeleton import generate

    path = resolve(obj)
    module = out if out is not None else Path(generate.module_name(path))
    if check:
        why = generate.stale(path, module, embed=embed)
        if as_json:
            print_json({"module": str(module), "current": why is None, "why": why})
        else:
            print_line(f"{module}: current" if why is None else f"{module}: stale: {why}")
        raise typer.Exit(0 if why is None else EXIT_FINDINGS)
    made = generate.generate(path, embed=embed is not False)
    files = generate.write(made, module)
    if embed is False:
        generate.require_beside(path, module)
    if as_json:
        print_json({"class": made.name, "files": [str(one) for one in files]})
    else:
        print_line(f"{made.name}: {' and '.join(str(one) for one in files)}")
