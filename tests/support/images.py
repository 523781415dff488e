"""Draw docs/images/: what `xdpctl topology` shows of the deployments in configs/, and what the labs and screens print.

Each picture is made in namespaces of its own, without what differs from run to run (ids, times), written beside and
moved into its place when it is whole. ``python tests/support/images.py [NAME ...]``; `make images` draws all.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from sandbox import ROOT, Sandbox, sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = ROOT / "docs" / "images"
LARGEST = 200_000
"""Bytes of a picture: README shows several."""
WIDTH = 112
"""Columns of a terminal's picture."""

HOST = """
silent() { echo 1 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv6/conf/default/disable_ipv6; }
for one in outside pod-web pod-db; do ip netns add $one; ip netns exec $one bash -c "$(declare -f silent); silent"; done
silent
add() { ip link add $1 type veth peer name $2 netns $3; ip link set $1 up; ip -n $3 link set $2 up; }
add eth0 wire0 outside; add veth_in0 wire1 outside
add veth_xxx0 veth_yyy0 pod-web; add veth_db veth0 pod-db
ip netns exec pod-web ethtool -K veth_yyy0 gro off
"""
"""A host as the files in configs/ think of it: eth0, a way in, and pairs that lead to pods."""


class Failed(Exception):  # noqa: N818 - told in one line
    """A picture that could not be made."""


class Steps(NamedTuple):
    """What is set up, and how it is drawn."""

    set_up: str
    """Lines of shell."""
    draw: str = "xdpctl topology --svg -"


APPLY = "for one in {}; do xdpctl apply --yes configs/$one.toml; done"
TOPOLOGIES = {
    "topology-broken": Steps(
        HOST + "xdpctl attach --force --set target_ifindex=veth_xxx0 veth_in0 builtin:redirect",
        "xdpctl topology --iface veth_in0 --svg -",
    ),
    "topology-configs": Steps(
        HOST + APPLY.format("veth-redirect blocklist tc-chain") + "; xdpctl apply --yes"
        " configs/all-veths.toml --var match='veth*'"
    ),
}
LABS = ("veth-redirect", "stuck-qdisc", "macvtap-queues", "ring-race", "page-pool")


def names() -> list[str]:
    """Every picture that `make images` draws."""
    return [*TOPOLOGIES, *(f"lab-{one}" for one in LABS), *SCREENS]


# -- Graphviz's pictures


def topology(name: str) -> str:
    """The SVG of one set-up."""
    steps = TOPOLOGIES[name]
    with sandbox() as box:
        said(box, f"set -e\n{steps.set_up}")
        drawn = said(box, f"{steps.draw} 2>/dev/null")
    text = drawn[drawn.index("<svg") :]
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    return quiet(text.replace("&#45;", "-"))


def said(box: Sandbox, command: str) -> str:
    """What a command printed.

    Raises:
        Failed: it failed.
    """
    done = box.run(command)
    if done.returncode:
        raise Failed(f"{command.strip().splitlines()[-1]}: {done.stdout.strip()[-2000:]}")
    return done.stdout


NOISE = (
    (re.compile(r"\b(id|program|link|map|index|ifindex) \d+\b"), r"\1 N"),
    (re.compile(r"\b(page pool) \d+\b"), r"\1 N"),
    (re.compile(r"\b0{4,8}[0-9a-f]{8}\b"), "N"),
    (re.compile(r"\b(pfifo_fast) [0-9a-f]+:"), r"\1 N:"),
    (re.compile(r"(?m)^( *)\d{5,}: "), r"\1N: "),
    (re.compile(r"(?<=top  )\d\d:\d\d:\d\d"), "12:00:00"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"(\b\d+\.\d+\.\d+)[-+][\w.+~-]+"), r"\1"),
)


def quiet(text: str) -> str:
    """Without what differs from run to run: ids, times, the kernel's build."""
    for pattern, other in NOISE:
        text = pattern.sub(other, text)
    return text


# -- a terminal's pictures


PLAY = "import sys; from xdpctl.lab import labs; labs.run(labs.find({!r}), sys.stdout.write, colour=True)"


def lab(name: str) -> str:
    """The SVG of what one lab prints."""
    lab_name = name.removeprefix("lab-")
    with sandbox() as box:
        printed = said(box, f'python -c "{PLAY.format(lab_name)}"')
    return terminal(name, f"xdpctl lab run {lab_name}", quiet(printed.strip("\n")))


def terminal(name: str, title: str, ansi: str, width: int = WIDTH) -> str:
    """Text with a terminal's colours as SVG: no fonts from elsewhere, names by the picture's own."""
    import io

    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="standard"
    )
    lines = [wrapped(line, width) for line in ansi.split("\n")]
    console.print(
        Text.from_ansi("\n".join([*lines, ""]))
    )  # a blank line: the last one's underscores need room
    made = console.export_svg(title=title, code_format=FORMAT, unique_id=name)
    made = re.sub(r' clip-path="[^"]*"', "", made)  # nothing is wider than the screen
    return BEGINS_BLANK.sub(moved, made)


CELL = 12.2
"""Width of a character in rich's pictures (0.61 of its height, 20)."""
BEGINS_BLANK = re.compile(
    r'(<text[^>]* x=")([\d.]+)("[^>]* textLength=")([\d.]+)(">)((?:&#160;)+)(.*?)</text>'
)


def moved(found: re.Match[str]) -> str:
    """A text that begins with blanks, begun behind them: some viewers leave such blanks out."""
    before, at, between, length, end, blanks, rest = found.groups()
    by = CELL * blanks.count("&")
    if not rest:
        return ""
    return f"{before}{float(at) + by:.1f}{between}{float(length) - by:.1f}{end}{rest}</text>"


def wrapped(line: str, width: int) -> str:
    """A line that is too long goes on below, further in; its paint, which is that of all of it, goes on too."""
    begin, bare, end = re.fullmatch(r"((?:\x1b\[[\d;]*m)?)(.*?)((?:\x1b\[0m)?)", line, re.DOTALL).groups()
    if len(bare) <= width or "\x1b" in bare:
        return line
    indent = bare[: len(bare) - len(bare.lstrip())]
    parts = textwrap.wrap(
        bare.lstrip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}      ",
        break_on_hyphens=False,
    )
    return "\n".join(f"{begin}{one}{end}" for one in parts)


FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Consolas, "DejaVu Sans Mono", Menlo, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: Arial, sans-serif; }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own without its web font and its clipping."""

TRAFFIC = """
import sys, time
from xdpctl.netlink import netns
from xdpctl.trace import frames
with netns.enter("outside"):
    wires = [frames.Port(f"wire{number}") for number in range(3)]
clean = [frames.udp4(bytes(60), addresses=(f"10.0.0.{one}", "10.0.1.1")) for one in range(8)]
listed = frames.udp4(bytes(60), addresses=("192.0.2.9", "10.0.1.1"))
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for number in range(40):
        wires[0].send(listed if number % 4 == 0 else clean[number % 8])
        wires[1].send(clean[number % 8])
        if number % 5 == 0:
            wires[2].send(clean[0])
    time.sleep(0.004)
"""
"""Frames into eth0 (one in four from a listed prefix), veth_in0, and fewer into eth1."""

SCREEN = """
import sys, time
from rich.console import Console
from xdpctl.cli.top import Looks
from xdpctl.cli.top_screen import View
from xdpctl.trace.sampler import Sampler
width, height = map(int, sys.argv[1:])
with Sampler(all_netns=True, run_times="always") as sampler:
    looks, view = Looks(sampler, 1.0), View("packets")
    for _ in range(2):
        found = looks.next(lambda seconds: time.sleep(seconds) or True)
    console = Console(force_terminal=True, color_system="standard", width=width, height=height)
    console.print(view.frame(found, width, height))
"""
"""What `xdpctl top` draws, once."""
SCREEN_SIZE = 124, 34


def top(name: str) -> str:
    """The SVG of `xdpctl top` while frames come in, some of which are lost."""
    import time

    width, height = SCREEN_SIZE
    with sandbox() as box:
        said(
            box,
            f"set -e\n{HOST}\nadd eth1 wire2 outside\n" + APPLY.format("veth-redirect blocklist tc-chain"),
        )
        said(box, "xdpctl attach --force --set target_ifindex=veth_db eth1 builtin:redirect")
        with box.start(f"python - 30 <<'END'\n{TRAFFIC}END") as traffic:
            time.sleep(0.5)
            printed = said(box, f"python - {width} {height} <<'END'\n{SCREEN}END")
            traffic.terminate()
    # ids of programs are dim numbers of a column of their own
    printed = re.sub(r"(\x1b\[2m *)(\d{3,})", lambda one: one[1] + "N".rjust(len(one[2])), printed)
    return terminal(name, "xdpctl top --all-netns", quiet(printed.rstrip("\n")), width)


SCREENS: dict[str, Callable[[str], str]] = {"top": top}


def make(name: str) -> int:
    """Draw one picture; its size in bytes.

    Raises:
        Failed: it can't be made, or is too large.
    """
    maker = SCREENS.get(name) or (topology if name in TOPOLOGIES else lab)
    text = maker(name)
    size = len(text.encode())
    if size > LARGEST:
        raise Failed(f"{size} bytes are more than {LARGEST}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = FOLDER / f"{name}.svg.{os.getpid()}"
    fresh.write_text(text)
    fresh.replace(FOLDER / f"{name}.svg")
    return size


def main(wanted: list[str]) -> int:
    """Draw the pictures asked for, or all; the exit code."""
    unknown = [one for one in wanted if one not in names()]
    if unknown:
        sys.stderr.write(f"images: there is no {', '.join(unknown)}; there are {', '.join(names())}\n")
        return 2
    failed = 0
    for name in wanted or names():
        try:
            print(f"{FOLDER.relative_to(ROOT)}/{name}.svg: {make(name)} bytes", flush=True)
        except Failed as error:
            failed += 1
            sys.stderr.write(f"images: {name}: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
