"""What was applied: one folder a deployment below /run/xdpctl, and its pins below the bpffs; both end with the boot.

``deployments/NAME/state.json`` is the present generation, ``history/N.json`` each one, ``objects/`` the files that
were loaded, so that a rollback does not depend on what became of the sources.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import runstate
from xdpctl.bpf import pins
from xdpctl.deploy.desired import (
    AttachWish,
    Deployment,
    InterfaceWish,
    MapWish,
    Place,
    ProgramWish,
    RedirectWish,
)
from xdpctl.deploy.device import DeviceSettings
from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.deploy.change import Json
    from xdpctl.host.model import Namespace

SCHEMA = 1
KEPT = 20
"""Generations of a deployment that can be gone back to."""
LARGEST = 1 << 28


@dataclass(frozen=True, slots=True)
class Found:
    """Settings of one device as they were before a deployment first changed them."""

    netns: int
    """Inode of its namespace."""
    ifindex: int
    interface: str
    kind: str
    """device.mtu, device.features, ...: as `Change.kind`."""
    values: Mapping[str, Json]
    because: str = ""
    """``A to B``: the redirect with ensure that asked for the change; "": an [[interface]]."""
    label: str | None = None
    """What the namespace was called; None: it was the caller's."""
    cookie: int | None = None
    """What tells it from a later one with its inode; None: before Linux 5.14."""

    def there(self, space: Namespace) -> bool:
        """Whether this is the namespace that was meant, and not another one that was given its inode."""
        if self.cookie is not None and space.cookie is not None:
            return self.cookie == space.cookie
        return self.label is None or self.label == space.label


@dataclass(frozen=True, slots=True)
class Stored:
    """One generation of a deployment, as it was applied."""

    deployment: Deployment
    generation: int
    applied_at: str
    """UTC, ISO 8601."""
    command: str
    destroyed: bool = False
    found: tuple[Found, ...] = ()
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By map pin: keys that were declared, hexadecimal."""
    programs: tuple[str, ...] = ()
    """Folders of its pinned programs."""
    maps: tuple[str, ...] = ()
    """Its map pins."""
    changes: int = 0
    """How many changes led here."""

    @property
    def name(self) -> str:
        """The deployment's."""
        return self.deployment.name


# -- places -------------------------------------------------------------------------------------------------------


def folder(name: str) -> Path:
    """Run-time state of a deployment."""
    return runstate.folder() / "deployments" / pins.component(name)


def pin_folder(name: str) -> Path:
    """Pins of a deployment: ``programs/``, ``maps/`` and ``kept/``."""
    return pins.root() / "deployments" / pins.component(name)


def pin(name: str, relative: str) -> Path:
    """A pin of a deployment, its components checked.

    Raises:
        ConfigError: the path leads elsewhere.
    """
    return pins.below(pin_folder(name), *relative.split("/"))


def object_path(name: str, digest: str) -> Path:
    """Where the object with this SHA-256 is kept."""
    return folder(name) / "objects" / f"{digest}.o"


# -- JSON ---------------------------------------------------------------------------------------------------------


def to_json(stored: Stored) -> dict[str, Any]:
    """A generation as JSON values."""
    return {
        "schema": SCHEMA,
        "generation": stored.generation,
        "applied_at": stored.applied_at,
        "command": stored.command,
        "destroyed": stored.destroyed,
        "changes": stored.changes,
        "deployment": deployment_to_json(stored.deployment),
        "found": [_fields(one) for one in stored.found],
        "entries": {key: list(value) for key, value in stored.entries.items()},
        "programs": list(stored.programs),
        "maps": list(stored.maps),
    }


def from_json(document: Any) -> Stored:
    """The generation that `to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    try:
        if document["schema"] > SCHEMA:
            raise ConfigError(f"state of schema {document['schema']}, this xdpctl knows {SCHEMA}")
        return Stored(
            deployment=deployment_from_json(document["deployment"]),
            generation=int(document["generation"]),
            applied_at=str(document["applied_at"]),
            command=str(document["command"]),
            destroyed=bool(document["destroyed"]),
            changes=int(document["changes"]),
            found=tuple(Found(**one) for one in document["found"]),
            entries={str(key): tuple(value) for key, value in document["entries"].items()},
            programs=tuple(document["programs"]),
            maps=tuple(document["maps"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"no state of a deployment: {type(error).__name__} {error}") from error


def _fields(one: Any) -> dict[str, Any]:
    return {name: _plain(getattr(one, name)) for name in one.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "items"):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return _fields(value)


def deployment_to_json(wanted: Deployment) -> dict[str, Any]:
    """A deployment as JSON values."""
    made: dict[str, Any] = _fields(wanted)
    return made


def deployment_from_json(document: Any) -> Deployment:
    """The deployment that `deployment_to_json` wrote."""

    def place(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "place": Place(**one["place"])}

    programs = [
        ProgramWish(
            **{
                **place(one),
                "object": Path(one["object"]),
                "settings": tuple(one["settings"]),
                "maps": tuple(
                    MapWish(
                        **{**place(each), "entries": tuple((key, value) for key, value in each["entries"])}
                    )
                    for each in one["maps"]
                ),
            }
        )
        for one in document["programs"]
    ]
    interfaces = [
        InterfaceWish(
            **{
                **place(one),
                "match": tuple(one["match"]),
                "settings": DeviceSettings(**one["settings"]),
                "attach": tuple(AttachWish(**place(each)) for each in one["attach"]),
            }
        )
        for one in document["interfaces"]
    ]
    return Deployment(
        name=document["name"],
        adopt=document["adopt"],
        programs=tuple(programs),
        interfaces=tuple(interfaces),
        redirects=tuple(RedirectWish(**place(one)) for one in document["redirects"]),
    )


# -- files --------------------------------------------------------------------------------------------------------


def write_file(path: Path, document: Any) -> None:
    """One JSON file, whole or not at all, and on the medium when this returns.

    Raises:
        ConfigError: it can't be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with fresh.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document))  # json.dump() is several times slower
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"can't write {path}: {(error.strerror or str(error)).lower()}") from error


def read_file(path: Path) -> Any:
    """What such a file holds; None where there is none.

    Raises:
        ConfigError: it can't be read, or is damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return json.loads(file.read(LARGEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}", hint=f"rm {path}") from error


def current(name: str) -> Stored | None:
    """The present generation of a deployment, be it a destroyed one; None: there never was one in this boot.

    Raises:
        ConfigError: its file is damaged.
    """
    path = folder(name) / "state.json"
    try:
        document = read_file(path)
        return None if document is None else from_json(document)
    except ConfigError as error:
        kept = generations(name)
        if kept:
            error.hint = f"cp {folder(name) / 'history' / f'{kept[-1]}.json'} {path}"
        raise


def existing(name: str) -> Stored:
    """The present generation of a deployment that is not destroyed.

    Raises:
        NotFoundError: there is none.
    """
    found = current(name)
    if found is None or found.destroyed:
        raise NotFoundError("deployment", name, known=names(), where=str(runstate.folder()))
    return found


def names(*, destroyed: bool = False) -> list[str]:
    """Deployments of this boot."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.listdir(runstate.folder() / "deployments")):  # noqa: PTH208 - names, not paths
            try:
                stored = current(entry)
            except ConfigError:
                found.append(entry)  # who asks for it is told what is damaged
                continue
            if stored is not None and (destroyed or not stored.destroyed):
                found.append(entry)
    return found


def write(stored: Stored) -> None:
    """Make a generation the present one; old ones beyond `KEPT` go.

    Raises:
        ConfigError: it can't be written.
    """
    document = to_json(stored)
    where = folder(stored.name)
    write_file(where / "history" / f"{stored.generation}.json", document)
    write_file(where / "state.json", document)
    for number in generations(stored.name)[:-KEPT]:
        with contextlib.suppress(OSError):
            (where / "history" / f"{number}.json").unlink()


def generations(name: str) -> list[int]:
    """Numbers of the generations that are kept, ascending."""
    found = []
    with contextlib.suppress(OSError):
        found = [
            int(one.stem)
            for one in (folder(name) / "history").iterdir()
            if one.stem.isdecimal() and one.suffix == ".json"
        ]
    return sorted(found)


def generation(name: str, number: int) -> Stored:
    """One generation.

    Raises:
        NotFoundError: it is not kept.
    """
    document = read_file(folder(name) / "history" / f"{number}.json")
    if document is None:
        raise NotFoundError("generation", f"{number} of {name}", hint=f"xdpctl history {name}")
    return from_json(document)


def keep_objects(wanted: Deployment) -> Deployment:
    """Copy a deployment's objects into its state; the deployment that loads these copies.

    Raises:
        ConfigError: one can't be read, or is another file than it was.
    """
    import hashlib

    kept = []
    for one in wanted.programs:
        path = object_path(wanted.name, one.digest)
        if not path.exists():
            try:
                data = one.object.read_bytes()
            except OSError as error:
                raise ConfigError(
                    f"can't read {one.object}: {(error.strerror or str(error)).lower()}"
                ) from error
            if hashlib.sha256(data).hexdigest() != one.digest:
                raise ConfigError(f"{one.object} has changed since it was planned", hint="plan again")
            try:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                fresh = path.with_suffix(f".{os.getpid()}")
                with fresh.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
            except OSError as error:
                raise ConfigError(f"can't write {path}: {(error.strerror or str(error)).lower()}") from error
        kept.append(replace(one, object=path))
    return replace(wanted, programs=tuple(kept))


def forget_objects(name: str) -> None:
    """Remove kept objects that no kept generation loads."""
    used = set()
    for number in generations(name):
        with contextlib.suppress(ConfigError):
            used |= {one.digest for one in generation(name, number).deployment.programs}
    with contextlib.suppress(OSError):
        for path in (folder(name) / "objects").iterdir():
            if path.stem not in used:
                path.unlink()


def forget(name: str) -> None:
    """Remove a deployment's state and history."""
    shutil.rmtree(folder(name), ignore_errors=True)
    with contextlib.suppress(OSError):
        (runstate.folder() / "deployments").rmdir()
