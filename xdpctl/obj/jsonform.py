"""An object and its verdict as JSON: the ``objects`` items of ``xdpctl inspect --json``, keys documented here.

```
{"path", "size", "license", "byte_order", "btf", "line_info", "core_relocations", "loads", "loads_with_libbpf_alone",
 "kernel": {"release", "libbpf", "btf", "tried"},
 "problems": [{"id", "severity", "where", "message", "hint"}],          severity: fail, warn, unknown
 "programs": [{"name", "section", "type", "attach_type", "type_from", "since_libbpf", "autoload", "hook", "frags",
               "sleepable", "instructions", "source", "line", "attach_target", "helpers", "kfuncs", "subprograms",
               "maps", "tail_calls", "redirects", "returns_tx", "adjusts", "rx_metadata", "core_relocations"}],
 "maps": [{"name", "type", "key_size", "value_size", "max_entries", "flags", "flag_names", "definition", "key_type",
           "value_type", "pin", "values", "inner"}],
 "globals": [{"name", "type", "kind", "value", "section", "offset", "size", "writable"}],
 "externs": [{"name", "kind", "weak", "type"}],
 "pins": [{"map", "path", "exists", "by_other_loaders"}]}
```
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from xdpctl.obj.globals import values
from xdpctl.obj.kinds import map_flags
from xdpctl.obj.verdict import fails

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.obj.kernel import KernelFacts
    from xdpctl.obj.model import ObjFile, ObjGlobal, ObjMap, ObjProgram, Problem, RedirectCall

DEFAULT_BPFFS = "/sys/fs/bpf"
"""Where loaders that say nothing else let libbpf pin."""


def dump(
    obj: ObjFile,
    facts: KernelFacts,
    problems: list[Problem],
    *,
    alone: list[Problem],
    pin_root: Path,
) -> dict[str, Any]:
    """The object as in the module's docstring.

    Args:
        obj: the object.
        facts: what the kernel was asked.
        problems: the verdict for xdpctl.
        alone: the verdict for libbpf without our help.
        pin_root: where maps pinned by name lie.
    """
    return {
        "path": str(obj.path),
        "size": obj.size,
        "license": obj.license,
        "byte_order": obj.byte_order,
        "btf": obj.has_btf,
        "line_info": obj.has_line_info,
        "core_relocations": obj.core_relocations,
        "loads": not fails(problems),
        "loads_with_libbpf_alone": not fails(alone),
        "kernel": {
            "release": facts.release,
            "libbpf": ".".join(map(str, facts.libbpf)) if facts.libbpf else None,
            "btf": facts.btf,
            "tried": facts.privileged,
        },
        "problems": [
            {
                "id": one.id,
                "severity": one.severity,
                "where": one.where,
                "message": one.message,
                "hint": one.hint,
            }
            for one in problems
        ],
        "programs": [_program(obj, one) for one in obj.programs],
        "maps": [_map(one) for one in obj.maps],
        "globals": [_global(one) for one in obj.globals],
        "externs": [
            {"name": one.name, "kind": one.kind, "weak": one.weak, "type": one.type} for one in obj.externs
        ],
        "pins": pins(obj, pin_root),
    }


def pins(obj: ObjFile, pin_root: Path) -> list[dict[str, Any]]:
    """Every path that loading would create in a bpffs (LIBBPF_PIN_BY_NAME)."""
    found = []
    for one in obj.maps:
        if one.pin is None:
            continue
        path = pin_root / one.pin
        try:
            exists = path.exists()
        except OSError:  # a name too long, or a folder that is not ours to read
            exists = False
        found.append(
            {
                "map": one.name,
                "path": str(path),
                "exists": exists,
                "by_other_loaders": f"{DEFAULT_BPFFS}/{one.pin}",
            }
        )
    return found


def _program(obj: ObjFile, one: ObjProgram) -> dict[str, Any]:
    return {
        "name": one.name,
        "section": one.section,
        "type": one.type,
        "attach_type": one.attach_type,
        "type_from": one.type_from,
        "since_libbpf": one.since_libbpf,
        "autoload": one.autoload,
        "hook": one.hook,
        "frags": one.frags,
        "sleepable": one.sleepable,
        "instructions": one.instructions,
        "source": one.source,
        "line": one.line,
        "attach_target": one.attach_target,
        "helpers": list(one.helpers),
        "kfuncs": list(one.kfuncs),
        "subprograms": list(one.subprograms),
        "maps": list(one.maps),
        "tail_calls": list(one.tail_calls),
        "redirects": [_redirect(obj, call) for call in one.redirects],
        "returns_tx": one.returns_tx,
        "adjusts": list(one.adjusts),
        "rx_metadata": list(one.rx_metadata),
        "core_relocations": one.core_relocations,
    }


def _redirect(obj: ObjFile, call: RedirectCall) -> dict[str, Any]:
    return {
        "helper": call.helper,
        "line": call.line,
        "map": call.map,
        "key": call.key,
        "ifindex": call.ifindex,
        "variable": call.variable,
        "values": values(obj, call.variable) if call.variable is not None else [],
        "origin": call.origin,
        "flags": call.flags,
    }


def _map(one: ObjMap) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "key_size": one.key_size,
        "value_size": one.value_size,
        "max_entries": one.max_entries,
        "flags": one.flags,
        "flag_names": map_flags(one.flags),
        "definition": one.definition,
        "key_type": one.key_type,
        "value_type": one.value_type,
        "pin": one.pin,
        "values": list(one.values),
        "inner": _map(one.inner_map) if one.inner_map is not None else None,
    }


def _global(one: ObjGlobal) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "kind": one.kind,
        "value": _plain(one.value),
        "section": one.section,
        "offset": one.offset,
        "size": one.size,
        "writable": one.writable,
    }


def _plain(value: Any) -> Any:
    """JSON has no infinity and no not-a-number: those as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
