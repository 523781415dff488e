"""Numbers to text and back, a column of many at once, by numpy: what makes a million entries a fraction of a second.

Eight characters are read as one 64-bit word and turned into a number by three multiplications; numbers are written
four digits at a time from a table. Both take the machine to be little endian; elsewhere callers go row by row.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

AVAILABLE = sys.byteorder == "little"


@lru_cache(maxsize=1)
def numpy() -> Any:
    """The module, imported on first use (0.1 s), or None where it is not installed or of no use."""
    if not AVAILABLE:
        return None
    try:
        import numpy as np
    except ImportError:
        return None
    return np


class Text:
    """Text of many lines, to read numbers from.

    Attributes:
        starts, ends: positions of the runs of digits, (fields, lines) each; None until `find` has found them.
    """

    def __init__(self, text: bytes) -> None:
        np = numpy()
        self._np = np
        pad = 24
        self._bytes = b"\0" * pad + text + b"\0" * (16 + -(pad + len(text)) % 8)
        self._characters = np.frombuffer(self._bytes, np.uint8)
        self._words = np.frombuffer(self._bytes, np.uint64)
        self._pad = pad
        self.starts: Any = None
        self.ends: Any = None

    def find(self, lines: int, first: int, gaps: list[int]) -> bool:
        """Find the runs of digits, the same number in each line and equally far apart.

        Args:
            lines: how many there are.
            first: characters before the first run of a line.
            gaps: characters between each run and the next; the last one reaches into the next line.

        Returns:
            False where they are not like that.
        """
        np = self._np
        digit = (self._characters - np.uint8(48)) < np.uint8(10)
        edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
        fields = len(gaps)
        if len(edges) != 2 * fields * lines:
            return False
        edges = edges.reshape(lines, fields, 2)
        self.starts = np.ascontiguousarray(edges[:, :, 0].T)
        self.ends = np.ascontiguousarray(edges[:, :, 1].T)
        if self.starts[0, 0] != first + self._pad:
            return False
        for at in range(fields - 1):
            if ((self.starts[at + 1] - self.ends[at]) != gaps[at]).any():
                return False
        return not ((self.starts[0, 1:] - self.ends[fields - 1, :-1]) != gaps[-1]).any()

    def numbers(self, field: int) -> Any:
        """The numbers of one field as uint64; None where one does not fit, or is written with a leading zero."""
        np = self._np
        starts, ends = self.starts[field], self.ends[field]
        lengths = ends - starts
        longest = int(lengths.max())
        if longest > 20 or ((self._characters.take(starts) == 48) & (lengths > 1)).any():
            return None
        value = self._eight(ends, np.minimum(lengths, 8))
        if longest > 8:
            middle = self._eight(ends - 8, np.clip(lengths - 8, 0, 8))
            value = value + middle * np.uint64(10**8)
        if longest > 16:
            top = self._eight(ends - 16, np.clip(lengths - 16, 0, 8))
            most = 2**64 // 10**16
            if (top > most).any() or ((top == most) & (value > np.uint64((2**64 - 1) % 10**16))).any():
                return None
            value = value + top * np.uint64(10**16)
        return value

    def _eight(self, ends: Any, lengths: Any) -> Any:
        """The number of the last `lengths` (0 to 8) digits before each of `ends`."""
        np = self._np
        at = ends - 8
        word, shift = at >> 3, ((at & 7) << 3).astype(np.uint64)
        low = self._words.take(word) >> shift
        # a shift by 64 is not defined: by 63 and one more
        high = (self._words.take(word + 1) << (np.uint64(63) - shift)) << np.uint64(1)
        digits = ((low | high) ^ np.uint64(0x3030303030303030)) & _masks().take(lengths)
        pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
        every = np.uint64(0x000000FF000000FF)
        upper = (pairs & every) * np.uint64(0x000F424000000064)
        lower = ((pairs >> np.uint64(16)) & every) * np.uint64(0x0000271000000001)
        return (upper + lower) >> np.uint64(32)


@lru_cache(maxsize=1)
def _masks() -> Any:
    np = numpy()
    full = 2**64 - 1
    return np.array([full << 8 * (8 - count) & full for count in range(9)], dtype=np.uint64)


@lru_cache(maxsize=1)
def _fours() -> Any:
    """0 to 9999 as four characters: leading zeros as NUL, 0 as nothing; all digits; leading zeros as NUL, 0 as 0."""
    np = numpy()
    bare = [str(number).encode() for number in range(10000)]
    nothing = b"".join((one if number else b"").rjust(4, b"\0") for number, one in enumerate(bare))
    full = b"".join(one.rjust(4, b"0") for one in bare)
    last = b"".join(one.rjust(4, b"\0") for one in bare)
    return np.frombuffer(nothing + full + last, np.uint32)


def write_numbers(values: Any) -> Any:
    """Characters of unsigned numbers, a row each; what is not needed of a row is NUL."""
    np = numpy()
    most = int(values.max()) if len(values) else 0
    if most < 2**32:
        values = values.astype(np.uint32)
    groups = max(1, (len(str(most)) + 3) // 4)
    out = np.empty((len(values), 4 * groups), np.uint8)
    rest = values
    for group in range(groups):
        above = rest // 10000
        index = (rest - above * 10000).astype(np.int64)
        index += np.where(above > 0, 10000, 0 if group else 20000)
        column = 4 * (groups - 1 - group)
        out[:, column : column + 4] = _fours().take(index).view(np.uint8).reshape(-1, 4)
        rest = above
    return out


def write_signed(values: Any) -> Any:
    """The same for signed numbers."""
    np = numpy()
    negative = values < 0
    size = np.where(negative, -values.astype(np.int64), values).astype(np.int64).view(np.uint64)
    sign = np.where(negative, np.uint8(45), np.uint8(0)).astype(np.uint8)
    return np.concatenate([sign[:, None], write_numbers(size)], axis=1)


def write_dotted(octets: Any) -> Any:
    """The same for rows of four octets: ``10.0.0.1``."""
    np = numpy()
    fours = _fours().take(octets.astype(np.int64) + 20000).view(np.uint8).reshape(len(octets), 4, 4)
    out = np.empty((len(octets), 4, 5), np.uint8)
    out[:, :, :4] = fours
    out[:, :, 4] = 46
    out[:, 3, 4] = 0
    return out.reshape(len(octets), 20)


def write_texts(texts: list[bytes]) -> Any:
    """The same for texts that are there already."""
    np = numpy()
    made = np.array(texts, dtype=bytes)
    return made.view(np.uint8).reshape(len(texts), made.itemsize)


def joined(parts: list[Any], rows: int) -> bytes:
    """Rows put together from literals (bytes) and characters by row, without the NULs."""
    np = numpy()
    widths = [len(one) if isinstance(one, bytes) else one.shape[1] for one in parts]
    out = np.empty((rows, sum(widths)), np.uint8)
    at = 0
    for one, width in zip(parts, widths, strict=True):
        out[:, at : at + width] = np.frombuffer(one, np.uint8) if isinstance(one, bytes) else one
        at += width
    return bytes(out.tobytes().translate(None, b"\0"))
