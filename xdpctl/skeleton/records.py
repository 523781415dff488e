"""Records that programs send through a ring buffer or perf event array, as bytes or as a struct of their BTF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.btf.layout import layout
from xdpctl.btf.parse import STRUCT
from xdpctl.btf.types import Composite
from xdpctl.errors import ConfigError, MapError, NotFoundError, errno_text
from xdpctl.libbpf.library import CallError
from xdpctl.libbpf.ring import PerfBuffer, RingBuffer

if TYPE_CHECKING:
    from xdpctl.btf.layout import Layout
    from xdpctl.btf.parse import Btf
    from xdpctl.skeleton.typed_map import TypedMap


class Records:
    """A reader of one map.

    Attributes:
        lost: records that the kernel dropped for want of room (perf event arrays tell).

    Raises:
        MapError: the map holds no records, or can't be read.
    """

    def __init__(self, of: TypedMap) -> None:
        self._name = of.name
        try:
            if of.type == "ringbuf":
                self._buffer: RingBuffer | PerfBuffer = RingBuffer(of.fd)
            elif of.type == "perf_event_array":
                self._buffer = PerfBuffer(of.fd)
            else:
                raise MapError(f"map {of.name} holds no records: it is {of.type}")
        except CallError as why:
            raise MapError(f"map {of.name} can't be read: {errno_text(why.code)}", errno=why.code) from why
        self._layouts: dict[str, Layout] = {}

    @property
    def lost(self) -> int:
        """See the class."""
        return getattr(self._buffer, "lost", 0)

    def close(self) -> None:
        """Stop reading; safe to repeat."""
        self._buffer.close()

    def poll(self, timeout: float, record: str | None, btf: Btf | None) -> list[Any]:
        """See `TypedMap.poll`."""
        of = self._layout(record, btf) if record else None
        try:
            found = self._buffer.poll(max(-1, round(timeout * 1000)))
        except CallError as why:
            raise MapError(f"map {self._name} can't be read: {errno_text(why.code)}", errno=why.code) from why
        raw = [one if isinstance(one, bytes) else one[1] for one in found]
        return raw if of is None else [self._typed(of, one) for one in raw]

    def _typed(self, of: Layout, raw: bytes) -> Any:
        if len(raw) < of.size:
            raise ConfigError(
                f"map {self._name}: a record of {len(raw)} bytes is no {of.spelled}, which has {of.size}"
            )
        return of.view(raw)

    def _layout(self, record: str, btf: Btf | None) -> Layout:
        if record not in self._layouts:
            found = btf.find(record, STRUCT) if btf is not None else None
            if btf is None or found is None:
                known = [one.name for one in btf.of_kind(STRUCT) if isinstance(one, Composite)] if btf else []
                raise NotFoundError(
                    "struct", record, known=filter(None, known), where=f"the BTF of map {self._name}"
                )
            self._layouts[record] = layout(btf, found.id)
        return self._layouts[record]
