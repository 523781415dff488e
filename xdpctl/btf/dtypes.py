"""The numpy dtype of a layout, for maps whose entries are read and written by the million; numpy is optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import ArrayLayout, Scalar, StructLayout

if TYPE_CHECKING:
    from xdpctl.btf.layout import Layout

_CODES = {"int": "i", "uint": "u", "char": "u", "enum": "u", "pointer": "u", "bool": "b", "float": "f"}


def dtype(layout: Layout) -> Any:
    """The ``numpy.dtype`` of the same bytes, or None where there is none; see `Layout.dtype`."""
    try:
        import numpy as np
    except ImportError:
        return None
    description = describe(layout)
    if description is None:
        return None
    try:
        return np.dtype(description)
    except (ValueError, TypeError):  # numpy counts a dtype's bytes in a C int
        return None


def describe(layout: Layout) -> Any:
    """What ``numpy.dtype`` makes it from: a code, (code, shape) or a dict of names, formats and offsets; or None."""
    if isinstance(layout, Scalar):
        number = layout.number
        if number.codec is None:
            return None
        if layout.kind == "bool":
            return "?"
        code = "i" if number.signed else _CODES[layout.kind]
        return f"{layout.order}{code}{layout.size}"
    if layout.size == 0:
        return None
    if isinstance(layout, ArrayLayout):
        if layout.is_text:
            return f"S{layout.length}"
        element = describe(layout.element)
        return None if element is None else (element, (layout.length,))
    if isinstance(layout, StructLayout):
        fields = layout.fields.values()
        formats = [None if one.bits else describe(one.layout) for one in fields]
        if not formats or None in formats:
            return None
        return {
            "names": [one.name for one in fields],
            "formats": formats,
            "offsets": [one.offset for one in fields],
            "itemsize": layout.size,
        }
    return None
