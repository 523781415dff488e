"""The ```console blocks of a Markdown file: what they say to type, what they say comes back.

A block is lines as a terminal shows them: ``$ command`` (a trailing backslash goes on in the next line), then
output. ``$ echo $?`` and a number after a command say how it ends; otherwise it ends with 0. Numbers and
hexadecimal identifiers in output stand for any others, ``...`` for any lines. A ```json block right behind a console
block is an example of what its last command prints: the keys must be the same, values may differ.

A ```python block is a script, run with warnings as errors; a ```text block right behind it is what it prints.

``python tests/support/console.py FILE ...`` runs the blocks and writes what really came back into the files.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXIT_CODE = "echo $?"
SCRIPT = "python3 -W error - <<'END'\n{}\nEND"
HEX = re.compile(r"\b(?:0x)?(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass
class Step:
    """One command of a block."""

    line: int
    """Line number in the file, from 1."""
    command: str
    shown: list[str] = field(default_factory=list)
    exit_code: int = 0
    end: int = 0
    """Line number after the last line shown."""
    example: Any = None
    """The ```json block behind the command's block, parsed."""
    example_lines: tuple[int, int] = (0, 0)
    """Line numbers of its first line and of its closing fence."""


def steps(text: str) -> list[Step]:
    """Every command of every console block and every script, in order; exit codes are folded into what they follow."""
    found: list[Step] = []
    inside = continued = False
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line == "```python":
            found.append(_script(lines, number))
        elif line.startswith("```"):
            if inside and lines[number : number + 2] == ["", "```json"]:
                end = lines.index("```", number + 2)
                found[-1].example = json.loads("\n".join(lines[number + 2 : end]))
                found[-1].example_lines = (number + 3, end + 1)
            inside = line.strip() == "```console"
            continued = False
        elif not inside:
            continue
        elif continued:
            found[-1].command += " " + line.strip().removesuffix("\\").rstrip()
            found[-1].end = number + 1
            continued = line.endswith("\\")
        elif line.startswith("$ "):
            found.append(Step(number, line[2:].removesuffix("\\").rstrip(), end=number + 1))
            continued = line.endswith("\\")
        elif found:
            found[-1].shown.append(line)
            found[-1].end = number + 1
    folded: list[Step] = []
    for step in found:
        if step.command == EXIT_CODE:
            folded[-1].exit_code = int(step.shown[0])
            folded[-1].example, folded[-1].example_lines = step.example, step.example_lines
        else:
            folded.append(step)
    return folded


def _script(lines: list[str], number: int) -> Step:
    """The ```python block that line `number` opens."""
    close = lines.index("```", number)
    made = Step(number, SCRIPT.format("\n".join(lines[number:close])))
    if lines[close + 1 : close + 3] == ["", "```text"]:
        end = lines.index("```", close + 3)
        made.shown, made.end = lines[close + 3 : end], end + 1
    return made


def blur(line: str) -> str:
    """A line without what differs from run to run: numbers, identifiers, width of columns."""
    line = NUMBER.sub("N", HEX.sub("N", line))
    return re.sub(r"[-─━]{3,}", "---", re.sub(r"\s+", " ", line)).strip()


def disagreement(shown: list[str], printed: str) -> str | None:
    """The first shown line that the output lacks, or None where they agree."""
    actual = [blur(line) for line in printed.splitlines()]
    at, loose = 0, False
    for line in shown:
        if line.strip() == "...":
            loose = True
            continue
        wanted = blur(line)
        if loose:
            while at < len(actual) and actual[at] != wanted:
                at += 1
        if at >= len(actual) or actual[at] != wanted:
            return f"shown: {line!r}\nprinted: {printed.splitlines()[at:][:1]}\nall of it:\n{printed}"
        at, loose = at + 1, False
    if shown and not loose and any(actual[at:]):
        return f"more was printed than shown:\n{printed}"
    return None


def other_shape(example: Any, printed: Any, where: str = "") -> str | None:
    """Where the keys of an example and of what was printed differ, or None; null may stand for anything."""
    if example is None or printed is None:
        return None
    if {type(example), type(printed)} == {int, float}:
        return None
    if type(example) is not type(printed):
        return f"{where or 'the whole'}: {type(example).__name__} in the example, {type(printed).__name__} printed"
    if isinstance(example, dict):
        if set(example) != set(printed):
            return f"{where or 'the whole'}: {sorted(set(example) ^ set(printed))} only on one side"
        pairs = [(f"{where}.{key}", example[key], printed[key]) for key in example]
    elif isinstance(example, list) and example:
        if not printed:
            return f"{where}: nothing printed"
        pairs = [(f"{where}[]", example[0], printed[0])]
    else:
        return None
    return next((told for at, one, other in pairs if (told := other_shape(one, other, at))), None)


def shorten(value: Any) -> Any:
    """A JSON value with one element a list of objects: the example of a shape."""
    if isinstance(value, dict):
        return {key: shorten(one) for key, one in value.items()}
    if isinstance(value, list):
        return [
            shorten(one) for one in (value[:1] if value and isinstance(value[0], (dict, list)) else value)
        ]
    return value


def tidy(printed: str) -> str:
    """What was printed without what belongs to this machine alone: the project's folder, the kernel's build."""
    release = os.uname().release
    return printed.replace(f"{ROOT}/", "").replace(release, release.split("-")[0])


def rewrite(path: Path, skip: dict[str, str]) -> None:
    """Run a file's blocks and put real output where output without ``...`` is shown."""
    from sandbox import sandbox

    text = path.read_text()
    lines = text.splitlines()
    with sandbox() as box:
        ran = [(step, box.run(step.command)) for step in steps(text) if step.command not in skip]
    for step, done in reversed(ran):
        if done.returncode != step.exit_code:
            sys.exit(f"{path}:{step.line}: {step.command}: ended {done.returncode}\n{done.stdout}")
        if step.example is not None:
            first, end = step.example_lines
            lines[first - 1 : end - 1] = tidy(
                json.dumps(shorten(json.loads(done.stdout)), indent=2)
            ).splitlines()
        if step.shown and "..." not in (line.strip() for line in step.shown):
            lines[step.end - 1 - len(step.shown) : step.end - 1] = tidy(done.stdout.rstrip("\n")).splitlines()
    path.write_text("\n".join(lines) + "\n")


SKIP = {
    "make test": "it is what runs this test",
    "make demo": "a test of its own runs it",
}
"""Commands not run as part of a file, and why."""

if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name), SKIP)
