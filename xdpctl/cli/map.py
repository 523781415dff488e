"""``xdpctl map``: the maps of the system, with keys and values as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import map_data, map_watch, options
from xdpctl.cli.map_data import MAP, NETNS, opened, ref

if TYPE_CHECKING:
    from xdpctl.attach.map_facts import MapFacts

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Read and write maps by their BTF types: addresses, interface and enumerator names, hits=0,bytes=7.

    A map is named by the path of its pin, its name below xdpctl's pins, its id, interface/map (a map of a program
    attached there), or its own name where one map alone has it.
    """


@app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """List the maps: id, type, name, types of key and value, entries, pins and programs.

    Entries are counted where that is cheap; `xdpctl map show` counts them always.
    """
    from xdpctl.attach.map_facts import every
    from xdpctl.cli.output import print_json, print_line, print_table

    found = every()
    if as_json:
        print_json({"maps": [one.to_json() for one in found]})
    elif not found:
        print_line("no maps")
    else:
        print_table(
            ["ID", "TYPE", "NAME", "KEY", "VALUE", "ENTRIES", "PINS", "PROGRAMS"],
            [_row(one) for one in found],
        )


def _row(one: MapFacts) -> list[str]:
    return [
        str(one.info.id),
        one.info.type,
        one.info.name,
        one.key_type or "",
        one.value_type if one.info.value_size else "",
        f"{'' if one.entries is None else f'{one.entries}/'}{one.info.max_entries}",
        " ".join(map(str, one.pins)),
        " ".join(each.name or str(each.id) for each in one.programs),
    ]


@app.command()
def show(name: MAP, netns: NETNS = None, as_json: options.AsJson = False) -> None:
    """Show one map: its types member by member, room, memory, flags, pins and programs."""
    from xdpctl.attach.map_facts import facts_of, flags, pinned
    from xdpctl.bpf import query
    from xdpctl.cli.output import print_json, print_line

    with opened(name, netns) as of:
        one = facts_of(of, pinned(), list(query.programs()), most=1 << 40)
        note = of.shape.kind.note
    if as_json:
        print_json(
            {**one.to_json(), "key_fields": list(one.key_fields), "value_fields": list(one.value_fields)}
        )
        return
    lines = [
        ("map", f"{one.info.name or '(no name)'}, id {one.info.id}"),
        ("type", one.info.type + (f" ({note})" if note else "")),
        ("key", _typed(one.key_type, one.key_fields, one.info.key_size) if one.key_type else "none"),
        ("value", _typed(one.value_type, one.value_fields, one.info.value_size)),
        ("entries", f"{'?' if one.entries is None else one.entries} of {one.info.max_entries}"),
        ("memory", "" if one.memory is None else f"{one.memory} bytes"),
        ("flags", ", ".join(flags(one.info.flags)) + (", frozen" if one.frozen else "")),
        ("pins", " ".join(map(str, one.pins))),
        ("programs", ", ".join(f"{each.name} ({each.id})" for each in one.programs)),
    ]
    for head, text in lines:
        if text:
            print_line(f"{head + ':':<10}{text}")


def _typed(spelled: str, fields: tuple[str, ...], size: int) -> str:
    inside = f" {{ {'; '.join(fields)}; }}" if fields else ""
    return f"{spelled}{inside}" + ("" if spelled.endswith("bytes") else f", {size} bytes")


@app.command()
def get(
    name: MAP,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As dump shows it.")],
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the value of a key; in an LPM trie that of the longest prefix that matches.

    xdpctl map get blocked4 203.0.113.7

    xdpctl map get eth0/actions 1
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.errors import MapError
    from xdpctl.skeleton.rows_write import RowWriter

    with opened(name, netns) as of:
        if of.shape.key is None or "lookup" not in of.shape.kind.can:
            raise MapError(f"map {of.name}: nothing can be looked up in a map of type {of.type}")
        raw = of.shape.key.parse(key, path="key")
        value = of.elements.lookup(raw)
        if value is None:
            raise MapError(f"map {of.name} has no key {of.shape.key.text(raw)}", errno=2)
        writer = RowWriter(of.shape, "json")
        if as_json:
            print_json({"map": ref(of), **writer.entry(raw, value)})
            return
        entry = writer.entry(raw, value)
        if not of.shape.stride:
            print_line(of.shape.value.text(value))
            return
        from xdpctl.skeleton.forms import shown

        for cpu, one in enumerate(entry["value"]):
            print_line(f"cpu {cpu}: {shown(one)}")
        if entry["sum"] is not None:
            print_line(f"sum:   {shown(entry['sum'])}")


@app.command("set")
def set_(
    name: MAP,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY VALUE...", help="Key and value; the value alone where there are no keys."
        ),
    ],
    new: Annotated[bool, typer.Option("--new", help="Only if the key is not there yet.")] = False,
    existing: Annotated[bool, typer.Option("--existing", help="Only if the key is there.")] = False,
    cpu: Annotated[
        Optional[int],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(metavar="N", help="Per-CPU maps: the value of this CPU alone, else of all."),
    ] = None,
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a value. Members that are not mentioned stay as they are; in a new entry they are zero.

    A queue or stack gets the value pushed, a bloom filter added.

    xdpctl map set blocked4 203.0.113.0/24 packets=0

    xdpctl map set tx_ports 0 eth1

    xdpctl map set flows saddr=10.0.0.1,port=443 '{"hits": 7}'
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.errors import ConfigError
    from xdpctl.skeleton.composite import StructForm
    from xdpctl.skeleton.editing import write
    from xdpctl.skeleton.rows_write import read_value

    if new and existing:
        raise ConfigError("--new and --existing: give one of them")
    with opened(name, netns) as of:
        keyed = of.shape.key is not None
        # a struct may be left as it is, or zero where it is new
        if len(words) < 1 + (keyed and not isinstance(of.shape.value, StructForm)):
            raise ConfigError("no value given", hint=f"xdpctl map set {name} {'KEY ' * keyed}VALUE")
        key, value = (words[0], words[1:]) if keyed else (None, words)
        done = write(of, key, " ".join(value), new=new, existing=existing, cpu=cpu)
        shape = of.shape
        shown_key = None if done.key is None or shape.key is None else shape.key.text(done.key)
        if as_json:
            found: dict[str, Any] = {"map": ref(of)}
            if done.key is not None and shape.key is not None:
                found["key"] = shape.key.read(done.key, 0)
            fresh = (
                of.elements.lookup(done.key)
                if done.key is not None and "lookup" in shape.kind.can
                else done.value
            )
            found["value"] = read_value(shape, done.value if fresh is None else fresh)
            print_json({**found, "created": done.created})
            return
        verb = {True: "added", False: "changed", None: "written" if keyed else "pushed"}[done.created]
        print_line(f"{of.name}: {verb}{'' if shown_key is None else f' {shown_key}'}")


@app.command()
def delete(
    name: MAP,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="As dump shows them.")],
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete keys; one that is not there is an error, the others are deleted all the same."""
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.errors import MapError

    with opened(name, netns) as of:
        form = of.shape.key
        if form is None:
            raise MapError(
                f"map {of.name}: a map of type {of.type} has no keys", hint="xdpctl map clear empties it"
            )
        raw = [form.parse(one, path="key") for one in keys]
        missing = [form.text(one) for one in raw if not of.elements.delete(one)]
        if as_json and not missing:
            print_json({"map": ref(of), "deleted": len(raw)})
        elif not as_json:
            print_line(f"{of.name}: {len(raw) - len(missing)} deleted")
        if missing:
            raise MapError(f"map {of.name} has no key {', '.join(missing[:5])}", errno=2)


@app.command()
def clear(name: MAP, netns: NETNS = None, as_json: options.AsJson = False) -> None:
    """Delete every entry; the slots of an array become zero, a queue or stack is emptied."""
    from xdpctl.cli.output import print_json, print_line

    with opened(name, netns) as of:
        gone = of.clear()
        if as_json:
            print_json({"map": ref(of), "cleared": gone})
        else:
            zeroed = not of.shape.kind.deletes and of.shape.key
            print_line(f"{of.name}: {gone} {'slots set to zero' if zeroed else 'entries deleted'}")


@app.command()
def pin(
    name: MAP,
    where: Annotated[
        str, typer.Argument(metavar="PIN", help="A path in a bpffs, or a name below xdpctl's maps.")
    ],
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Pin a map, so that it outlives the programs that use it; `rm` takes the pin away."""
    from xdpctl.bpf import pins
    from xdpctl.cli.output import print_json, print_line

    path = Path(where) if "/" in where else pins.below(pins.root() / "maps", where)
    with opened(name, netns) as of:
        of.pin(path)
        if as_json:
            print_json({"map": ref(of), "pin": str(path)})
        else:
            print_line(f"{of.name}: pinned at {path}")


app.command()(map_data.dump)
app.command()(map_data.load)
app.command()(map_watch.watch)
