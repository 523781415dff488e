"""A BPF object file, opened, adjusted and loaded by libbpf (libbpf.h, struct bpf_object)."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpctl.bpf import pins
from xdpctl.bpf.file import Identity, check_bytes, identity, path_of, read_file
from xdpctl.bpf.map import Map
from xdpctl.bpf.program import Program
from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture
from xdpctl.libbpf.memory import LazyBuffer
from xdpctl.libbpf.opts import ObjectOpenOpts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

NOWHERE = b"/sys/fs/bpf/xdpctl"
"""A pin root for libbpf where none is wanted: the pins that it plans there are taken back at once."""
KNOWS_DAMAGE = (1, 3)
"""libbpf that checks BTF itself; an older one crashes on references to nowhere."""
LOG_BYTES = 64 * 2**20
"""Room for one verifier log, untouched until the kernel writes to it. Kernels before 5.2 take 16 MiB at most."""


class Object:
    """A BPF object: open it, set what is to be set, load it; closing it lets go of all that is not pinned or attached.

    Attributes:
        path: the file.
        log: what libbpf said so far, warnings and information.
        loaded: whether `load` has succeeded.
    """

    def __init__(self, path: Path, pointer: int, verifier_log: LazyBuffer, log: list[str]) -> None:
        self.path = path
        self.log = log
        self.loaded = False
        self._tried = False
        self._data = b""
        self._pointer: int | None = pointer
        self._close = lib().bpf_object__close  # __del__ may run when modules are gone
        self._verifier_log = verifier_log  # libbpf holds its address until the object is closed
        self._programs: Mapping[str, Program] | None = None
        self._maps: Mapping[str, Map] | None = None
        self._pins = False

    @property
    def programs(self) -> Mapping[str, Program]:
        """Its programs by name, in the order of the file; made when they are first asked for."""
        if self._programs is None:
            every = (Program(self, at) for at in _each("bpf_object__next_program", self.opened()))
            self._programs = MappingProxyType({one.name: one for one in every})
        return self._programs

    @property
    def maps(self) -> Mapping[str, Map]:
        """Its maps by name, those of .data, .rodata and .bss among them; made when they are first asked for."""
        if self._maps is None:
            every = (Map(self, at) for at in _each("bpf_object__next_map", self.opened()))
            self._maps = MappingProxyType({one.name: one for one in every})
        return self._maps

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        pin_root: Path | None = None,
        kconfig: str | None = None,
        data: bytes | None = None,
    ) -> Object:
        """Read an object file; nothing reaches the kernel yet.

        Args:
            path: the file.
            pin_root: bpffs directory where maps marked LIBBPF_PIN_BY_NAME are pinned and found; None: they are not
                pinned, whatever their mark says.
            kconfig: lines of CONFIG_X=y for ``__kconfig`` externs, before those of the running kernel.
            data: the object's bytes, for one that is in memory; `path` only names it then.

        Raises:
            NotFoundError: there is no such file.
            ObjectError: it is no BPF object, or libbpf can't read it.
            UnsupportedError: there is no usable libbpf.
        """
        path = path if isinstance(path, Path) else path_of(path)
        known = identity(path) if data is None else data if len(data) <= SMALL else None
        if known is None or known not in _sound:
            if data is None:
                data = read_file(path)
            else:
                check_bytes(path, data)
            if lib().version < KNOWS_DAMAGE:
                from xdpctl.bpf import btf_check

                btf_check.check(path, data)
            if known is not None and len(_sound) < MANY:
                _sound.add(known)
        room = _log_room()
        opts = ObjectOpenOpts(
            # as libbpf takes it from a file's name; it is in the names of .data, .rodata and .bss maps
            object_name=os.fsencode(path.name.split(".", 1)[0] or "object"),
            # never NULL: libbpf would pin into /sys/fs/bpf
            pin_root_path=os.fsencode(pin_root) if pin_root is not None else NOWHERE,
            kernel_log_buf=room.address,
            kernel_log_size=room.size,
        )
        if kconfig is not None:
            opts.kconfig = kconfig.encode()
        with capture() as lines:
            try:
                if data is None:
                    pointer = lib().bpf_object__open_file(os.fsencode(path), opts)
                else:
                    pointer = lib().bpf_object__open_mem(data, len(data), opts)
            except CallError as why:
                from xdpctl.bpf import refusal

                raise refusal.open_failed(path, why, lines) from why
            made = cls(path, pointer, room, lines)
            made._data = data or b""
            made._pins = pin_root is not None
            if pin_root is None:
                _plan_no_pins(pointer)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def untold(self) -> bool:
        """Whether a program is there whose type libbpf has not told from its section."""
        kind = lib().bpf_program__type
        return not all(kind(at) for at in _each("bpf_object__next_program", self.opened()))

    @property
    def btf_address(self) -> int | None:
        """Address of libbpf's ``struct btf`` of the object, valid while it is open; None: it has no BTF."""
        return lib().bpf_object__btf(self.opened()) or None

    def opened(self) -> int:
        """Address of libbpf's ``struct bpf_object``.

        Raises:
            ConfigError: it is closed.
        """
        if self._pointer is None:
            raise ConfigError(f"{self.path} is closed already")
        return self._pointer

    def program(self, name: str) -> Program:
        """The program with this name.

        Raises:
            NotFoundError: there is none; near names in the hint.
        """
        found = self.programs.get(name)
        if found is None:
            raise NotFoundError("program", name, known=self.programs, where=str(self.path))
        return found

    def map(self, name: str) -> Map:
        """The map with this name.

        Raises:
            NotFoundError: there is none; near names in the hint.
        """
        found = self.maps.get(name)
        if found is None:
            raise NotFoundError("map", name, known=self.maps, where=str(self.path))
        return found

    def load(self) -> None:
        """Create the maps and load the programs that are set to autoload. After a failure only `close` is left.

        Raises:
            VerifierError: a program was rejected.
            PrivilegeError: CAP_BPF (or for tracing CAP_PERFMON, for network programs CAP_NET_ADMIN) is missing.
            MapError: a map could not be created, reused or pinned.
            UnsupportedError: this kernel lacks BTF, a kfunc, a program type.
            ObjectError: anything else libbpf refused.
        """
        pointer = self.opened()
        if self._tried:
            raise ConfigError(f"{self.path} was loaded already; open it again")
        if self._pins or self._maps is not None:  # else nobody can have planned a pin
            for one in self.maps.values():
                if (path := one.pin_path) is not None:
                    pins.make_parents(path)  # libbpf makes but the last of them
        self._tried = True
        with capture() as lines:
            try:
                lib().bpf_object__load(pointer)
            except CallError as why:
                from xdpctl.bpf import refusal

                self.log += lines
                raise refusal.load_failed(self, why, lines, self._verifier_log.text()) from why
        self.log += lines
        self.loaded = True

    def close(self) -> None:
        """Let go of it, its programs and maps; safe to repeat."""
        pointer, self._pointer = getattr(self, "_pointer", None), None
        if pointer is not None:
            unwritten = self.loaded or not self._tried
            self.loaded = False
            self._close(pointer)
            self._data = b""
            if unwritten and _rooms == []:  # None when the interpreter ends
                _rooms.append(self._verifier_log)


MANY, SMALL = 64, 256 << 10
"""How many objects are remembered, and up to how many bytes those in memory."""
_sound: set[Identity | bytes | None] = set()
"""Files and bytes that were found to be BPF objects that libbpf can be trusted with, as they are now."""

_rooms: list[LazyBuffer] = []
"""Room for a verifier log that nobody has any more, hardly used: mapping it takes as long as a small load."""


def _log_room() -> LazyBuffer:
    try:
        used = _rooms.pop()
    except IndexError:
        pass
    else:
        used.clear()  # a load that succeeds may log all the same (BTF that the kernel does not know)
        return used
    try:
        return LazyBuffer(LOG_BYTES)
    except OSError:  # a tight memory limit
        return LazyBuffer(2**20)


def _plan_no_pins(pointer: int) -> None:
    libbpf = lib()
    for at in _each("bpf_object__next_map", pointer):
        if libbpf.bpf_map__pin_path(at):
            libbpf.bpf_map__set_pin_path(at, None)


def _each(function: str, pointer: int) -> list[int]:
    step, found = getattr(lib(), function), []
    at = step(pointer, None)
    while at:
        found.append(at)
        at = step(pointer, at)
    return found
