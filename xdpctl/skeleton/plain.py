"""Keys and values that BTF does not describe: bytes in hex, indices, and the prefixes of LPM tries.

An LPM trie's key is ``struct bpf_lpm_trie_key`` (linux/bpf.h) whatever the program calls it: a 32-bit length in bits,
and the address behind it.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import layout
from xdpctl.btf.numbers import misfit
from xdpctl.btf.parse import Btf
from xdpctl.errors import ConfigError
from xdpctl.skeleton.composite import StructForm, form
from xdpctl.skeleton.forms import Form

if TYPE_CHECKING:
    from xdpctl.skeleton.forms import Readable

_HEX = re.compile(r"(?:hex:|0x)?((?:[0-9a-fA-F]{2}[ :]?)*)\Z")
_BYTES = re.compile(r"(?:0x[0-9a-fA-F]{1,2}[ ,]*)+\Z")


@lru_cache(maxsize=1)
def _integers() -> Btf:
    """BTF of ``__u32`` (type 1) and ``__u64`` (type 2), for what has none."""
    import sys

    order = "<" if sys.byteorder == "little" else ">"
    strings = b"\0__u32\0__u64\0"
    types = b"".join(
        struct.pack(order + "IIII", name, 1 << 24, size, 8 * size) for name, size in ((1, 4), (7, 8))
    )
    header = struct.pack(order + "HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return Btf(header + types + strings)


def number(size: int) -> Form:
    """An unsigned integer of 4 or 8 bytes: an array's index, an id."""
    return form(layout(_integers(), {4: 1, 8: 2}[size]))


class HexForm(Form):
    """Bytes without a type: ``0a000001``; ``0a 00 00 01``, ``0x0a 0x00 0x00 0x01``, ``hex:0a000001`` are read too."""

    __slots__ = ()

    def __init__(self, size: int) -> None:
        super().__init__(size, f"{size} bytes")

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        return bytes(data[at : at + self.size]).hex()

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        raw = self._bytes(value, path)
        if len(raw) != self.size:
            raise ConfigError(
                f"{path or 'the value'} has {self.size} bytes, {len(raw)} are given",
                hint=f"in hex, as {'00' * min(self.size, 8)}{'...' if self.size > 8 else ''}: no BTF tells their type",
            )
        out[at : at + self.size] = raw

    def _bytes(self, value: Any, path: str) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, list):
            try:
                return bytes(value)
            except (TypeError, ValueError):
                value = " ".join(map(str, value))
        text = value.strip() if isinstance(value, str) else ""
        if _BYTES.match(text) and len(text) != 2 + 2 * self.size:
            return bytes(int(one, 16) for one in re.split(r"[ ,]+", text.strip(" ,")))
        found = _HEX.match(text)
        if found is None or not text:
            raise misfit(
                value, self.spelled, path, " (bytes in hex: there is no BTF that tells what they mean)"
            )
        return bytes.fromhex(found[1].replace(":", " "))


class PrefixForm(Form):
    """An LPM trie's key over an IPv4 or IPv6 address: ``203.0.113.0/24``; an address alone is the whole of it.

    Attributes:
        typed: the key's own type, for what is no text; None: it has none.
    """

    __slots__ = ("_bits", "_length", "typed")

    def __init__(self, size: int, typed: StructForm | None = None) -> None:
        super().__init__(size, typed.spelled if typed else "struct bpf_lpm_trie_key")
        self._bits = 8 * (size - 4)
        self._length = struct.Struct("=I")
        self.typed = typed

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 4 if self._bits == 32 else 6

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`; a key with bits set behind its length is shown in parts."""
        (length,) = self._length.unpack_from(data, at)
        address = int.from_bytes(data[at + 4 : at + self.size], "big")
        if length > self._bits or address & (1 << self._bits - length) - 1:
            return (
                self.typed.read(data, at)
                if self.typed
                else {"length": length, "address": self._spell(address)}
            )
        return f"{self._spell(address)}/{length}"

    def _spell(self, address: int) -> str:
        if self._bits == 32:
            return "{}.{}.{}.{}".format(*address.to_bytes(4, "big"))
        import ipaddress

        return str(ipaddress.IPv6Address(address))

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str) and "=" not in value and not value.lstrip().startswith("{"):
            length, address = self._parse(value.strip(), path)
        elif hasattr(value, "network_address"):  # ipaddress.IPv4Network and its kin
            length, address = self._parse(str(value), path)
        elif self.typed is not None:
            self.typed.write(out, at, value, path)
            return
        elif isinstance(value, dict) and set(value) == {"length", "address"}:
            length, address = int(value["length"]), self._parse(str(value["address"]), path)[1]
        else:
            raise misfit(value, self.spelled, path, f" (an IPv{self.version} prefix)")
        self._length.pack_into(out, at, length)
        out[at + 4 : at + self.size] = address

    def _parse(self, text: str, path: str) -> tuple[int, bytes]:
        import ipaddress

        address, slash, bits = text.partition("/")
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            raise misfit(
                text, self.spelled, path, f" (an IPv{self.version} prefix, as {self._example()})"
            ) from None
        if found.version != self.version:
            raise misfit(text, self.spelled, path, f" (the map holds IPv{self.version} prefixes)")
        if slash and not (bits.isdecimal() and int(bits[:4]) <= self._bits):
            raise misfit(text, self.spelled, path, f" (the length goes from 0 to {self._bits})")
        length = int(bits) if slash else self._bits
        behind = int(found) & (1 << self._bits - length) - 1
        if behind:
            right = type(found)(int(found) - behind)
            raise misfit(
                text, self.spelled, path, f" (bits are set behind the first {length}: {right}/{length}?)"
            )
        return length, found.packed

    def _example(self) -> str:
        return "203.0.113.0/24" if self._bits == 32 else "2001:db8::/32"


def lpm_key(size: int, typed: Form | None) -> Form:
    """How an LPM trie's key is written: as a prefix where it is an address, else by its own type or as bytes."""
    if size not in {8, 20}:
        return typed or HexForm(size)
    if typed is None:
        return PrefixForm(size)
    if not isinstance(typed, StructForm) or not _is_address(typed, size):
        return typed
    return PrefixForm(size, typed)


def _is_address(typed: StructForm, size: int) -> bool:
    """Whether the struct is one 32-bit length, and one thing behind it."""
    length, *rest = [one for one in typed.members.values() if one[0].size]
    if len(rest) != 1 or (length[1], length[0].size, rest[0][1], rest[0][0].size) != (0, 4, 4, size - 4):
        return False
    # a struct of several things is no address; struct bpf_lpm_trie_key itself may be the length
    behind = rest[0][0]
    return not isinstance(behind, StructForm) or behind.layout.kind == "union"
