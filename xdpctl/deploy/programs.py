"""Programs come into the kernel and stay there by their pins; what leaves is unpinned (kernel/bpf/inode.c).

``programs/FOLDER/FUNCTION`` holds each function of one load, ``maps/...`` its maps, which outlive versions.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import runstate
from xdpctl.bpf import pins
from xdpctl.deploy import holding, state
from xdpctl.errors import ConfigError, MapError, NotFoundError, XdpctlError

if TYPE_CHECKING:
    from xdpctl.bpf.object import Object
    from xdpctl.deploy.change import Change, Context


def execute(change: Change, context: Context) -> None:
    """Load, unload, pin again, keep or release; see `change.execute`.

    Raises:
        VerifierError, MapError, ObjectError, UnsupportedError, PrivilegeError: it could not be loaded.
        ConfigError: its object has changed.
        NotFoundError: somebody else's program has gone before it could be held.
    """
    what = change.kind.partition(".")[2]
    if what == "load":
        _load(change, holding.side(change, "after"), context)
    elif what == "unload":
        unload(holding.side(change, "before"), context)
    elif what == "pin":
        _pin(holding.side(change, "after"))
    elif what == "unpin":
        _unpin(holding.side(change, "before"), context)
    elif what == "keep":
        _keep(holding.side(change, "after"))
    elif what == "release":
        told = holding.side(change, "before")
        pins.unpin(state.pin(told["deployment"], f"kept/{told['pin']}"))


def _load(change: Change, told: dict[str, Any], context: Context) -> None:
    name, folder = told["deployment"], told["folder"]
    wanted = {function: state.pin(name, f"programs/{folder}/{function}") for function, _ in told["functions"]}
    if all(path.exists() for path in wanted.values()):
        return
    # what an interrupted load has pinned of its own goes: its functions and tail calls belong to one load
    for path in pins.walk(state.pin(name, f"programs/{folder}")):
        pins.unpin(path)
    from xdpctl.bpf.object import Object

    with (
        holding.inside(change, context),
        Object.open(_object(told), pin_root=state.pin_folder(name) / "maps") as obj,
    ):
        _set_up(obj, told, change)
        try:
            obj.load()
        except MapError as error:
            error.hint = error.hint or 'on_schema_change = "copy" or "recreate" in its [program.maps]'
            raise
        # of programs that lay there, until somebody unpinned them
        places = set(map(str, wanted.values()))
        stale = [one.id for one in runstate.read().values() if one.pin in places]
        if stale:
            runstate.forget(stale)
        for function, path in wanted.items():
            info = obj.program(function).info()
            pins.pin(obj.program(function).fd, path)
            runstate.write(
                runstate.Record(
                    id=info.id,
                    load_time_ns=info.load_time_ns,
                    name=function,
                    tag=info.tag,
                    object=told["object"],
                    via="link",
                    attached_at=time.time(),
                    pin=str(path),
                )
            )


def _object(told: dict[str, Any]) -> Path:
    """The object's file: the copy that the deployment keeps, else the one that was named, if it is still the same."""
    import hashlib

    path = state.object_path(told["deployment"], told["digest"])
    if path.exists():
        return path
    path = Path(told["object"])
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from error
    if digest != told["digest"]:
        raise ConfigError(f"{path} has changed since it was planned", hint="plan again")
    return path


def _set_up(obj: Object, told: dict[str, Any], change: Change) -> None:
    """Functions, globals and maps as the change says, before load."""
    from xdpctl.attach.choose import choose
    from xdpctl.attach.prepare import section
    from xdpctl.attach.request import AttachRequest

    functions = dict(told["functions"])
    types = set()
    for function, hook in functions.items():
        choose(obj, AttachRequest(obj.path, ("any",), hook=hook, program=function, type=told["type"]))
        types.add(obj.program(function).type)
    together = any(one.type == "prog_array" for one in obj.maps.values())
    for one in obj.programs.values():
        one.set_autoload(one.name in functions or (together and one.type in types))
        if one.name in functions and change.ifindex:
            one.set_ifindex(change.ifindex, offload=told["offload"])
    for where, offset, data in told["patches"]:
        section(obj, where).patch_initial_value(offset, bytes.fromhex(data))
    for name, wish in told["maps"].items():
        found = obj.map(name)
        if wish["max_entries"] is not None:
            found.set_max_entries(wish["max_entries"])
        if told["offload"]:
            found.set_ifindex(change.ifindex or 0)
        found.set_pin_path(state.pin(told["deployment"], wish["pin"]))


def unload(told: dict[str, Any], context: Context | None = None) -> None:
    """Unpin the functions of one load, and the maps that were made for it."""
    name, folder = told["deployment"], told["folder"]
    if context is not None:
        holding.of(context).forget(name, folder)
    forget_folder(name, folder)
    for one in told["fresh"]:
        pins.unpin(state.pin(name, one))


def forget_folder(name: str, folder: str) -> None:
    """Unpin what lies in one folder of programs; their records go too."""
    import os

    from xdpctl.bpf import query

    gone = []
    for path in pins.walk(state.pin(name, f"programs/{folder}")):
        with contextlib.suppress(XdpctlError):
            fd = pins.open_pin(path, "program")
            try:
                gone.append(query.program_info(fd).id)
            finally:
                os.close(fd)
        pins.unpin(path)
    if gone:
        runstate.forget(gone)


def _pin(told: dict[str, Any]) -> None:
    """What somebody has unpinned and the kernel still has; see `unpinned`."""
    from xdpctl.bpf.map import open_map
    from xdpctl.bpf.program import program_by_id

    name = told["deployment"]
    try:
        for function, number in told["functions"].items():
            path = state.pin(name, f"programs/{told['folder']}/{function}")
            if not path.exists():
                with program_by_id(number) as found:
                    pins.pin(found.fd, path)
                record = runstate.read().get(number)
                if record is not None and record.pin != str(path):
                    runstate.write(record._replace(pin=str(path)))
        for pin, number in told["maps"].items():
            path = state.pin(name, pin)
            if not path.exists():
                with open_map(number) as opened:
                    pins.pin(opened.fd, path)
    except NotFoundError as error:
        error.hint = "it has gone meanwhile: plan again"
        raise


def _unpin(told: dict[str, Any], context: Context) -> None:
    holding.of(context).forget(told["deployment"], told["folder"])
    for function in told["functions"]:
        pins.unpin(state.pin(told["deployment"], f"programs/{told['folder']}/{function}"))
    for pin in told["maps"]:
        pins.unpin(state.pin(told["deployment"], pin))


def _keep(told: dict[str, Any]) -> None:
    path = state.pin(told["deployment"], f"kept/{told['pin']}")
    if path.exists():
        return
    from xdpctl.bpf.program import program_by_id

    try:
        with program_by_id(told["id"]) as found:
            pins.pin(found.fd, path)
    except NotFoundError as error:
        raise NotFoundError("program", str(told["id"]), hint="it has gone meanwhile: plan again") from error
