"""The text of `xdpctl driver show`: one sheet a device, a line a subject; what is not known is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WIDTH = 17
_THREADED = ("off", "on", "busy-poll")


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The sheet of doctor.sheet as people read it."""
    yield f"{told['interface']}  ({told['driver'] or 'no driver'}, {'up' if told['up'] else 'down'})"
    for key, (label, spell) in _ROWS.items():
        value = told.get(key)
        if value is None:
            continue
        each = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for one in each:
            text = spell(one)
            if text:
                yield f"  {label:<{_WIDTH}} {text}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _words(value: list[str]) -> str:
    return " ".join(value) or "none"


def _listed(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one is not None)


def _of_at_most(value: dict[str, Any]) -> str:
    """``rx 256 of 4096``: figures with their maximum; what the device has none of is left out."""
    shown = []
    for name, one in value.items():
        most = value.get(f"{name}_max")
        if name.endswith("_max") or (f"{name}_max" in value and not one and not most):
            continue
        shown.append(f"{name.replace('_', '-')} {_plain(one)}{f' of {most}' if most else ''}")
    return ", ".join(shown)


def _mtu(value: dict[str, Any]) -> str:
    least, most = value.get("min"), value.get("max")
    range_ = f" ({least} to {most})" if least is not None and most else ""
    return f"{value['now']}{range_}"


def _pool(value: dict[str, Any]) -> str:
    napi = f" of NAPI {value['napi']}" if value["napi"] is not None else ""
    memory = f" ({value['inflight_bytes']} bytes)" if value["inflight_bytes"] is not None else ""
    detached = ", destroyed, waits for them" if value["detach_time"] is not None else ""
    return f"{value['id']}{napi}: {value['inflight']} pages in flight{memory}{detached}"


def _napi(value: dict[str, Any]) -> str:
    facts = []
    if value["irq"] is not None:
        facts.append(f"IRQ {value['irq']}" + (f" on CPU {value['cpus']}" if value["cpus"] else ""))
    facts += [
        f"{name.replace('_ns', '').replace('_', '-')} {value[name]}{' ns' if name.endswith('_ns') else ''}"
        for name in ("defer_hard_irqs", "gro_flush_timeout_ns", "irq_suspend_timeout_ns")
        if value[name] is not None
    ]
    if value["threaded"] is not None:
        facts.append(f"threaded {_threaded(value['threaded'])}")
    if value["pid"] is not None:
        facts.append(f"thread {value['pid']}")
    queues = f" ({' '.join(value['queues'])})" if value["queues"] else ""
    return f"{value['id']}{queues}: {', '.join(facts)}"


def _threaded(value: int) -> str:
    return _THREADED[value] if 0 <= value < len(_THREADED) else str(value)


def _napi_defaults(value: dict[str, Any]) -> str:
    return _listed({name: _threaded(one) if name == "threaded" else one for name, one in value.items()})


def _headroom(value: dict[str, Any]) -> str:
    facts = []
    limit = value["mtu"]
    if limit is not None and limit["bytes"] is not None:
        whose = "its peer's MTU" if limit["of"] == "peer" else "MTU"
        now = f", now {limit['now']}" if limit["now"] is not None else ""
        frags = "; frags lift it" if limit["frags_lift"] else ""
        facts.append(f"{whose} at most {limit['bytes']} ({limit['formula']}){now}{frags}")
    queues = [f"{value[f'{way}_queues']} {way}" for way in ("rx", "tx") if value[f"{way}_queues"] is not None]
    if queues:
        facts.append(f"{' and '.join(queues)} queues for {value['cpus']} CPUs")
    return ". ".join(facts)


_ROWS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "firmware": ("firmware", _plain),
    "bus": ("bus", _plain),
    "numa_node": ("NUMA node", lambda node: "" if node < 0 else str(node)),
    "mtu": ("MTU", _mtu),
    "xdp_features": ("XDP features", _words),
    "xdp_mode": ("XDP in force", _words),
    "headroom": ("room for XDP", _headroom),
    "rings": ("rings", _of_at_most),
    "channels": ("channels", _of_at_most),
    "coalesce": ("coalesce", _listed),
    "pause": ("pause", _listed),
    "private_flags": ("private flags", _listed),
    "napis": ("NAPI", lambda one: _napi(one) if one else ""),
    "napi_defaults": ("NAPI settings", _napi_defaults),
    "pool_size": ("page pool size", lambda pages: f"{pages} pages"),
    "page_pools": ("page pool", lambda one: _pool(one) if one else ""),
    "page_cache": ("page cache", _listed),
}
"""Key of the sheet -> label and how its value reads, in the order of the lines."""
