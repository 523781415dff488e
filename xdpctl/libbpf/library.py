"""Which libbpf is here, and its functions by name: a library loaded late, behind the table of `prototypes`.

A function is bound on first use. Its result is checked by the kind that the table gives it, so a caller sees
either a value or an exception, never a return code. One that this libbpf lacks is a stub that says which version
has it.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, Any

from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import log
from xdpctl.libbpf.prototypes import PROTOTYPES, Result

if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRONMENT = "XDPCTL_LIBBPF"
SONAME = "libbpf.so.1"

LIBBPF_ERRORS = {
    4000: "something wrong in libelf",
    4001: "BPF object format invalid",
    4002: "'version' section incorrect or lost",
    4003: "endian mismatch",
    4004: "internal error in libbpf",
    4005: "relocation failed",
    4006: "failed to load program",
    4007: "kernel verifier blocks program loading",
    4008: "program too big",
    4009: "incorrect kernel version",
    4010: "kernel doesn't support this program type",
    4011: "wrong pid in netlink message",
    4012: "invalid netlink sequence",
    4013: "incorrect netlink message parsing",
}
"""enum libbpf_errno, LIBBPF_ERRNO__LIBELF and on (libbpf.h)."""


class CallError(OSError):
    """A libbpf function or a system call failed.

    Attributes:
        function: its name.
        errno: positive errno, or one of `LIBBPF_ERRORS`.
    """

    def __init__(self, function: str, number: int) -> None:
        number = abs(number)
        super().__init__(number, LIBBPF_ERRORS.get(number) or os.strerror(number))
        self.function = function
        self.code = number
        """As `errno`, never None."""

    def __str__(self) -> str:
        return f"{self.function}: {self.strerror}"


class Library:
    """The functions of libbpf as attributes, bound on first use.

    Attributes:
        path: the file or soname it was loaded from.
        version: (major, minor).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._dll = ctypes.CDLL(path, use_errno=True)
        self.version = _version(self._dll, path)
        log.install(self._dll)

    def has(self, name: str) -> bool:
        """Whether this libbpf exports the function."""
        return hasattr(self._dll, name)

    def text(self) -> str:
        """``libbpf 1.1``, as errors name it."""
        return "libbpf {}.{}".format(*self.version)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in PROTOTYPES:
            raise AttributeError(f"{name} is not in the table of libbpf prototypes")
        bound = self._bind(name)
        setattr(self, name, bound)
        return bound

    def _bind(self, name: str) -> Callable[..., Any]:
        result, restype, argtypes, since = PROTOTYPES[name]
        try:
            function: Any = self._dll[name]
        except AttributeError:
            return _stub(name, since, self.text())
        function.argtypes = argtypes
        function.restype = restype
        if result is Result.ERROR:
            function.errcheck = _check_error
        elif result is Result.POINTER:
            function.errcheck = _check_pointer
        return function  # type: ignore[no-any-return]


def _check_error(result: int, function: Any, _: Any) -> int:
    if result < 0:
        raise CallError(function.__name__, result)
    return result


def _check_pointer(result: int | None, function: Any, _: Any) -> int:
    if not result:
        raise CallError(function.__name__, ctypes.get_errno())
    return result


def _stub(name: str, since: str, has: str) -> Callable[..., Any]:
    def missing(*_: Any) -> Any:
        raise UnsupportedError(f"{name}()", needs=f"libbpf {since}", has=has)

    return missing


def _version(dll: ctypes.CDLL, path: str) -> tuple[int, int]:
    try:
        version = (int(dll.libbpf_major_version()), int(dll.libbpf_minor_version()))
    except AttributeError:
        raise UnsupportedError(
            "xdpctl", needs="libbpf 1.0 or newer", has=f"{path}, an older one", hint="apt install libbpf1"
        ) from None
    if version < (1, 0):
        raise UnsupportedError(
            "xdpctl",
            needs="libbpf 1.0 or newer",
            has="libbpf {}.{}".format(*version),
            hint="apt install libbpf1",
        )
    return version


_library: Library | None = None


def lib() -> Library:
    """The libbpf of this process: ``libbpf.so.1``, or the file that XDPCTL_LIBBPF names.

    Raises:
        UnsupportedError: there is none, it can't be loaded, or it is older than 1.0.
    """
    global _library  # noqa: PLW0603 - one library a process, loaded when first asked for
    if _library is None:
        _library = _load(os.environ.get(ENVIRONMENT) or SONAME)
    return _library


def _load(path: str) -> Library:
    try:
        return Library(path)
    except OSError as why:
        reason = str(why)
        if re.search(r"No such file|cannot open shared object", reason) and path in reason:
            has = "a system without it" if path == SONAME else f"{path}, which does not exist"
        else:
            has = f"one that can't be loaded ({reason})"
        hint = "apt install libbpf1"
        if path != SONAME:
            hint = f"{ENVIRONMENT} names {path}; unset it for {SONAME}"
        raise UnsupportedError(
            "working with BPF", needs="libbpf.so.1 (libbpf 1.0 or newer)", has=has, hint=hint
        ) from why


def version() -> tuple[int, int]:
    """(major, minor) of this process's libbpf."""
    return lib().version


def version_string() -> str:
    """Spelling that libbpf itself gives to its version (``v1.1``)."""
    return str(lib().libbpf_version_string().decode())


def has(name: str) -> bool:
    """Whether this process's libbpf exports the function."""
    return lib().has(name)
