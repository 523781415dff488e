"""What the bytes of a value mean, by BTF type: decode and encode in the byte order of the object.

See `btf.layout` for what becomes what; it does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import MAX_ITEMS, MAX_NESTING, layout, members

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf

__all__ = ["MAX_ITEMS", "MAX_NESTING", "decode", "encode", "members"]


def decode(btf: Btf, type_id: int, data: bytes | bytearray | memoryview, offset: int = 0) -> Any:
    """The value of a type at a byte offset.

    Raises:
        ObjectError: the data ends before the value does, or the type has no value (void, functions, cycles).
    """
    return layout(btf, type_id).decode(data, offset)


def encode(btf: Btf, type_id: int, value: Any, *, into: bytes | None = None) -> bytes:
    """The bytes of a value, ``size_of`` its type long: the reverse of `decode`.

    What the value does not mention (members of a struct, the tail of an array or text) comes from `into`, or is
    zero. Enumerators may be given by name, ``char`` and byte arrays as str or bytes.

    Raises:
        ConfigError: the value does not fit the type.
        ObjectError: the type has no value.
    """
    return layout(btf, type_id).encode(value, into=into)
