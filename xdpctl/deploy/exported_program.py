"""A program that runs, as a [[program]] that loads the same: its object, globals and map elements."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.deploy import exported_elements
from xdpctl.deploy.exported_elements import is_toml
from xdpctl.errors import ConfigError, XdpctlError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from xdpctl.deploy.desired import ProgramWish
    from xdpctl.deploy.running import Held, OnHook
    from xdpctl.host.model import Snapshot
    from xdpctl.obj.model import ObjFile, ObjGlobal


class LeftOut(NamedTuple):
    """Something that runs and that the file does not say."""

    what: str
    why: str


@dataclass(slots=True)
class ProgramPart:
    """One [[program]]."""

    name: str
    object: str
    sha256: str | None
    remark: str | None = None
    """Said above it."""
    function: str | None = None
    type: str | None = None
    globals: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def same_as(self, other: ProgramPart) -> bool:
        """Whether both load the same."""
        return (self.object, self.sha256, self.function, self.globals) == (
            other.object,
            other.sha256,
            other.function,
            other.globals,
        )


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    base = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:56] or "program"
    found, number = base, 2
    while found in taken:
        found, number = f"{base}-{number}", number + 1
    return found


class Copier:
    """Puts files into the folder that goes with the exported one."""

    def __init__(self, folder: Path | None, relative_to: Path | None) -> None:
        self.folder = folder
        self.relative_to = relative_to

    def write(self, name: str, data: bytes) -> str:
        """A file, and how the deployment names it.

        Raises:
            ConfigError: it can't be written.
        """
        assert self.folder is not None  # noqa: S101 - callers have asked
        path = self.folder / re.sub(r"[^A-Za-z0-9_.@-]", "-", name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise ConfigError(f"can't write {path}: {(error.strerror or str(error)).lower()}") from error
        absolute = path.resolve()
        if self.relative_to is not None:
            return os.path.relpath(absolute, self.relative_to.resolve())
        return str(absolute)


def of_deployment(
    held: Held,
    wish: ProgramWish,
    copier: Copier,
    leave_out: Callable[[str, str], None],
    *,
    entries: bool,
) -> ProgramPart:
    """A program of a deployment; it loads the very bytes that run."""
    remark = f"compiled from {wish.source}" if wish.source else None
    named = _object(wish.object, wish.origin, wish.digest, wish.name, copier)
    if named is None:
        named = str(wish.object)
        leave_out(
            f"a lasting object of {wish.name}", "its copy ends with this boot: --copy-to FOLDER keeps one"
        )
    part = ProgramPart(wish.name, named, wish.digest, remark, wish.function, wish.type)
    if named.startswith("builtin:"):
        part.sha256 = wish.digest
    for text in wish.settings:
        name, _, value = text.partition("=")
        part.globals[name] = _from_text(value)
    instances = [one for one in held.found.instances.values() if one.wish.name == wish.name]
    obj = held.objects[wish.name]
    for one in wish.maps:
        part.maps[one.name] = {
            "max_entries": one.max_entries,
            "on_schema_change": one.on_schema_change if one.on_schema_change != "fail" else None,
        }
    for name, elements in exported_elements.elements(
        held, obj, instances, wish, leave_out, everything=entries
    ).items():
        exported_elements.put(part, name, elements, copier)
    part.maps = {
        name: {key: one for key, one in table.items() if one is not None} for name, table in part.maps.items()
    }
    part.maps = {name: table for name, table in part.maps.items() if table}
    return part


def _object(kept: Path, origin: str, digest: str, name: str, copier: Copier) -> str | None:
    """How the file names the object; None: only the deployment's own copy, which ends with the boot, is left."""
    if copier.folder is not None:
        with contextlib.suppress(OSError):
            return copier.write(f"{name}.bpf.o", kept.read_bytes())
    for one in (origin, str(kept)):
        path = Path(one)
        if not one or one.startswith("/run/") or path == kept:
            continue
        with contextlib.suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                return str(path.absolute())
    return None


def _from_text(text: str) -> Any:
    """The TOML value that `load.setting_text` makes this text of."""
    from xdpctl.deploy.load import setting_text

    found: Any = text
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        found = int(text)
    elif text in ("true", "false"):
        found = text == "true"
    elif text[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            found = json.loads(text)
    return found if setting_text(found) == text and is_toml(found) else text


# -- programs of no deployment ------------------------------------------------------------------------------------


def of_record(
    one: OnHook, snapshot: Snapshot, copier: Copier, leave_out: Callable[[str, str], None]
) -> ProgramPart | None:
    """A program that `xdpctl attach` put there; None where nobody knows its object, which is told."""
    from xdpctl.attach.model import DISPATCHERS
    from xdpctl.obj import reader

    what = f"{one.called} on {one.where}"
    if one.record is None:
        whose = f": it is the dispatcher of {DISPATCHERS[one.name]}" if one.name in DISPATCHERS else ""
        leave_out(what, f"nothing tells which object it was loaded from{whose}")
        return None
    path = Path(one.record.object)
    try:
        data = path.read_bytes()
        obj = reader.parse(data, path)
    except (OSError, XdpctlError) as error:
        reason = error.strerror if isinstance(error, OSError) else getattr(error, "message", "")
        leave_out(what, f"its object {path} can't be read now: {(reason or 'unknown').lower()}")
        return None
    function = one.record.name
    program = obj.program(function)
    if program is None:
        leave_out(what, f"{path} has no function {function} any more")
        return None
    remark = None
    with contextlib.suppress(OSError):
        if path.stat().st_mtime > one.record.attached_at:
            remark = (
                f"{path} was written after this was loaded: it may be another version than the one that runs"
            )
            leave_out(f"the version of {what}", f"{path} was written after it was loaded")
    named = copier.write(f"{function}.bpf.o", data) if copier.folder is not None else str(path.absolute())
    part = ProgramPart(
        free_name(function, ()),
        named,
        hashlib.sha256(data).hexdigest(),
        remark,
        function if sum(each.type == program.type for each in obj.programs) > 1 else None,
        None if program.type is not None else ("xdp" if one.hook == "xdp" else "tc"),
    )
    _globals(part, obj, one, snapshot, leave_out)
    return part


def _globals(
    part: ProgramPart, obj: ObjFile, one: OnHook, snapshot: Snapshot, leave_out: Callable[[str, str], None]
) -> None:
    """Constants that were set before load: what the program's .rodata holds and the object does not."""
    from xdpctl.bpf.map import open_map

    known = snapshot.programs.get(one.program_id)
    held: bytes | None = None
    size = max((each.offset + each.size for each in obj.globals if each.section == ".rodata"), default=0)
    for number in known.map_ids if known is not None and size else ():
        with contextlib.suppress(XdpctlError), open_map(number) as opened:
            info = opened.info()
            if info.name.endswith(".rodata") and info.value_size >= size:
                held = opened.lookup(b"\0\0\0\0")
    if held is None:
        if size:
            leave_out(f"global variables of {one.called}", "its .rodata can't be read")
        return
    for each in obj.globals:
        now = held[each.offset : each.offset + each.size]
        if each.section != ".rodata" or now == (each.initial or bytes(each.size)):
            continue
        try:
            part.globals[each.name] = _global(obj, each, held, one, snapshot)
        except (XdpctlError, TypeError, ValueError):
            leave_out(f"global variable {each.name} of {one.called}", f"{now.hex()} can't be written in TOML")


def _global(obj: ObjFile, each: ObjGlobal, held: bytes, one: OnHook, snapshot: Snapshot) -> Any:
    """The TOML value that puts these bytes there.

    Raises:
        XdpctlError, TypeError, ValueError: there is none.
    """
    from xdpctl.btf.values import decode
    from xdpctl.deploy.load import setting_text
    from xdpctl.host.model import LinkRef
    from xdpctl.obj import globals as variables

    if obj.btf is None:
        raise ValueError(each.name)
    value = decode(obj.btf, each.type_id, held, each.offset)
    target = None
    if "ifindex" in each.name and isinstance(value, int):
        target = snapshot.link(LinkRef(one.link.netns, value))
    if target is not None:
        value = target.name  # the same device, by what it will be called after a reboot too
    ifindex = target.ifindex if target is not None else 0
    found = variables.encode(obj, each.name, setting_text(value), ifindex=lambda _name: ifindex)
    if found.data != held[each.offset : each.offset + each.size] or not is_toml(value):
        raise ValueError(each.name)
    return value
