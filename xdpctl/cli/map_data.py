"""``xdpctl map dump`` and ``xdpctl map load``: whole maps to and from files."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete, options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.skeleton.loading import Loaded
    from xdpctl.skeleton.typed_map import TypedMap

MAP = Annotated[
    str,
    typer.Argument(metavar="MAP", help="Pin, id, interface/map or name.", autocompletion=complete.map_name),
]
NETNS = Annotated[
    Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    options.netns("Network namespace of the interfaces, in the name and in values."),
]
LARGEST = 4 << 30
"""Bytes of a file that we are willing to read."""


@contextlib.contextmanager
def opened(name: str, netns: str | None) -> Iterator[TypedMap]:
    """The map that is meant, in the namespace that is meant."""
    from xdpctl.attach.find_map import find_map
    from xdpctl.netlink import netns as namespaces

    with namespaces.enter(netns), find_map(name) as of:
        yield of


def ref(of: TypedMap) -> dict[str, Any]:
    """A map as JSON names it."""
    info = of.info()
    return {"id": info.id, "name": info.name, "type": info.type}


def dump(
    name: MAP,
    as_json: options.AsJson = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print an object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, whose header names fields.")] = False,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Print at most so many entries.", min=0),
    ] = None,
    netns: NETNS = None,
) -> None:
    """Print every entry: of per-CPU maps the sum, with --json each CPU's value too.

    What --json, --jsonl and --csv print, `xdpctl map load` reads. An entry that comes or goes meanwhile may be left
    out; each is printed once.

    xdpctl map dump blocked4 --csv > blocked.csv
    """
    from xdpctl.errors import ConfigError
    from xdpctl.skeleton.rows_write import RowWriter

    if as_json + jsonl + csv > 1:
        raise ConfigError("--json, --jsonl and --csv: give one of them")
    with opened(name, netns) as of:
        shape = of.shape
        writer = RowWriter(shape, "json" if as_json or jsonl else "csv" if csv else "text")
        batches = of.batches() if shape.key is not None else _waiting(of)
        out = sys.stdout
        if as_json:
            import json

            out.write(f'{{\n  "map": {json.dumps(ref(of))},\n  "entries": [')
        else:
            out.write(writer.header())
        before, after = (b",\n    ", b"") if as_json else (b"", b"\n")
        left, first = limit, True
        for one in batches:
            if left is not None:
                one = one.head(left)  # noqa: PLW2901
                left -= one.length
            for text in writer.rows(one, before, after):
                out.write(text.removeprefix(",") if as_json and first else text)
                first = first and not text
            if left == 0:
                break
        if as_json:
            out.write("]\n}\n" if first else "\n  ]\n}\n")


def _waiting(of: TypedMap) -> Iterator[Any]:
    """What a queue or stack would give next: no more of it can be seen without taking it out."""
    from xdpctl.bpf.batch import Batch
    from xdpctl.errors import MapError

    if "pop" not in of.shape.kind.can:
        raise MapError(
            f"map {of.name}: elements of a map of type {of.type} can't be listed",
            hint=of.shape.kind.note or None,
        )
    raw = of.elements.peek()
    if raw is not None:
        yield Batch(1, b"", raw, 0, len(raw))


def load(
    name: MAP,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV, JSON lines or what dump wrote; - is stdin.")
    ],
    form: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--format",
            metavar="csv|jsonl|json",
            help="Of the file; by default told by its first character.",
            autocompletion=complete.one_of("csv", "jsonl", "json"),
        ),
    ] = None,
    atomic: Annotated[
        bool,
        typer.Option(
            "--atomic", help="Make the file the whole content: add, change and delete; undone on failure."
        ),
    ] = False,
    slot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="KEY", help="With --atomic, of a map of maps: fill a new map and put it into this slot."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave bad lines out, and load as much as there is room for.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Stop at a key that is there already.")] = False,
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the entries of a file into a map; others in the map stay, unless --atomic.

    CSV: the header names fields: `key,value` or members, `key,packets,bytes`, `key.saddr,key.port,value.packets`. JSON
    lines: `{"key": ..., "value": ...}`. Members that the file does not name become zero.

    The whole file is read before anything is written: a bad line is told by its number, and nothing was done. A map
    that gets full keeps what was written; the message tells how far it came.

    --atomic leaves what is the same alone, writes new and changed entries, then deletes those that the file lacks.
    Programs meanwhile see each entry old or new, never half; but for some milliseconds old and new ones side by side.
    With --slot they see either the old map or the new one, whole. A hash without room for old and new together loses
    old entries first.

    xdpctl map load blocked4 blocked.csv --atomic

    xdpctl map load --atomic --slot 0 tables flows.jsonl
    """
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.errors import ConfigError
    from xdpctl.libbpf import uapi
    from xdpctl.skeleton import loading
    from xdpctl.skeleton.rows_read import Rows

    if form not in {None, "csv", "jsonl", "json"}:
        raise ConfigError(f"--format {form}: csv, jsonl or json")
    if slot is not None and not atomic:
        raise ConfigError("--slot is for --atomic", hint="add --atomic")
    if atomic and (partial or new):
        raise ConfigError(f"--atomic and {'--partial' if partial else '--new'}: give one of them")
    data = _bytes(file)

    def fill(of: TypedMap) -> Loaded:
        if "update" not in of.shape.kind.can and "push" not in of.shape.kind.can:
            raise ConfigError(f"map {of.name}: nothing can be written to a map of type {of.type}")
        rows = Rows(data, of.shape, form)  # type: ignore[arg-type]
        try:
            with _progress() as progress:
                content = loading.read(rows, file, partial=partial, progress=progress)
                if atomic and slot is None:
                    return loading.replace(of, content, rows, file, progress=progress)
                flags = uapi.BPF_NOEXIST if new else uapi.BPF_ANY
                return loading.load(of, content, rows, file, partial=partial, flags=flags, progress=progress)
        finally:
            if of.shape.held is not None:
                of.shape.held.close()

    with opened(name, netns) as of:
        done = loading.swap(of, slot, fill) if slot is not None else fill(of)
        about = ref(of)
    for one in done.problems[:10]:
        note(f"note: {file}:{one.line}: {one.text}")
    if done.bad > 10:
        note(f"note: {done.bad - 10} more bad lines")
    if done.stopped:
        note(f"note: {done.stopped}")
    if as_json:
        print_json({"map": about, "file": file, **_told(done)})
    elif done.added is None:
        print_line(
            f"{about['name']}: {done.written} entries written"
            + (f", {done.bad} bad lines" if done.bad else "")
        )
    else:
        print_line(
            f"{about['name']}: {done.written} entries: {done.added} added, {done.changed} changed,"
            f" {done.deleted} deleted"
        )
    if done.bad or done.stopped:
        raise typer.Exit(1)


def _told(done: Loaded) -> dict[str, Any]:
    return {
        "read": done.read,
        "written": done.written,
        "added": done.added,
        "changed": done.changed,
        "deleted": done.deleted,
        "bad_lines": done.bad,
        "problems": [{"line": one.line, "message": one.text} for one in done.problems],
        "stopped": done.stopped,
    }


def _bytes(file: str) -> bytes:
    from xdpctl.bpf.file import read_at_most
    from xdpctl.errors import ConfigError, NotFoundError

    if file == "-":
        data = read_at_most(sys.stdin.buffer, LARGEST)
    else:
        path = Path(file)
        if not path.exists():
            raise NotFoundError("file", file)
        with path.open("rb") as source:
            data = read_at_most(source, LARGEST)
    if len(data) > LARGEST:
        raise ConfigError(f"{file} has more than {LARGEST >> 30} GiB", hint="split it")
    return data


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Tells how far it came on a terminal's stderr, five times a second."""
    if not sys.stderr.isatty():
        yield None
        return
    import time

    last = time.monotonic()
    shown = False

    def tell(done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if now - last >= 0.2:
            last, shown = now, True
            text = f"{done:,} of {total:,} entries written" if total else f"{done:,} entries read"
            sys.stderr.write(f"\r{text}\033[K")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write("\r\033[K")
