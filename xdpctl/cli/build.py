"""``xdpctl build``: C sources to BPF objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from xdpctl.build.compile import Built

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def build(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SRC ...]",
            help="C sources, or folders of *.bpf.c; default: those in ./bpf, or else here.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where objects go.")] = Path(
        "build/bpf"
    ),
    btf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make vmlinux.h from this BTF instead of the running kernel's."),
    ] = None,
    clang: Annotated[
        str | None,
        typer.Option(metavar="PATH", envvar="CLANG", help="The clang to use; default: the one in PATH."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "-j", "--jobs", metavar="N", min=1, help="How many to compile at once; default: one a CPU."
        ),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option("-I", metavar="DIR", help="Search this folder for headers first; may be repeated."),
    ] = None,
    define: Annotated[
        list[str] | None,
        typer.Option("-D", metavar="NAME[=VALUE]", help="Define a macro; may be repeated."),
    ] = None,
    werror: Annotated[bool, typer.Option("--werror", help="Take warnings as errors.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compile what is current, too.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say why each object was compiled.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compile C sources to BPF objects: NAME.bpf.c becomes DIR/NAME.bpf.o.

    For the bpf target with BTF, on as many CPUs as there are. Nothing is compiled that is current. A source
    that includes vmlinux.h gets one made from the kernel's BTF. Headers are searched in the folder `include`
    beside the source too. Needs no root.
    """
    from xdpctl.build import compile as compiler
    from xdpctl.cli.output import print_json

    def progress(built: Built, ready: int, total: int) -> None:
        width = len(str(total))
        why = f"  ({built.reason})" if verbose else ""
        typer.echo(f"[{ready:{width}}/{total}] {built.object}{why}")

    built = compiler.build(
        sources or [],
        out,
        btf=btf,
        jobs=jobs,
        progress=None if as_json else progress,
        clang=clang,
        include=include or [],
        define=define or [],
        werror=werror,
        force=force,
    )
    for one in built:
        if one.warnings:
            typer.echo(one.warnings.rstrip("\n"), err=True)
    if as_json:
        print_json({"objects": [_row(one) for one in built]})
        return
    compiled = sum(one.rebuilt for one in built)
    current = len(built) - compiled
    plural = "" if len(built) == 1 else "s"
    typer.echo(f"{len(built)} object{plural} in {out}: {compiled} compiled, {current} current")


def _row(built: Built) -> dict[str, Any]:
    return {
        "source": str(built.source),
        "object": str(built.object),
        "rebuilt": built.rebuilt,
        "reason": built.reason,
        "seconds": round(built.seconds, 3),
        "warnings": built.warnings,
        "vmlinux": str(built.vmlinux) if built.vmlinux else None,
    }
