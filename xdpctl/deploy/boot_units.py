"""Which systemd units bring deployments up at boot? Read from the unit files themselves (systemd.unit(5)).

systemctl may be absent, or the root another one; what a generator makes, or presets would enable, is not seen.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import field
from typing import TYPE_CHECKING

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDERS = (
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
"""Where units lie that outlive a boot, the strongest first; /run/systemd/system does not."""
VOLATILE_FOLDER = "run/systemd/system"
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """A unit that applies a deployment."""

    name: str
    path: Path | None
    deployment: str
    enabled: bool
    why: str
    """Why it does not come at boot; "": it does."""
    files: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def read_services(root: Path) -> dict[str, Service]:
    """Units that apply deployments, by deployment; of several an enabled one."""
    found: dict[str, Service] = {}
    for name, path in _units(root):
        one = _read(name, path, root)
        if one is not None and (
            one.deployment not in found or (one.enabled and not found[one.deployment].enabled)
        ):
            found[one.deployment] = one
    return found


def _units(root: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of every service, a stronger folder's before a weaker one's of the same name."""
    seen: set[str] = set()
    for folder in (*FOLDERS, VOLATILE_FOLDER):
        try:
            names = sorted(os.listdir(root / folder))  # noqa: PTH208 - names, not paths
        except OSError:
            continue
        for name in names:
            if name.endswith(".service") and name not in seen:
                seen.add(name)
                yield name, root / folder / name


def _read(name: str, path: Path, root: Path) -> Service | None:
    if path.is_symlink():
        target = os.readlink(path)  # noqa: PTH115 - a text
        if target == os.devnull:
            return None if not name.startswith("xdpctl-") else _masked(name, path)
        inside = root / target.lstrip("/") if target.startswith("/") else path.parent / target
        path = inside
    try:
        if path.stat().st_size > LARGEST:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if "xdpctl" not in text:
        return None
    pairs = list(_pairs(text))
    commands = [value for key, value in pairs if key in ("Service.ExecStart", "Service.ExecStartPre")]
    deployment = next((value for key, value in pairs if key == "X-Xdpctl.Deployment"), None)
    files = tuple(value for key, value in pairs if key == "X-Xdpctl.File")
    variables = dict(value.partition("=")[::2] for key, value in pairs if key == "X-Xdpctl.Variable")
    command = ""
    for line in commands:
        words = _words(line)
        if not command and words and "xdpctl" in words[0]:
            command = words[0].lstrip("-@:+!")
        if deployment is None:
            deployment, files, variables = _of_command(words, root)
    if deployment is None:
        return None
    wanted = [value for key, value in pairs if key in ("Install.WantedBy", "Install.RequiredBy")]
    enabled, why = _enabled(name, root, bool(wanted))
    if str(path).startswith(str(root / VOLATILE_FOLDER)):
        enabled, why = False, f"{name} lies in /{VOLATILE_FOLDER}, which ends with the boot"
    return Service(name, path, deployment, enabled, why, files, variables, command)


def _masked(name: str, path: Path) -> Service:
    deployment = name.removeprefix("xdpctl-").removesuffix(".service")
    return Service(name, path, deployment, False, f"{name} is masked")


def _enabled(name: str, root: Path, installable: bool) -> tuple[bool, str]:
    """Whether a target that comes at boot wants it: a link to it in some ``*.wants`` or ``*.requires``."""
    for folder in FOLDERS:
        for kind in ("wants", "requires"):
            for wanting in sorted((root / folder).glob(f"*.{kind}")):
                if os.path.lexists(wanting / name):  # where it leads is another root's business
                    return True, ""
    told = f"{name} is not enabled" if installable else f"{name} has no [Install], and nothing wants it"
    return False, told


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """``Section.Key`` and value of each assignment; lines that end in a backslash go on, comments between them not."""
    section, held = "", ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")):
            continue
        line, held = held + line, ""
        if line.endswith("\\"):
            held = line[:-1] + " "
            continue
        if match := re.fullmatch(r"\[([^\]]+)\]", line):
            section = match[1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield f"{section}.{key.strip()}", value.strip().replace("%%", "%")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line.replace("$$", "$"))
    except ValueError:
        return line.split()


def _of_command(words: list[str], root: Path) -> tuple[str | None, tuple[str, ...], dict[str, str]]:
    """(deployment, files, variables) of ``xdpctl apply FILE...`` or ``xdpctl drift NAME`` that somebody wrote."""
    plain = [one for one in words if not one.startswith("-")]
    if "apply" in words:
        variables = dict(
            words[place + 1].partition("=")[::2] for place, one in enumerate(words[:-1]) if one == "--var"
        )
        files = tuple(one for one in plain if one.endswith(".toml") or (root / one.lstrip("/")).is_dir())
        files = tuple(one for one in files if one != plain[0])
        return _name_in(files, root), files, variables
    if "drift" in plain and "--heal" in words:
        behind = plain[plain.index("drift") + 1 :]
        return (behind[-1] if behind and not behind[-1].isdigit() else None), (), {}
    return None, (), {}


def _name_in(files: tuple[str, ...], root: Path) -> str | None:
    import tomli

    for one in files:
        path = root / one.lstrip("/")
        for each in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            try:
                table = tomli.loads(each.read_text(encoding="utf-8")).get("deployment")
            except (OSError, ValueError):
                continue
            if isinstance(table, dict) and isinstance(table.get("name"), str):
                return str(table["name"])
    return None
