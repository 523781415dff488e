"""What the verifier's log says: the line that tells why, the C source line it belongs to, and where the log is kept.

The log is that of log_level 1 (kernel/bpf/log.c, verifier.c): source comments (``; code @ file.c:12``; the file and
line from Linux 6.9 on), instructions, register states, the verdict, and statistics.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from xdpctl.errors import VerifierError

_STATISTICS = re.compile(
    r"processed \d+ insns|verification time|stack depth|insns processed|max_states|peak_states|mark_read|total_states"
)
_TRACE = re.compile(
    r"\d+: \(|\d+: R\d|\d+: safe|\d+: \.|R\d+(_\w+)?=|from \d+ to \d+|; |;$|fp-\d+|\s*$"
    r"|func#\d+ @\d+|Func#\d+ |Validating |caller:|callee:|returning from callee|to caller at"
    r"|cur state:|old state:|mark_precise:|last_idx|regs=|parent |propagating|arg#\d+ =|Live regs before insn:"
)
_SOURCE = re.compile(r"; (?P<text>.*?)(?: @ (?P<file>[^@]+):(?P<line>\d+))?$")
_INSTRUCTION = re.compile(r"(\d+): \(")


class Telling(NamedTuple):
    """The gist of a verifier log."""

    line: str
    """The line that says why."""
    source: str | None
    """``file.c:12: code``, or just the code where the log has no file."""
    text: str | None
    """The code alone."""
    instruction: int | None
    """Index of the instruction that was refused."""


def telling(log: str) -> Telling:
    """Find the line that says why a program was refused, and where in the source that is.

    The verdict is the last line that is neither statistics nor part of the trace; the source line is the last comment
    before it.
    """
    lines = log.splitlines()
    at = len(lines) - 1
    while at >= 0 and (_STATISTICS.match(lines[at]) or _TRACE.match(lines[at])):
        at -= 1
    if at < 0:  # nothing but trace: the last line of it is the best there is
        at = next(
            (i for i in reversed(range(len(lines))) if not _STATISTICS.match(lines[i]) and lines[i]), -1
        )
    source = text = instruction = None
    for line in reversed(lines[: at + 1]):
        if instruction is None and (found := _INSTRUCTION.match(line)):
            instruction = int(found[1])
        if found := _SOURCE.match(line):
            text = found["text"].strip()
            source = f"{found['file']}:{found['line']}: {text}" if found["file"] else text
            break
    return Telling(lines[at].strip() if at >= 0 else "", source, text, instruction)


def keep(log: str, program: str) -> Path | None:
    """Save a log into a new file that only we may read, below XDG_STATE_HOME or in a temporary place.

    Returns:
        the file, or None where it can't be written: a lost log must not hide the error.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", program)[:60]
    state = os.environ.get("XDG_STATE_HOME")
    for folder in (Path(state) / "xdpctl" if state else None, None):
        with contextlib.suppress(OSError):
            if folder:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # O_EXCL, mode 0600, a random name: safe in a directory that others can write to
            fd, name = tempfile.mkstemp(prefix=f"xdpctl-verifier-{safe}-", suffix=".log", dir=folder)
            with os.fdopen(fd, "w", encoding="utf-8") as out:
                out.write(log)
            return Path(name)
    return None


def rejected(
    program: str, path: Path | None, log: str, *, section: str | None = None, truncated: bool = False
) -> VerifierError:
    """The error for a program that the verifier refused.

    Args:
        program: its name.
        path: the object file, whose BTF gives the source line where the kernel's log does not.
        log: the verifier's log, not empty.
        section: of the program.
        truncated: whether the log was longer than the room for it; kernels before 6.4 keep its beginning.
    """
    why = telling(log)
    source = why.source
    if source and source == why.text and path:
        from xdpctl.bpf.lineinfo import where

        source = where(path, section, why.text) or source
    kept = keep(log, program)
    of = f" of {path.name}" if path else ""
    return VerifierError(
        f"the verifier rejected program {program}{of}: {why.line}" + (f" (at {source})" if source else ""),
        program=program,
        line=why.line,
        source=source,
        log=log,
        log_file=kept,
        hint=f"{'what there was room for of the log' if truncated else 'the whole log'} is in {kept}"
        if kept
        else None,
    )
