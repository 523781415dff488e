"""An exported deployment as TOML, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy.toml_text import Writer

if TYPE_CHECKING:
    from xdpctl.deploy.export import Exported, InterfacePart

TABLES = ("features", "rings", "channels", "coalesce", "pause", "private_flags", "napi")


def text(made: Exported, *, taken_at: str) -> str:
    """The file."""
    out = Writer()
    out.comment(f"What ran on this machine at {taken_at}, written by `xdpctl export`.")
    if made.adopt and made.programs:
        out.comment("adopt = true: applying this takes over programs that are attached by hand now.")
    if made.left_out:
        out.comment("\nNot in this file:")
        for what, why in made.left_out:
            out.comment(f"  {what}: {why}")
    out.gap()
    out.table("deployment", pairs={"name": made.name, "adopt": True if made.adopt else None})
    for one in made.programs:
        out.gap()
        if one.remark:
            out.comment(one.remark)
        names = {"name": one.name, "object": one.object, "sha256": one.sha256}
        out.table("program", array=True, pairs={**names, "function": one.function, "type": one.type})
        if one.globals:
            out.table("program", "globals", pairs=one.globals)
        for name, table in one.maps.items():
            out.table("program", "maps", name, pairs=table)
    for part in made.interfaces:
        out.gap()
        _interface(out, part)
    for redirect in made.redirects:
        out.gap()
        out.table(
            "redirect",
            array=True,
            pairs={
                "from": redirect.source,
                "to": redirect.target,
                "netns": redirect.netns,
                "ensure": True if redirect.ensure else None,
            },
        )
    return out.text()


def _interface(out: Writer, part: InterfacePart) -> None:
    settings = part.settings
    out.table(
        "interface",
        array=True,
        pairs={
            "name": part.link.name,
            "netns": part.netns,
            "wait": f"{part.wait:g}s" if part.wait else None,
            "up": settings.up,
            "mtu": settings.mtu,
        },
    )
    for name in TABLES:
        table = getattr(settings, name)
        if table:
            out.table("interface", name, pairs=table)
    for one in part.attach:
        out.table("interface", "attach", array=True, pairs=one)


def to_json(made: Exported, *, toml: str, file: str | None) -> dict[str, Any]:
    """What ``--json`` prints of one deployment."""
    return {
        "deployment": made.name,
        "file": file,
        "adopt": made.adopt,
        "programs": [{"name": one.name, "object": one.object, "sha256": one.sha256} for one in made.programs],
        "interfaces": [
            {
                "name": one.link.name,
                "netns": one.netns,
                "attach": [
                    {key: value for key, value in each.items() if value is not None} for each in one.attach
                ],
            }
            for one in made.interfaces
        ],
        "redirects": [
            {"from": one.source, "to": one.target, "netns": one.netns, "ensure": one.ensure}
            for one in made.redirects
        ],
        "left_out": [{"what": one.what, "why": one.why} for one in made.left_out],
        "toml": toml,
    }
