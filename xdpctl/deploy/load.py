"""From TOML files to a `Deployment`: read, filled in, checked as a whole; every error at once, and nothing changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.deploy import checked as documents
from xdpctl.deploy import entries, files
from xdpctl.deploy.desired import (
    AttachWish,
    Deployment,
    DeploymentError,
    InterfaceWish,
    MapWish,
    Place,
    ProgramWish,
    RedirectWish,
    Wrong,
    seconds,
)
from xdpctl.deploy.device import DeviceSettings
from xdpctl.errors import ConfigError, XdpctlError, near

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xdpctl.deploy.files import Source
    from xdpctl.deploy.schema import File, InterfaceTable, ProgramTable
    from xdpctl.obj.model import ObjFile

LARGEST_OBJECT = 256 << 20


class Loaded(NamedTuple):
    """A deployment, and what was read for it."""

    deployment: Deployment
    objects: Mapping[str, ObjFile]
    """By program name: what its object says without loading it."""
    files: tuple[Path, ...]


def load(
    named: Sequence[Path],
    *,
    variables: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    compile_sources: bool = True,
    progress: Callable[[str], None] = lambda _text: None,
) -> Loaded:
    """The deployment that these files and folders describe together.

    Args:
        named: TOML files, or folders of them.
        variables: --var.
        environment: where ${NAME} is looked up last; None: this process's.
        compile_sources: whether a [[program]] with a source is compiled; else it is only looked whether it is there.
        progress: hears what is compiled.

    Raises:
        DeploymentError: something is wrong; it lists everything.
        CompileError: clang refused a source.
    """
    wrong: list[Wrong] = []
    sources = files.read_all(named, wrong)
    files.put_in(sources, variables or {}, os.environ if environment is None else environment, wrong)
    if wrong:
        _raise(wrong)
    checked: list[tuple[Source, File]] = []
    for source in sources:
        content, told = documents.check(source.document)
        deeper = {path for path, _, _ in told}
        wrong += [
            Wrong(source.place(path), message, hint)
            for path, message, hint in told
            # of a union's arms the one that was meant has told more, further inside
            if not any(len(one) > len(path) and one[: len(path)] == path for one in deeper)
        ]
        if content is not None:
            checked.append((source, content))
    reader = _Reader(wrong, compile_sources=compile_sources, progress=progress)
    deployment = reader.read(checked, whole=len(checked) == len(sources))
    if wrong:
        _raise(wrong)
    return Loaded(deployment, reader.objects, tuple(one.path for one in sources))


def _raise(wrong: list[Wrong]) -> None:
    raise DeploymentError(wrong)


class _Reader:
    """Turns checked files into one deployment, collecting what contradicts itself."""

    def __init__(self, wrong: list[Wrong], *, compile_sources: bool, progress: Callable[[str], None]) -> None:
        self.wrong = wrong
        self.compile_sources = compile_sources
        self.progress = progress
        self.objects: dict[str, ObjFile] = {}

    def read(self, checked: list[tuple[Source, File]], *, whole: bool) -> Deployment:
        name, adopt = self.name(checked, whole=whole)
        programs: list[ProgramWish] = []
        known: dict[str, Place] = {}
        named = {one.name for _, content in checked for one in content.program}
        for source, content in checked:
            for number, table in enumerate(content.program):
                place = source.place(("program", number, "name"))
                if table.name in known:
                    self.wrong.append(
                        Wrong(place, f"program {table.name} is there already, at {known[table.name]}")
                    )
                    continue
                known[table.name] = place
                found = self.program(source, number, table)
                if found is not None:
                    programs.append(found)
        interfaces = [
            self.interface(source, number, table, named, whole=whole)
            for source, content in checked
            for number, table in enumerate(content.interface)
        ]
        redirects = [
            RedirectWish(one.from_, one.to, one.netns, one.ensure, source.place(("redirect", number)))
            for source, content in checked
            for number, one in enumerate(content.redirect)
        ]
        return Deployment(name, adopt, tuple(programs), tuple(interfaces), tuple(redirects))

    def name(self, checked: list[tuple[Source, File]], *, whole: bool) -> tuple[str, bool]:
        said = [(source, one.deployment) for source, one in checked if one.deployment is not None]
        for source, _ in said[1:]:
            self.wrong.append(
                Wrong(
                    source.place(("deployment",)),
                    f"[deployment] is in {said[0][0].path} already",
                    "say it once",
                )
            )
        if not said:
            if whole:
                where = Place(str(checked[0][0].path)) if checked else Place()
                self.wrong.append(Wrong(where, "no [deployment]", 'add:  [deployment]  name = "edge"'))
            return "", False
        return said[0][1].name, said[0][1].adopt

    # -- programs -------------------------------------------------------------------------------------------------

    def program(self, source: Source, number: int, table: ProgramTable) -> ProgramWish | None:
        base: tuple[str | int, ...] = ("program", number)
        path = self.file_of(source, base, table)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_OBJECT)
        except OSError as error:
            self.wrong.append(
                Wrong(source.place(base), f"can't read {path}: {(error.strerror or '').lower()}")
            )
            return None
        digest = hashlib.sha256(data).hexdigest()
        if table.sha256 is not None and table.sha256.lower() != digest:
            self.wrong.append(
                Wrong(source.place((*base, "sha256")), f"{path} is another file: its SHA-256 is {digest}")
            )
            return None
        settings = tuple(f"{name}={setting_text(value)}" for name, value in table.globals.items())
        found = None
        if table.object is not None or self.compile_sources:
            found = self.examine(source, base, table, path, data, settings)
            if found is None:
                return None
        maps = tuple(
            MapWish(
                name,
                one.max_entries,
                self.entries(source, (*base, "maps", name), one),
                one.on_schema_change,
                source.place((*base, "maps", name)),
            )
            for name, one in table.maps.items()
        )
        if found is not None:
            self.objects[table.name] = found
            for one in maps:
                self.wrong += entries.check(found, one)
        return ProgramWish(
            table.name,
            path,
            digest,
            table.function,
            table.type,
            settings,
            maps,
            source.place((*base, "name")),
            os.path.abspath(path),  # noqa: PTH100 - must not follow symlinks
            os.path.abspath(source.path.parent / table.source) if table.source else "",  # noqa: PTH100
        )

    def file_of(self, source: Source, base: tuple[str | int, ...], table: ProgramTable) -> Path | None:
        if table.object is not None:
            place = source.place((*base, "object"))
            if table.object.startswith("builtin:"):
                from xdpctl.obj import shipped

                try:
                    return shipped.resolve(Path(table.object))
                except ConfigError as error:
                    self.wrong.append(Wrong(place, error.message, error.hint))
                    return None
            return files.resolve(source, table.object, place, self.wrong)
        place = source.place((*base, "source"))
        path = files.resolve(source, table.source or "", place, self.wrong)
        if path is None or not self.compile_sources:
            return path
        return self.compiled(path, place)

    def compiled(self, path: Path, place: Place) -> Path | None:
        from xdpctl.build.compile import build

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "xdpctl" / "deploy"
        folder = cache / hashlib.sha256(os.fsencode(os.path.realpath(path.parent))).hexdigest()[:16]
        try:
            (built,) = build(
                [path], folder, progress=lambda one, _at, _of: self.progress(f"compiled {one.source}")
            )
        except ConfigError as error:
            self.wrong.append(Wrong(place, error.message, error.hint))
            return None
        return built.object

    def examine(
        self,
        source: Source,
        base: tuple[str | int, ...],
        table: ProgramTable,
        path: Path,
        data: bytes,
        settings: tuple[str, ...],
    ) -> ObjFile | None:
        """What the object says: whether its function, globals and maps are there."""
        from xdpctl.obj import globals as variables
        from xdpctl.obj import reader

        try:
            found = reader.parse(data, path)
        except XdpctlError as error:
            self.wrong.append(Wrong(source.place(base), error.message, error.hint))
            return None
        if table.function is not None and found.program(table.function) is None:
            names = [one.name for one in found.programs]
            self.wrong.append(
                Wrong(
                    source.place((*base, "function")),
                    f"{path.name} has no function {table.function}",
                    _suggest(table.function, names),
                )
            )
        for text in settings:
            name = text.partition("=")[0]
            try:
                # interfaces are those of the namespace that is attached in: any name will do here
                variables.parse(found, text, ifindex=lambda _name: 1)
            except ConfigError as error:
                self.wrong.append(Wrong(source.place((*base, "globals", name)), error.message, error.hint))
        return found

    def entries(
        self, source: Source, base: tuple[str | int, ...], table: Any
    ) -> tuple[tuple[object, object], ...]:
        if table.entries_from is not None:
            place = source.place((*base, "entries_from"))
            path = files.resolve(source, table.entries_from, place, self.wrong)
            return entries.read_csv(path, self.wrong) if path is not None else ()
        if isinstance(table.entries, dict):
            return tuple(table.entries.items())
        listed = table.entries or ()
        return tuple((one, None) if isinstance(one, (int, str)) else (one.key, one.value) for one in listed)

    # -- interfaces -----------------------------------------------------------------------------------------------

    def interface(
        self, source: Source, number: int, table: InterfaceTable, programs: set[str], *, whole: bool
    ) -> InterfaceWish:
        base: tuple[str | int, ...] = ("interface", number)
        attach = []
        hooks: dict[str, AttachWish] = {}
        for at, one in enumerate(table.attach):
            place = source.place((*base, "attach", at))
            if one.program not in programs and whole:
                self.wrong.append(
                    Wrong(
                        source.place((*base, "attach", at, "program")),
                        f"no [[program]] is called {one.program}",
                        _suggest(one.program, sorted(programs)),
                    )
                )
            mode = one.mode or "native"
            wish = AttachWish(one.program, one.hook, mode, one.via, one.order, one.function, place)
            if one.hook == "xdp" and not (
                "xdp" in hooks and "offload" in (mode, hooks["xdp"].mode) and mode != hooks["xdp"].mode
            ):
                if "xdp" in hooks:
                    self.wrong.append(two_programs(place, hooks["xdp"]))
                hooks["xdp"] = wish
            attach.append(wish)
        match = (table.match,) if isinstance(table.match, str) else tuple(table.match or ())
        self.contradicting_features(source, base, table.features)
        return InterfaceWish(
            table.name,
            match,
            table.driver,
            table.netns,
            seconds(table.wait),
            _settings(table),
            tuple(attach),
            source.place(base),
        )

    def contradicting_features(
        self, source: Source, base: tuple[str | int, ...], features: Mapping[str, bool]
    ) -> None:
        from xdpctl.deploy.device_names import kernel_feature_names

        seen: dict[str, tuple[str, bool]] = {}
        for name, value in features.items():
            for kernel in kernel_feature_names(name):
                if kernel in seen and seen[kernel][1] != value:
                    other = seen[kernel][0]
                    self.wrong.append(
                        Wrong(
                            source.place((*base, "features", name)),
                            f"{name} = {_bool(value)} contradicts {other} = {_bool(not value)}: both are {kernel}",
                        )
                    )
                seen.setdefault(kernel, (name, value))


def two_programs(place: Place, other: AttachWish, where: str = "") -> Wrong:
    """Two programs on the one XDP hook of an interface."""
    return Wrong(
        place,
        f"a second program on the XDP hook{where}, which holds one: {other.program} is there, at {other.place}",
        "without a dispatcher, put both into one program, or the second on hook ingress",
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _suggest(name: str, known: Sequence[str]) -> str | None:
    close = near(name, known)
    if close:
        return f"did you mean {close[0]}?"
    return f"there is {', '.join(known[:12])}" if known else None


def setting_text(value: Any) -> str:
    """A TOML value as the VALUE of ``--set NAME=VALUE``."""
    import json

    if isinstance(value, bool):
        return _bool(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return str(value)


def _settings(table: InterfaceTable) -> DeviceSettings:
    def plain(part: Any) -> dict[str, Any]:
        # by ethtool's names
        values = vars(part).items() if part is not None else ()
        return {name.replace("_", "-"): value for name, value in values if value is not None}

    return DeviceSettings(
        up=table.up,
        mtu=table.mtu,
        rings=plain(table.rings),
        channels=plain(table.channels),
        features=dict(table.features),
        coalesce=dict(table.coalesce),
        pause=plain(table.pause),
        private_flags=dict(table.private_flags),
        napi=plain(table.napi),
    )
