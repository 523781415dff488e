"""``xdpctl inspect``: what an object file holds, and whether it would load here."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.errors import EXIT_FINDINGS, NotFoundError, XdpctlError

if TYPE_CHECKING:
    from xdpctl.obj.sections import SectionMeaning

app = typer.Typer()


@app.command(no_args_is_help=True)
def inspect(
    objects: Annotated[list[Path], typer.Argument(metavar="OBJ...", help="Object files made for BPF.")],
    type_: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Type (xdp, tc, ...) of the programs whose section name tells none.",
            autocompletion=complete.program_type,
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--no-probe",
            help="As root: try program types, helpers and targets of this kernel with two-instruction programs.",
        ),
    ] = True,
    as_json: options.AsJson = False,
) -> None:
    """Show programs, maps and globals of an object, and why it would not load here. Nothing is loaded, no root needed.

    Exit code 1 says that something keeps an object from loading.

    xdpctl inspect prog.o

    xdpctl inspect builtin:blocklist

    xdpctl inspect --type xdp old.o

    xdpctl inspect --json a.o b.o | jq '.objects[].problems'
    """
    given = _meaning(type_)
    found: list[dict[str, Any]] = []
    code = 0
    for path in objects:
        try:
            found.append(_judge(path, given, probe=probe))
        except XdpctlError as error:
            if len(objects) == 1:
                raise
            found.append({"path": str(path), "error": error.to_json()})
            code = code or error.exit_code
            if not as_json:
                _print_objects([found.pop()])
                from xdpctl.cli.output import print_error

                print_error(error, as_json=False)
                continue
        if not as_json:
            _print_objects(found[-1:])
    if as_json:
        from xdpctl.cli.output import print_json

        print_json({"objects": found})
    if code == 0 and any(not one.get("loads", False) for one in found):
        code = EXIT_FINDINGS
    raise typer.Exit(code)


def _meaning(text: str | None) -> SectionMeaning | None:
    if text is None:
        return None
    from xdpctl.obj.sections import from_type, type_names

    found = from_type(text)
    if found is None:
        raise NotFoundError("program type", text, known=type_names())
    return found


def _judge(path: Path, given: SectionMeaning | None, *, probe: bool) -> dict[str, Any]:
    """Read, ask, judge: one item of the JSON."""
    from xdpctl.attach.ownership import maps_folder
    from xdpctl.obj.jsonform import dump
    from xdpctl.obj.kernel import gather
    from xdpctl.obj.reader import read
    from xdpctl.obj.shipped import resolve
    from xdpctl.obj.verdict import verdict, with_type

    obj = read(resolve(path))
    pin_root = maps_folder()
    typed = with_type(obj, given) if given is not None else obj
    facts = gather(typed, pin_root=pin_root, probe=probe)
    return dump(
        typed, facts, verdict(typed, facts), alone=verdict(obj, facts, loader="libbpf"), pin_root=pin_root
    )


def _print_objects(found: list[dict[str, Any]]) -> None:
    from xdpctl.cli.output import print_line

    for one in found:
        if "error" in one:
            continue
        print_line(_title(one))
        for program in one["programs"]:
            _print_program(program)
        _print_maps(one)
        _print_globals(one)
        _print_verdict(one)


def _title(one: dict[str, Any]) -> str:
    facts = [f"{one['size']} bytes", f"license {one['license']}" if one["license"] else "no license"]
    facts.append("no BTF" if not one["btf"] else "BTF with line info" if one["line_info"] else "BTF")
    if one["core_relocations"]:
        facts.append(f"{one['core_relocations']} CO-RE relocations")
    if one["byte_order"] != sys.byteorder:
        facts.append(f"{one['byte_order']}-endian")
    return f"{one['path']}: {', '.join(facts)}"


def _print_program(one: dict[str, Any]) -> None:
    from xdpctl.cli.output import print_line

    kind = one["type"] or "type unknown"
    attach_type = one["attach_type"]
    if attach_type not in (None, one["type"]):
        kind = attach_type if attach_type.startswith(f"{one['type']}/") else f"{kind}, {attach_type}"
    words = [kind, f"section {one['section']}", f"{one['instructions']} instructions"]
    words += [word for word in ("frags", "sleepable") if one[word]]
    if not one["autoload"]:
        words.append("loaded only when asked for")
    if one["source"]:
        words.append(f"{one['source']}:{one['line']}")
    _print_painted("\nprogram ", one["name"], f": {', '.join(words)}", "1")
    details = {
        "for": [one["attach_target"]] if one["attach_target"] else [],
        "maps": one["maps"],
        "helpers": one["helpers"],
        "kfuncs": one["kfuncs"],
        "calls": one["subprograms"],
        "tail calls": [
            f"through {name}" if name else "through a map that can't be told" for name in one["tail_calls"]
        ],
        "needs": [f"adjusts {', '.join(one['adjusts'])}"] if one["adjusts"] else [],
    }
    if one["rx_metadata"]:
        details["needs"].append("a driver with rx metadata")
    for name, words in details.items():
        if words:
            print_line(f"  {name:<12}{_wrapped(words)}")
    for call in one["redirects"]:
        line = f" (line {call['line']})" if call["line"] else ""
        print_line(f"  {'redirects':<12}{_redirect(call)}{line}")
    if one["returns_tx"]:
        print_line(f"  {'returns':<12}XDP_TX on some path")


def _wrapped(words: list[str], width: int = 92) -> str:
    """Names in lines of a readable length, the later ones indented."""
    lines, line = [], ""
    for position, word in enumerate(words):
        piece = word + (", " if position < len(words) - 1 else "")
        if line and len(line) + len(piece) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return ("\n" + " " * 14).join([*lines, line])


def _redirect(call: dict[str, Any]) -> str:
    """One redirect in words: ``bpf_redirect to target_ifindex (now 7)``."""
    target = "a target that only runs can tell"
    if call["ifindex"] is not None:
        target = f"ifindex {call['ifindex']}"
    elif call["variable"] is not None:
        now = ", ".join(map(str, call["values"][:8]))
        target = f"{call['variable']} (now {now or 'unknown'})"
    elif call["origin"] is not None:
        target = call["origin"]
    if call["helper"] != "bpf_redirect_map":
        return f"{call['helper']} to {target}"
    key = f"key {call['key']}" if call["key"] is not None else target
    if call["key"] is None and call["variable"] is None and call["origin"] is None:
        key = "a key that only runs can tell"
    return f"{call['helper']} through {call['map'] or 'a map that can not be told'}, {key}"


def _print_maps(one: dict[str, Any]) -> None:
    from xdpctl.cli.output import print_line, print_table

    shown = [each for each in one["maps"] if each["definition"] != "internal"]
    if shown:
        print_line("")
        rows = [
            [
                each["name"],
                each["type"] + (f" of {each['inner']['type']}" if each["inner"] else ""),
                _typed(each["key_type"], each["key_size"]),
                _typed(each["value_type"], each["value_size"]),
                str(each["max_entries"]),
                ", ".join(each["flag_names"]),
                'SEC("maps")' if each["definition"] == "legacy" else "",
            ]
            for each in shown
        ]
        print_table(["MAP", "TYPE", "KEY", "VALUE", "ENTRIES", "FLAGS", "DEFINED"], rows)
    if one["pins"]:
        print_line("")
    for pin in one["pins"]:
        state = ", which is there already: it is reused" if pin["exists"] else ""
        print_line(
            f"pins map {pin['map']} at {pin['path']}{state} (other loaders: {pin['by_other_loaders']})"
        )


def _typed(name: str | None, size: int) -> str:
    return f"{name} ({size})" if name else str(size)


def _print_globals(one: dict[str, Any]) -> None:
    from xdpctl.cli.output import print_line, print_table

    if one["globals"]:
        print_line("")
        rows = [
            [each["name"], each["type"] or f"{each['size']} bytes", _value(each), each["section"]]
            for each in one["globals"]
        ]
        print_table(["GLOBAL", "TYPE", "VALUE", "SECTION"], rows)
    needed = [f"{each['kind']} {each['name']}{' (weak)' if each['weak'] else ''}" for each in one["externs"]]
    if needed:
        print_line(f"\nneeds of the kernel: {_wrapped(needed)}")


def _value(one: dict[str, Any]) -> str:
    if one["section"] == ".kconfig":
        return "of the kernel"
    value = one["value"]
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str) and one["kind"] == "array":
        text = f'"{value}"'
    elif one["kind"] == "pointer" and isinstance(value, int):
        text = hex(value)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


_COLOURS = {"fail": "31;1", "warn": "33;1", "unknown": "35;1"}


def _print_painted(before: str, word: str, after: str, colour: str) -> None:
    """A line with one word coloured on a terminal, as it is when piped."""
    from xdpctl.cli.output import plain

    on, off = (f"\033[{colour}m", "\033[0m") if colour and sys.stdout.isatty() else ("", "")
    sys.stdout.write(f"{before}{on}{plain(word)}{off}{plain(after)}\n")


def _print_verdict(one: dict[str, Any]) -> None:
    from xdpctl.cli.output import print_line

    kernel = one["kernel"]
    here = f"Linux {kernel['release']}, libbpf {kernel['libbpf'] or 'none'}"
    failing = [each for each in one["problems"] if each["severity"] == "fail"]
    if failing:
        print_line(f"\nverdict: does not load here ({here})")
    else:
        print_line(
            f"\nverdict: nothing known keeps it from loading here ({here}); the verifier has the last word"
        )
    said = set()
    for each in one["problems"]:
        _print_painted("  ", each["severity"].ljust(8), each["message"], _COLOURS.get(each["severity"], ""))
        if each["hint"] and each["hint"] not in said:
            print_line(f"  {'':<8}hint: {each['hint']}")
            said.add(each["hint"])
    if one["loads"] and not one["loads_with_libbpf_alone"]:
        print_line("  note    loaders that leave everything to libbpf (bpftool, ip) refuse it")
    if not kernel["tried"]:
        print_line("  note    helpers, program and map types of this kernel were not tried (that takes root)")
