"""Putting the content of a file into a map: all of it or nothing, as far as it goes, or in place of what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import batch
from xdpctl.errors import ConfigError, KernelError, MapError
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import MapCreateOpts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpctl.skeleton.rows_read import Chunk, Problem, Rows
    from xdpctl.skeleton.typed_map import TypedMap

    Progress = Callable[[int, int], None]


class Loaded(NamedTuple):
    """What a load did."""

    read: int
    """Elements in the file."""
    written: int
    """Written, or in place of what was there: in the map afterwards."""
    added: int | None
    """By an atomic load: keys that are new; None: it was not one."""
    changed: int | None
    deleted: int | None
    problems: tuple[Problem, ...]
    """Bad lines that were left out (`partial`)."""
    bad: int
    """How many."""
    stopped: str | None
    """Why the kernel took no more (`partial`); None: it took all."""


class Content:
    """Elements of a file, with the line of each."""

    def __init__(self, chunks: list[Chunk], key_bytes: int, value_bytes: int) -> None:
        self.chunks = chunks
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        self.count = sum(len(one.lines) for one in chunks)

    def line(self, number: int) -> int:
        """Line of an element."""
        for one in self.chunks:
            if number < len(one.lines):
                return one.lines[number]
            number -= len(one.lines)
        return 0

    def keys(self) -> Iterator[bytes]:
        """Every key."""
        size = self.key_bytes
        for one in self.chunks:
            yield from (one.keys[at : at + size] for at in range(0, len(one.keys), size))

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value."""
        for one in self.chunks:
            yield from batch.Batch(
                len(one.lines), one.keys, one.values, self.key_bytes, self.value_bytes
            ).pairs()


def read(rows: Rows, where: str, *, partial: bool, progress: Progress | None = None) -> Content:
    """All of a file.

    Args:
        rows: the file.
        where: its name, for errors.
        partial: leave bad lines out.
        progress: told (elements read, 0) from time to time.

    Raises:
        ConfigError: a line is bad, which is named.
    """
    chunks: list[Chunk] = []
    count = 0
    for one in rows.chunks():
        chunks.append(one)
        count += len(one.lines)
        if progress is not None:
            progress(count, 0)
        if rows.bad and not partial and len(rows.problems) > 20:
            break
    if rows.bad and not partial:
        first = rows.problems[0]
        more = f" (and {rows.bad - 1} more bad lines)" if rows.bad > 1 else ""
        raise ConfigError(
            f"{where}:{first.line}: {first.text}{more}; nothing was written",
            hint=first.hint or "--partial loads the good lines",
        )
    return Content(chunks, rows.key_bytes, rows.value_bytes)


def load(
    of: TypedMap,
    content: Content,
    rows: Rows,
    where: str,
    *,
    partial: bool = False,
    flags: int = 0,
    progress: Progress | None = None,
) -> Loaded:
    """Write a file's elements in their order; what is in the map besides stays.

    Raises:
        MapError: the kernel refused one; those before it are written, and the message says how many and which line.
    """
    done = 0
    elements, total = of.elements, content.count
    stopped: KernelError | None = None
    if not partial:
        _check_room(of, content, where)
    try:
        for one in content.chunks:
            if not content.key_bytes:
                for at in range(0, len(one.values), content.value_bytes):
                    elements.push(one.values[at : at + content.value_bytes])
                    done += 1
                continue
            before = done
            try:
                for written in batch.write(elements, one.keys, one.values, flags=flags):
                    done = before + written
                    if progress is not None:
                        progress(done, total)
            except batch.PartlyDoneError as why:
                done = before + why.done
                raise why.why from None
    except KernelError as why:
        stopped = why
        stopped.message = (
            f"{why.message}; {done} of {total} entries were written"
            f" (up to line {content.line(done - 1)} of {where}) and stay"
            if done
            else f"{why.message}; nothing was written"
        )
        if not partial:
            raise
    return Loaded(
        total, done, None, None, None, tuple(rows.problems), rows.bad, stopped.message if stopped else None
    )


def _check_room(of: TypedMap, content: Content, where: str) -> None:
    """Refuse beforehand what can't fit."""
    kind, room = of.shape.kind, of.max_entries
    if kind.evicts or not content.key_bytes or kind.keys == "index" or content.count <= room:
        return
    distinct = len(set(content.keys()))
    if distinct > room:
        raise MapError(
            f"map {of.name} has room for {room} entries, {where} has {distinct} keys; nothing was written",
            hint="--partial loads what fits; an upgrade can make it larger: max_entries",
        )


def replace(
    of: TypedMap, content: Content, rows: Rows, where: str, *, progress: Progress | None = None
) -> Loaded:
    """Make a file's elements the whole content of a map: add, change, delete what differs; undone on failure.

    Slots of an array that the file does not name become zero.

    Raises:
        ConfigError: this type of map has no content that could be put back.
        MapError: they don't fit, or the kernel refused; the map is as it was.
    """
    kind, room = of.shape.kind, of.max_entries
    if kind.holds != "value" or kind.evicts or not {"lookup", "update", "walk"} <= kind.can:
        raise ConfigError(f"map {of.name}: a map of type {kind.type} can't be replaced as a whole (--atomic)")
    elements = of.elements
    before = {key: value for one in batch.read(elements) for key, value in one.pairs()}
    wanted = dict(content.pairs())
    if kind.deletes:
        if len(wanted) > room:
            raise MapError(
                f"map {of.name} has room for {room} entries, {where} has {len(wanted)}; nothing was written"
            )
        gone = [key for key in before if key not in wanted]
    else:
        zero = bytes(content.value_bytes)
        for key in before:
            wanted.setdefault(key, zero)
        for key in wanted.keys() - before.keys():
            raise MapError(
                f"map {of.name}, key {elements.key_text(key)}: it lies beyond its {room} slots; nothing was written"
            )
        gone = []
    added = [key for key in wanted if key not in before]
    changed = [key for key, value in wanted.items() if before.get(key, value) != value]
    total, done = len(added) + len(changed) + len(gone), 0

    def write(keys: Sequence[bytes], values: dict[bytes, bytes]) -> None:
        nonlocal done
        base = done
        for written in batch.write(elements, b"".join(keys), b"".join(values[key] for key in keys)):
            done = base + written
            if progress is not None:
                progress(done, total)

    # a full map must lose entries first; else readers find all that stays and all that comes
    early = gone[: max(0, len(before) + len(added) - room)] if kind.deletes else []
    try:
        if early:
            batch.delete(elements, b"".join(early))
        write(added, wanted)
        write(changed, wanted)
        late = gone[len(early) :]
        if late:
            batch.delete(elements, b"".join(late))
    except BaseException as why:
        _undo(of, before, added, changed, gone)
        if isinstance(why, KernelError):
            why.message = f"{why.message}; the map is as it was before"
        raise
    return Loaded(
        content.count, len(wanted), len(added), len(changed), len(gone), tuple(rows.problems), rows.bad, None
    )


def _undo(
    of: TypedMap, before: dict[bytes, bytes], added: list[bytes], changed: list[bytes], gone: list[bytes]
) -> None:
    elements = of.elements
    if added:
        batch.delete(elements, b"".join(added))
    back = [*changed, *gone]
    for _ in batch.write(elements, b"".join(back), b"".join(before[key] for key in back)):
        pass


def swap(outer: TypedMap, slot: str, fill: Callable[[TypedMap], Loaded]) -> Loaded:
    """Put a new inner map, filled by `fill`, into a slot of a map of maps: readers see the old or the new one, whole.

    Raises:
        ConfigError: `outer` is no map of maps.
        MissingKeyError: the slot is empty, so nothing tells what an inner map is like.
        MapError: the new map can't be made or filled; the slot is as it was.
    """
    from xdpctl.bpf.map import LoadedMap
    from xdpctl.skeleton.typed_map import TypedMap as Made

    with outer.inner(slot) as old:
        info = old.info()
        opts = MapCreateOpts(map_flags=info.flags)
        btf_fd = -1
        if info.btf_id:
            from xdpctl.bpf import query

            btf_fd = query.open_id("btf", info.btf_id)
            opts.btf_fd, opts.btf_key_type_id = btf_fd, info.btf_key_type_id
            opts.btf_value_type_id = info.btf_value_type_id
        try:
            from xdpctl.libbpf import uapi

            number = uapi.MAP_TYPES.index(info.type)
            fd = lib().bpf_map_create(
                number, info.name.encode(), info.key_size, info.value_size, info.max_entries, opts
            )
        except CallError as why:
            from xdpctl.bpf.failure import map_failed

            raise map_failed(f"making a map like {info.name}", why) from why
        finally:
            if btf_fd >= 0:
                import os

                os.close(btf_fd)
        with Made(LoadedMap(fd), old.btf, old.btf_ids[0], old.btf_ids[1]) as fresh:
            done = fill(fresh)
            outer[slot] = fresh
            return done
