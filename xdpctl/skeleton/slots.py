"""Values that stand for something else in the kernel: devices, CPUs, programs, maps and sockets.

They are written as file descriptors and read back as ids (``struct bpf_devmap_val``, ``struct bpf_cpumap_val``,
bpf_fd_array_map_update_elem, bpf_fd_htab_map_update_elem); sockets can't be read at all.
"""

from __future__ import annotations

import contextlib
import os
import socket  # 5 ms, which every devmap with a name needs
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.btf.numbers import misfit
from xdpctl.errors import ConfigError
from xdpctl.skeleton.fieldtext import split
from xdpctl.skeleton.forms import Form

if TYPE_CHECKING:
    from typing_extensions import Self

    from xdpctl.skeleton.forms import Readable

_U32 = struct.Struct("=I")
_PAIR = struct.Struct("=II")


class Slot(int):
    """An ifindex of a devmap or a queue size of a cpumap, with the program that runs there.

    Attributes:
        program: its id, or None.
    """

    program: int | None

    def __new__(cls, number: int, program: int | None = None) -> Self:  # noqa: D102
        made = super().__new__(cls, number)
        made.program = program
        return made


class Held:
    """Descriptors opened for values that are to be written; they must stay open until the kernel has taken them."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def program(self, value: Any, path: str) -> int:
        """Descriptor of a program given as an object with ``fd``, an id, or the path of a pin."""
        return self._open("program", value, path)

    def map(self, value: Any, path: str) -> int:
        """Descriptor of a map, the same way."""
        return self._open("map", value, path)

    def _open(self, kind: str, value: Any, path: str) -> int:
        from xdpctl.bpf import pins, query

        fd = getattr(value, "fd", None)
        if isinstance(fd, int):
            return fd
        text = str(value).strip().removeprefix("id ")
        if isinstance(value, bool) or not isinstance(value, int | str | Path):
            raise misfit(value, f"a {kind}", path)
        if text.isdecimal():
            fd = query.open_id(kind, int(text[:12]))
        elif "/" in text:
            fd = pins.open_pin(Path(text), kind)
        else:
            raise misfit(value, f"a {kind}", path, " (its id, or the path of its pin)")
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Let go of them."""
        while self._fds:
            os.close(self._fds.pop())


class DescriptorForm(Form):
    """Written by descriptor, read by id: prog_array, and maps of maps.

    Attributes:
        held: what was opened to be written; close it after the update.
    """

    __slots__ = ("_kind", "held")

    def __init__(self, kind: str) -> None:
        super().__init__(4, kind)
        self._kind = kind
        self.held = Held()

    def read(self, data: Readable, at: int) -> Any:
        """The id."""
        return _U32.unpack_from(data, at)[0]

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`: an object with ``fd``, an id, or the path of a pin."""
        opened = self.held.program(value, path) if self._kind == "program" else self.held.map(value, path)
        _U32.pack_into(out, at, opened)


class SocketForm(Form):
    """A socket, or another descriptor of this process: xskmap, sockmap, sockhash, perf_event_array, cgroup_array."""

    __slots__ = ()

    def __init__(self, size: int, what: str) -> None:
        super().__init__(size, what)

    def read(self, data: Readable, at: int) -> Any:
        """The number that the kernel shows (a socket's cookie, a program's or cgroup's id)."""
        return int.from_bytes(data[at : at + self.size], "little")

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`: an object with ``fileno()``, or a descriptor."""
        if hasattr(value, "fileno"):
            value = value.fileno()
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(
                f"{path or 'the value'} is {self.spelled} of a running process: only that process can put it there"
            )
        out[at : at + self.size] = value.to_bytes(self.size, "little")


class TargetForm(Form):
    """A value of a devmap (ifindex) or cpumap (queue size), with a program where the map has 8 bytes for it.

    Attributes:
        held: as of `DescriptorForm`.
    """

    __slots__ = ("_number", "held")

    def __init__(self, size: int, *, cpu: bool) -> None:
        name = ("bpf_cpumap_val" if cpu else "bpf_devmap_val") if size >= _PAIR.size else "__u32"
        super().__init__(size, f"struct {name}" if size >= _PAIR.size else name)
        self._number = "qsize" if cpu else "ifindex"
        self.held = Held()

    def read(self, data: Readable, at: int) -> Any:
        """``{"interface": "eth1", "ifindex": 3, "program": null}``, or ``{"qsize": 192, "program": null}``."""
        one = self.slot(data, at)
        if self._number == "qsize":
            return {"qsize": int(one), "program": one.program}
        return {"interface": _name(int(one)), "ifindex": int(one), "program": one.program}

    def slot(self, data: Readable, at: int = 0) -> Slot:
        """The same as a `Slot`."""
        if self.size < _PAIR.size:
            return Slot(_U32.unpack_from(data, at)[0])
        number, program = _PAIR.unpack_from(data, at)
        return Slot(number, program or None)

    def text(self, data: Readable, at: int = 0) -> str:
        """As `Form.text`."""
        one = self.slot(data, at)
        number = f"qsize={int(one)}" if self._number == "qsize" else _name(int(one)) or f"ifindex={int(one)}"
        return number + (f" program={one.program}" if one.program else "")

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`: a number or interface name, ``eth1 program=PIN``, a dict, a `Slot`, or (number, program)."""
        number, program = self._parts(value, path)
        if isinstance(number, str) and not number.strip().isdecimal():
            number = self._ifindex(number.strip(), path)
        try:
            number = int(number)
        except (TypeError, ValueError):
            raise misfit(value, self.spelled, path) from None
        if not 0 <= number < 2**32:
            raise misfit(number, self.spelled, path, f" ({0} to {2**32 - 1})")
        if program in {None, "", "none"} or program == 0:
            fd = 0
        elif self.size < _PAIR.size:
            raise ConfigError(
                f"{path or 'the value'}: no program fits, values of this map have {self.size} bytes",
                hint="declare the map with struct bpf_devmap_val or bpf_cpumap_val as its value",
            )
        else:
            fd = self.held.program(program, path)
        out[at : at + self.size] = _PAIR.pack(number, fd)[: self.size].ljust(self.size, b"\0")

    def _parts(self, value: Any, path: str) -> tuple[Any, Any]:
        if isinstance(value, Slot):
            return int(value), value.program
        if isinstance(value, tuple | list) and len(value) == 2:
            return value[0], value[1]
        if isinstance(value, str):
            pieces = split(value, path)
            named = dict(one.partition("=")[::2] for one in pieces if "=" in one)
            bare = [one for one in pieces if "=" not in one]
            if len(bare) > 1 or (bare and named.keys() & {"interface", self._number}):
                raise misfit(value, self.spelled, path)
            value = {**named, **({"interface": bare[0]} if bare else {})}
        if isinstance(value, dict):
            unknown = value.keys() - {"interface", self._number, "program"}
            if unknown:
                raise ConfigError(
                    f"{path or 'the value'} ({self.spelled}) has no member {min(unknown)}",
                    hint=f"{self._number}, program",
                )
            number = value.get("interface")
            number = value.get(self._number) if number is None else number
            if number is None:
                raise ConfigError(f"{path or 'the value'}: {self._number} is missing")
            return number, value.get("program")
        if isinstance(value, bool) or not isinstance(value, int):
            raise misfit(value, self.spelled, path)
        return value, None

    def _ifindex(self, name: str, path: str) -> int:
        if self._number == "qsize":
            raise misfit(name, self.spelled, path, " (a queue size)")
        from xdpctl.netlink.interfaces import ifindex

        return ifindex(name)


def _name(ifindex: int) -> str | None:
    """Name of an interface of this namespace; a devmap may hold devices of another."""
    with contextlib.suppress(OSError, OverflowError):
        return socket.if_indextoname(ifindex)
    return None
