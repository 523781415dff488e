"""A BPF object as a Python object: its variables, maps and programs by name, through the states of its life.

What ``bpftool gen skeleton`` makes for C, here at run time from the object's BTF (`xdpctl gen skeleton` writes the
types of one object down for editors and mypy).
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from xdpctl.bpf import pins
from xdpctl.bpf.file import path_of
from xdpctl.bpf.object import Object
from xdpctl.errors import ConfigError, NotFoundError, UnknownNameError, XdpctlError
from xdpctl.libbpf import uapi
from xdpctl.skeleton import programs, types
from xdpctl.skeleton.globals import Globals, attribute, described, section_of
from xdpctl.skeleton.names import Named
from xdpctl.skeleton.states import Life

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.bpf.map import Map
    from xdpctl.btf.parse import Btf
    from xdpctl.btf.views import StructView
    from xdpctl.skeleton.links import Link
    from xdpctl.skeleton.source import Source
    from xdpctl.skeleton.states import State


BUILTIN = "builtin:"


class Skeleton:
    """A BPF object: open it, set variables and sizes, load it, attach its programs, read its maps.

    Global variables are attributes of their section: ``skel.rodata.limit``, ``skel.bss.seen``, ``skel.data.mode``;
    ``.data.hot`` is ``skel.data_hot``. All are writable before load; then ``.rodata`` is constant, and the others are
    the memory that the programs themselves use. Leaving the ``with`` block detaches what is not pinned.

    Attributes:
        maps: by name; ``skel.maps.stats[key]``. Sizes are settable before load, keys and values usable after.
        progs: by name, each of a class that offers what its type can do.
        types: the structs of the object, as classes that make values.
    """

    __slots__ = (
        "__weakref__",
        "_btf_",
        "_globals",
        "_life",
        "_links",
        "_object",
        "_sections",
        "maps",
        "progs",
    )

    SOURCE: ClassVar[Source | None] = None
    """Where a generated skeleton has its object."""

    maps: Any
    progs: Any
    if TYPE_CHECKING:
        rodata: Any
        data: Any
        bss: Any
        kconfig: Any

    def __init__(self, opened: Object) -> None:
        """Take over an object that is opened and not loaded; `open` is the usual way."""
        self._object = opened
        self._life = Life(opened.path.name)
        self._links: list[Link] = []
        self._globals: dict[str, Globals] = {}
        self._sections: dict[str, Any] | None = None
        self._btf_: list[Btf | None] = []
        # nothing of these refers to the skeleton: it is told as forgotten at once, not when cycles are collected
        self.maps = Named("map", self._life.what, partial(_ours, opened), partial(_map, opened))
        wrap = partial(_program, self._life, opened, self._links)
        self.progs = Named("program", self._life.what, lambda: opened.programs, wrap)

    @classmethod
    def open(
        cls,
        path: Path | str | None = None,
        *,
        pin_maps: str | None = None,
        kconfig: str | None = None,
        program_types: Mapping[str, str] | None = None,
    ) -> Self:
        """Read an object; nothing reaches the kernel yet.

        Args:
            path: the file, or ``builtin:NAME``; None: a generated skeleton's own object.
            pin_maps: directory below xdpctl's one in the bpffs where maps marked LIBBPF_PIN_BY_NAME are found and
                pinned; None: they are not pinned.
            kconfig: lines of CONFIG_X=y for ``__kconfig`` externs, before those of the running kernel.
            program_types: program -> type (``xdp``, ``tc``), for sections whose name tells libbpf none.

        Raises:
            NotFoundError: there is no such file.
            ObjectError: it is no BPF object that can be used.
            ConfigError: the object of a generated skeleton has changed; `pin_maps` is no safe name.
            UnsupportedError: there is no usable libbpf.
        """
        data = None
        if path is None:
            if cls.SOURCE is None:
                raise ConfigError("no object to open", hint='Skeleton.open("prog.bpf.o")')
            path, data = Path(cls.SOURCE.name), cls.SOURCE.read()
        else:
            path = path if isinstance(path, Path) else path_of(path)
            if str(path).startswith(BUILTIN):
                from xdpctl.obj.shipped import resolve

                path = resolve(path)
        root = pins.below(pins.root(), *pin_maps.split("/")) if pin_maps is not None else None
        opened = Object.open(path, pin_root=root, kconfig=kconfig, data=data)
        try:
            set_types(opened, program_types or {})
            return cls(opened)
        except BaseException:
            opened.close()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._life.what}, {self._life.state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        life = getattr(self, "_life", None)
        if life is not None and life.state != "closed":
            # no source=self: a record of the warning would keep the links alive, which have a warning of their own
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2)

    @property
    def state(self) -> State:
        """opened, loaded, failed (its load did) or closed."""
        return self._life.state

    @property
    def path(self) -> Path:
        """The file; of an embedded object only its name."""
        return self._object.path

    @property
    def object(self) -> Object:
        """The object below, for what a skeleton does not offer."""
        return self._object

    @property
    def links(self) -> tuple[Link, ...]:
        """What its programs are attached to, by this skeleton, and not detached since."""
        return tuple(one for one in self._links if one.attached)

    @property
    def types(self) -> Named[type[StructView]]:
        """The object's structs and unions."""
        return types.structs(self._btf(), self._life.what)

    @classmethod
    def type_named(cls, name: str) -> type[StructView]:
        """A struct of a generated skeleton's object, without opening the skeleton.

        Raises:
            UnknownNameError: it has none of that name.
        """
        if cls.SOURCE is None:
            raise UnknownNameError("struct", name, where=cls.__name__)
        with Object.open(Path(cls.SOURCE.name), data=cls.SOURCE.read()) as opened:
            return types.structs(types.of_object(opened), cls.__name__)[name]

    def load(self) -> None:
        """Create the maps and load the programs. After a failure only `close` is left.

        Raises:
            ConfigError: it is loaded or closed already.
            VerifierError: a program was rejected; the message has the telling line and its C source.
            PrivilegeError: CAP_BPF, CAP_PERFMON or CAP_NET_ADMIN is missing.
            MapError: a map could not be created, reused or pinned.
            UnsupportedError: this kernel lacks something.
            ObjectError: anything else libbpf refused.
        """
        self._life.require("opened", "load")
        self._life.state = "failed"
        self._object.load()
        self._life.state = "loaded"
        for one in self._globals.values():
            one.loaded()

    def close(self) -> None:
        """Detach what is not pinned, unmap the variables and let go of programs and maps. Safe to repeat.

        Raises:
            AttachError: a program could not be detached; everything else is closed all the same.
        """
        if self._life.state == "closed":
            return
        self._life.state = "closed"
        failed: XdpctlError | None = None
        for link in reversed(self._links):
            try:
                link.close()
            except XdpctlError as error:
                failed = failed or error
        self._links.clear()
        for one in self._globals.values():
            one.close()
        self._object.close()
        if failed is not None:
            raise failed

    def _btf(self) -> Btf | None:
        if not self._btf_:
            self._life.require_open("types")
            self._btf_.append(types.of_object(self._object))
        return self._btf_[0]

    def _section_maps(self) -> dict[str, Any]:
        """Attribute -> (map, what BTF says of its variables)."""
        if self._sections is None:
            self._life.require_open("variables")
            btf = self._btf()
            known = described(btf) if btf is not None else {}
            maps = ((section_of(one), one) for one in self._object.maps.values())
            self._sections = {attribute(name): (one, known[name]) for name, one in maps if name in known}
        return self._sections

    if not TYPE_CHECKING:  # or mypy would believe in any attribute, of generated skeletons too

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            found = self._globals.get(name)
            if found is None:
                if name not in self._section_maps():
                    raise self._unknown(name)
                map_, section = self._sections[name]
                found = self._globals[name] = Globals(self._life, map_, section, self._btf(), self._object)
            return found.view()

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *([] if self.state == "closed" else self._section_maps())]

    def _unknown(self, name: str) -> UnknownNameError:
        hint = None
        for kind, names in (("maps", self.maps), ("progs", self.progs)):
            if name in names:
                hint = f"it is skel.{kind}.{name}"
        for section in self._section_maps():
            if name in getattr(self, section):
                hint = f"it is skel.{section}.{name}"
        known = [*self._section_maps(), "maps", "progs", "types"]
        if hint is None and name in {"rodata", "data", "bss"}:
            hint = f"it has no variables in .{name}, or was compiled without -g"
        return UnknownNameError("attribute", name, known=known, where=self._life.what, hint=hint)


def _ours(opened: Object) -> dict[str, Map]:
    """Its maps without those of .data, .rodata and .bss."""
    return {name: one for name, one in opened.maps.items() if not one.internal}


def _map(opened: Object, name: str) -> Any:
    from xdpctl.skeleton.typed_map import typed

    found = opened.maps[name]
    return typed(found, types.of_object(opened), found.btf_key_type_id, found.btf_value_type_id)


def _program(life: Life, opened: Object, links: list[Link], name: str) -> programs.Program:
    life.require_open(f"use of {name}")
    return programs.wrap(life, opened.programs[name], links)


def set_types(opened: Object, given: Mapping[str, str]) -> None:
    """Give a type to the programs whose section tells this libbpf none.

    Raises:
        NotFoundError: no program or type has that name.
    """
    if not given and not opened.untold:
        return
    from xdpctl.obj import sections

    for name, text in given.items():
        meaning = sections.from_type(text)
        if meaning is None:
            raise NotFoundError("program type", text, known=sections.type_names())
        _set_type(opened.program(name), meaning)
    for one in opened.programs.values():
        if one.type != "unspec" or one.name in given:
            continue
        known = sections.meaning(one.section)
        if known is not None:
            _set_type(one, known)


def _set_type(program: Any, meaning: Any) -> None:
    attach_type = None
    if meaning.attach_type is not None:
        attach_type = uapi.ATTACH_TYPES.index(meaning.attach_type.replace("/", "_"))
    program.set_type(meaning.type, attach_type)
    if meaning.frags:
        program.set_flags(program.flags | uapi.BPF_F_XDP_HAS_FRAGS)
