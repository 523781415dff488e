"""Writing one element as people ask for it: fields that are not mentioned stay, or are zero in a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import batch
from xdpctl.bpf.elements import possible_cpus
from xdpctl.errors import ConfigError, MapError
from xdpctl.libbpf import uapi

if TYPE_CHECKING:
    from xdpctl.skeleton.typed_map import TypedMap


class Written(NamedTuple):
    """What was written."""

    key: bytes | None
    value: bytes
    created: bool | None
    """Whether the key is new; None: there are no keys, or it can't be told."""


def exact(of: TypedMap, key: bytes) -> bytes | None:
    """The value of this very key: a look-up in an LPM trie finds shorter prefixes too."""
    found = of.elements.lookup(key)
    if found is None or of.type != "lpm_trie":
        return found
    for one in of.batches():
        for present, value in one.pairs():
            if present == key:
                return value
    return None


def write(
    of: TypedMap,
    key: str | None,
    value: str,
    *,
    new: bool = False,
    existing: bool = False,
    cpu: int | None = None,
) -> Written:
    """Write one element.

    Members of a struct that `value` does not mention keep what the map has, read a moment before; in a new element
    they are zero.

    Args:
        of: the map.
        key: as people write it; None where there are no keys.
        value: the same.
        new: refuse a key that is there.
        existing: refuse a key that is not there.
        cpu: of a per-CPU map, the only CPU whose value is written.

    Raises:
        ConfigError: key or value do not fit.
        MapError: the kernel, or `new` or `existing`, refused.
    """
    shape, elements = of.shape, of.elements
    if cpu is not None and not (shape.stride and 0 <= cpu < possible_cpus()):
        text = f"CPU {cpu} is none of {possible_cpus()}" if shape.stride else "it is not per-CPU"
        raise ConfigError(f"map {of.name}: {text}")
    try:
        if shape.key is None:
            raw = shape.value.parse(value)
            elements.push(raw)
            return Written(None, raw, None)
        raw_key = shape.key.parse(key or "", path="key")
        readable = "lookup" in shape.kind.can
        before = exact(of, raw_key) if readable else None
        if shape.kind.holds not in {"value", "opaque"}:
            merged = shape.value.parse(value)
        elif shape.stride:
            merged = _each_cpu(of, value, before, cpu)
        else:
            merged = shape.value.parse(value, into=before)
        if readable and new and before is not None:
            raise MapError(f"map {of.name}, key {elements.key_text(raw_key)}: it is there already", errno=17)
        if readable and existing and before is None:
            raise MapError(f"map {of.name}, key {elements.key_text(raw_key)}: it is not there", errno=2)
        # a trie takes no notice of these flags before Linux 6.13
        flags = uapi.BPF_NOEXIST if new else uapi.BPF_EXIST if existing else uapi.BPF_ANY
        elements.update(raw_key, merged, flags if of.type != "lpm_trie" else uapi.BPF_ANY)
    finally:
        if shape.held is not None:
            shape.held.close()
    created = before is None if readable and shape.kind.type not in {"array", "percpu_array"} else None
    return Written(raw_key, merged, created)


def _each_cpu(of: TypedMap, value: str, before: bytes | None, cpu: int | None) -> bytes:
    shape = of.shape
    cpus = bytearray(before if before is not None else shape.stride * possible_cpus())
    for at in range(possible_cpus()) if cpu is None else (cpu,):
        start = at * shape.stride
        cpus[start : start + shape.value.size] = shape.value.parse(
            value, into=bytes(cpus[start : start + shape.value.size])
        )
    return bytes(cpus)


def count(of: TypedMap, most_bytes: int) -> int | None:
    """How many entries there are; None: it can't be told, or would take more than so many bytes."""
    kind = of.shape.kind
    info = of.info()
    if kind.type in {"array", "percpu_array"} or not {"lookup", "walk"} <= kind.can:
        return None
    if info.max_entries * (info.key_size + of.elements.value_bytes) > most_bytes:
        return None
    return sum(one.length for one in batch.read(of.elements))
