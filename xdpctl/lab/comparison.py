"""The same mistakes made with ip, bpftool, xdp-loader and xdpctl, and what each prints: docs/comparison.md.

``python -m xdpctl.lab.comparison > docs/comparison.md`` makes every mistake afresh for every tool, in a sandbox, and
writes down the commands, their output and exit code, and how many of the frames sent arrive. Nothing but the
titles is typed by hand.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import EXIT_INTERRUPTED, NotFoundError, XdpctlError
from xdpctl.lab import frames
from xdpctl.lab.mistakes import MISTAKES, OBJECTS, SENT, SOURCES, TOOLS, Mistake
from xdpctl.lab.sandbox import Sandbox
from xdpctl.lab.watch import Watch
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST, GUEST = "host", "guest"
NOBODY = "02:00:00:00:00:02"
"""Destination of the frames: one that no interface has; a group address would not be sent back."""

_IDS = re.compile(r"\b(program |link |id |prog_id=|map_id=)\d+")
INTRODUCTION = """\
# The same mistakes, four tools

Made by `make comparison`, which makes each mistake for each tool in namespaces of its own and writes down what was
printed, on Linux {kernel} with {versions}. Commands run in namespace `host`; the other
ends of its veths are in `guest`. Where a program redirects or sends back, {sent} frames are sent to it and those that
arrive are counted. `N` stands for the ids of programs and links, which differ from run to run.
"""


@dataclass(frozen=True)
class Answer:
    """What one tool did with one mistake."""

    commands: tuple[str, ...]
    printed: str
    ended: int
    arrived: int | None
    """Frames that came out, of SENT; None where none were sent."""
    event: str | None
    """What the kernel told tracers of the lost frames."""

    @property
    def silent(self) -> bool:
        """It went along, and said nothing of the mistake."""
        return self.ended == 0


def answer(mistake: Mistake, tool: str) -> Answer:
    """Make one mistake with one tool, in a sandbox of their own."""
    commands = mistake.commands[tool]
    with Sandbox() as sandbox:
        for name in (HOST, GUEST):
            sandbox.run(f"ip netns add {name}")
            sandbox.silence(name)
        for command in mistake.setup:
            sandbox.run(command)
        printed, ended = "", 0
        for command in commands:
            done = sandbox.run(command, inside=HOST, check=False)
            printed, ended = printed + done.stdout, done.returncode
            if ended:
                break
        arrived, event = (None, None)
        if mistake.arrives is not None and ended == 0:
            arrived, event = _send(mistake)
    return Answer(commands, printed.rstrip(), ended, arrived, event)


def _send(mistake: Mistake) -> tuple[int, str | None]:
    """Send frames to eth0 and count those that arrive where they should."""
    mark = b"xdpctl-comparison"
    assert mistake.arrives is not None  # noqa: S101 - the caller asked
    with (
        Watch() as watch,
        netns.enter(GUEST),
        frames.Port("eth1") as wire,
        frames.Port(mistake.arrives) as out,
    ):
        for _ in range(SENT):
            wire.send(frames.ethernet(mark, destination=NOBODY, length=mistake.length))
        arrived = out.count(mark, expect=SENT, seconds=0.3)
        bad = [event for event in watch.read() if event.number("err") or event.number("drops")]
    return arrived, str(bad[0]) if bad else None


def cell(one: Answer) -> str:
    """An answer in a table's cell."""
    words = "<br>".join(_code(line) for line in telling(one))
    if one.silent:
        words = words or "*prints nothing, exit code 0*"
    if one.arrived is not None:
        words += f"<br>**{one.arrived} of {SENT} frames arrive**"
    return words


def telling(one: Answer) -> list[str]:
    """The lines that tell what is wrong and what to do; evidence is left to the full text."""
    lines = [line.strip() for line in one.printed.splitlines() if line.strip()]
    if any(line.startswith(("FAIL", "WARN")) for line in lines):
        lines = [line for line in lines if not line.startswith(("- ", "xdpctl: error:", "hint:"))]
    return lines


def _code(text: str) -> str:
    """Verbatim text that stays within a cell."""
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def section(mistake: Mistake, answers: dict[str, Answer]) -> str:
    """One mistake at full length."""
    parts = [f"## {mistake.title}", ""]
    parts += ["```", *mistake.setup, "```", ""]
    for tool, one in answers.items():
        parts += [f"**{tool}**", "", "```"]
        parts += [f"$ {command}" for command in one.commands]
        parts += [*one.printed.splitlines(), "```", ""]
        parts += [_outcome(one), ""]
    return "\n".join(parts)


def _outcome(one: Answer) -> str:
    text = f"Exit code {one.ended}."
    if one.arrived is not None:
        text += f" {one.arrived} of {SENT} frames arrive."
        if one.event:
            text += f" The kernel tells tracers: `{one.event}`"
    return text


def document() -> str:
    """Make all mistakes; the whole page."""
    found = {mistake: {tool: answer(mistake, tool) for tool in TOOLS} for mistake in MISTAKES}
    head = INTRODUCTION.format(kernel=_release(), versions=_versions(), sent=SENT)
    rows = [
        "| mistake | " + " | ".join(TOOLS) + " |",
        "|---" * (len(TOOLS) + 1) + "|",
        *(
            f"| [{mistake.title}](#{_anchor(mistake.title)}) | "
            + " | ".join(cell(answers[tool]) for tool in TOOLS)
            + " |"
            for mistake, answers in found.items()
        ),
    ]
    sections = [section(mistake, answers) for mistake, answers in found.items()]
    return _IDS.sub(r"\1N", "\n".join([head, *rows, "", *sections])).rstrip() + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _release() -> str:
    """Major and minor version: the rest belongs to one machine."""
    return ".".join(os.uname().release.split(".")[:2])


def _versions() -> str:
    """The other tools' versions, as they tell them."""
    with Sandbox() as sandbox:
        ip = sandbox.run("ip -V").stdout
        bpftool = sandbox.run("bpftool version").stdout
        loader = sandbox.run(
            "dpkg-query -W -f ${Version} xdp-tools", check=False
        ).stdout  # it tells no version
    found = [
        f"{name} {match[0]}"
        for name, text in (("iproute2", ip), ("bpftool", bpftool), ("xdp-loader", loader))
        if (match := re.search(r"\d+\.\d+(\.\d+)?", text))
    ]
    return ", ".join(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the page."""
    argparse.ArgumentParser(prog="python -m xdpctl.lab.comparison", description=__doc__).parse_args(argv)
    try:
        if not OBJECTS.is_dir():
            raise NotFoundError("folder", str(OBJECTS), hint="make build compiles bpf/ into it")
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            shutil.copytree(OBJECTS, work / OBJECTS)
            with Sandbox() as sandbox:
                for name, text in SOURCES.items():
                    (work / f"{name}.bpf.c").write_text(text)
                    sandbox.run(f"xdpctl build {work}/{name}.bpf.c -o {work}")
            os.chdir(work)
            page = document()
            os.chdir("/")
    except XdpctlError as error:
        sys.stderr.write(f"comparison: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
