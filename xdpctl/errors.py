"""Every error that xdpctl raises on purpose, and the exit code each family ends a command with.

XdpctlError                 1   never raised itself
├── ConfigError             2   bad usage, bad file, bad value
│   └── NotFoundError       2   no such interface, namespace, program, map, file (suggests near names)
│       └── UnknownNameError  2  no such attribute of a skeleton or a value; an AttributeError too
├── CompileError            3   clang refused the source, or clang, a header or BTF is missing
├── ObjectError             4   not a BPF object that can be used: not ELF, wrong machine, truncated, no program
├── VerifierError           5   the kernel's verifier refused a program; carries the log
├── AttachError             6   attach, replace or detach failed, or would take something of somebody else's
├── MapError                7   a map operation failed
│   └── SchemaError         7   a pinned map is another one than the new object wants; carries the difference
├── NetlinkError            8   a netlink request failed; carries errno and extack
├── UnsupportedError        9   this kernel, driver or libbpf lacks a feature
├── PrivilegeError         10   a capability is missing
└── DriftError              1   observed state differs from desired state

0 is success, 1 also means "findings", 2 is click's own usage error, 70 is a defect of ours,
130 is Ctrl-C. One line says what failed on which object and why; the hint says what to type.
"""

from __future__ import annotations

import difflib
import errno as errno_module
import os
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


def errno_name(number: int | None) -> str | None:
    """Name of an errno (``-95``, ``95`` -> ``"EOPNOTSUPP"``), or None where there is none."""
    if not number:
        return None
    number = abs(number)
    if number == 95:  # ENOTSUP and EOPNOTSUPP share 95 on Linux; the kernel says EOPNOTSUPP
        return "EOPNOTSUPP"
    if number == 524:  # include/linux/errno.h, kernel-internal but it leaks out of bpf(2)
        return "ENOTSUPP"
    return errno_module.errorcode.get(number, f"E{number}")


def errno_text(number: int) -> str:
    """``EOPNOTSUPP (Operation not supported)`` for an errno of either sign."""
    return f"{errno_name(number)} ({os.strerror(abs(number))})"


def near(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates (at most three) that a user may have meant by `name`, best first."""
    return difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)


class XdpctlError(Exception):
    """A failure told in words: one line, a hint of what to type, and an exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message  # which grows where more is known: what was put back, the whole name

    def to_json(self) -> dict[str, Any]:
        """The error as the ``error`` object of ``--json`` output."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class ConfigError(XdpctlError):
    """Bad usage, a bad file or a bad value; nothing was changed."""

    exit_code = 2


class NotFoundError(ConfigError):
    """Something named by the user does not exist.

    Args:
        what: kind of thing, as read in a sentence ("interface", "network namespace").
        name: the name that was not found.
        known: names that exist; near ones become the hint.
        where: where it was looked for ("network namespace blue").
    """

    def __init__(
        self,
        what: str,
        name: str,
        *,
        known: Iterable[str] = (),
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        known = sorted(set(known))
        close = near(name, known)
        if hint is None and close:
            hint = f"did you mean {', '.join(close)}?"
        elif hint is None and known and len(known) <= 12:
            hint = f"there is {', '.join(known)}"
        super().__init__(f"no such {what}: {name}" + (f" (in {where})" if where else ""), hint=hint)
        self.what = what
        self.name = name
        self.near = close


class UnknownNameError(NotFoundError, AttributeError):  # type: ignore[misc]  # AttributeError.name is the same string
    """A skeleton, or a struct of its globals and maps, has no attribute of this name (``hasattr`` works)."""


class CompileError(XdpctlError):
    """clang refused a source, or something needed to compile is missing.

    Attributes:
        diagnostics: clang's own output, with file, line and caret.
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, diagnostics: str = "") -> None:
        super().__init__(message, hint=hint)
        self.diagnostics = diagnostics

    def to_json(self) -> dict[str, Any]:
        """The same, and the attributes above."""
        return {**super().to_json(), "diagnostics": self.diagnostics}


class ObjectError(XdpctlError):
    """An object file that can't be used, or can't be used in this way."""

    exit_code = 4


class VerifierError(XdpctlError):
    """The verifier refused a program.

    Attributes:
        program: name of the program.
        line: the telling line of the log.
        source: C source line it belongs to ("file.c:12: text"), if line info is there.
        log: the whole log.
        log_file: where the whole log was saved, if it was.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        program: str,
        line: str,
        source: str | None = None,
        log: str = "",
        log_file: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.program = program
        self.line = line
        self.source = source
        self.log = log
        self.log_file = log_file

    def to_json(self) -> dict[str, Any]:
        """The same, and the attributes above."""
        return {
            **super().to_json(),
            "program": self.program,
            "line": self.line,
            "source": self.source,
            "log_file": str(self.log_file) if self.log_file else None,
        }


class KernelError(XdpctlError):
    """Base of the errors that carry what the kernel answered.

    Attributes:
        errno: positive errno, or None where no system call was made.
        extack: the kernel's own sentence, verbatim, if it gave one.
    """

    def __init__(
        self, message: str, *, errno: int | None = None, extack: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = abs(errno) if errno else None
        self.extack = extack

    def to_json(self) -> dict[str, Any]:
        """The same, and the attributes above."""
        return {**super().to_json(), "errno": errno_name(self.errno), "extack": self.extack}


class AttachError(KernelError):
    """An attach, replace or detach failed, or was refused by us to spare somebody else's program."""

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        program: str | None = None,
        interface: str | None = None,
        mode: str | None = None,
        errno: int | None = None,
        extack: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, extack=extack, hint=hint)
        self.program = program
        self.interface = interface
        self.mode = mode

    def to_json(self) -> dict[str, Any]:
        """The same, and the attributes above."""
        return {**super().to_json(), "program": self.program, "interface": self.interface, "mode": self.mode}


class MapError(KernelError):
    """A map operation failed."""

    exit_code = 7


class SchemaError(MapError):
    """A map that is there differs from what a new object wants in its place.

    Attributes:
        diagnostics: the difference, field by field, for people.
        differences: the same as data, one a map.
    """

    def __init__(
        self,
        message: str,
        *,
        diagnostics: str = "",
        differences: Iterable[dict[str, Any]] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.diagnostics = diagnostics
        self.differences = list(differences)

    def to_json(self) -> dict[str, Any]:
        """The same, and the differences."""
        return {**super().to_json(), "differences": self.differences}


class NetlinkError(KernelError):
    """A netlink request failed.

    Attributes:
        attribute: the one of the request that the kernel points at, by its name in the specification.
    """

    exit_code = 8

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        extack: str | None = None,
        hint: str | None = None,
        attribute: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, extack=extack, hint=hint)
        self.attribute = attribute

    def to_json(self) -> dict[str, Any]:
        """The same, and the attributes above."""
        return {**super().to_json(), "attribute": self.attribute}


class UnsupportedError(KernelError):
    """A feature is missing here.

    Args:
        feature: what was asked for.
        needs: what would have it ("libbpf 1.3", "Linux 6.6").
        has: what is here.
    """

    exit_code = 9

    def __init__(
        self,
        feature: str,
        *,
        needs: str,
        has: str,
        errno: int | None = None,
        extack: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{feature} needs {needs}, this is {has}", errno=errno, extack=extack, hint=hint)
        self.feature = feature
        self.needs = needs
        self.has = has


class PrivilegeError(KernelError):
    """A capability is missing.

    Args:
        action: what was tried.
        capability: what it needs ("CAP_NET_ADMIN", or several joined by " and ").
    """

    exit_code = 10

    def __init__(
        self, action: str, *, capability: str, errno: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(
            f"{action}: not permitted, needs {capability}",
            errno=errno,
            hint=hint or "run it as root, with sudo",
        )
        self.capability = capability


class DriftError(XdpctlError):
    """Observed state differs from desired state."""

    exit_code = 1
