"""The table of commands, and the one place where errors become words and exit codes.

Nothing is imported here before `main` can answer for it: a Ctrl-C while Python reads modules ends in a word too.
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TextIO

    from xdpctl.errors import XdpctlError

COMMANDS = {
    "apply": "xdpctl.cli.apply",
    "attach": "xdpctl.cli.attach",
    "build": "xdpctl.cli.build",
    "check-boot": "xdpctl.cli.check_boot",
    "destroy": "xdpctl.cli.destroy",
    "detach": "xdpctl.cli.detach",
    "doctor": "xdpctl.cli.doctor",
    "drift": "xdpctl.cli.drift",
    "driver": "xdpctl.cli.driver",
    "explain": "xdpctl.cli.explain",
    "export": "xdpctl.cli.export",
    "gen": "xdpctl.cli.gen",
    "history": "xdpctl.cli.history",
    "inspect": "xdpctl.cli.inspect",
    "lab": "xdpctl.cli.lab",
    "map": "xdpctl.cli.map",
    "metrics": "xdpctl.cli.metrics",
    "plan": "xdpctl.cli.plan",
    "pool": "xdpctl.cli.pool",
    "rollback": "xdpctl.cli.rollback",
    "schema": "xdpctl.cli.schema",
    "snapshot": "xdpctl.cli.snapshot",
    "stats": "xdpctl.cli.stats",
    "status": "xdpctl.cli.status",
    "top": "xdpctl.cli.top",
    "topology": "xdpctl.cli.topology",
    "trace": "xdpctl.cli.trace",
    "unit": "xdpctl.cli.unit",
    "validate": "xdpctl.cli.validate",
}
"""Command name -> module with an `app`; a module is imported only when its command is asked for."""

EXIT_OUTPUT = 74
"""stdout could not be written (sysexits.h's EX_IOERR); what the command did before stands."""


class OutputClosed(Exception):  # noqa: N818 - the reader went away (`xdpctl status | head`): no failure of ours
    """Whoever read our output has closed it."""


class OutputFailed(Exception):  # noqa: N818 - told in `_run`, not one of the error tree: the command itself succeeded
    """stdout could not be written (a full disk, /dev/full)."""


class Output:
    """stdout, with its failures told apart from every other OSError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; see the class."""
        return int(self._guarded(self._stream.write, text))

    def flush(self) -> None:
        """Flush; see the class."""
        self._guarded(self._stream.flush)

    def _guarded(self, do: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return do(*arguments)
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            raise OutputFailed(error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Unheard:
    """stdout while the machine is changed: what can't be written is left out, and what is being done goes on.

    Attributes:
        failed: why it could not be written; None where it could, or nobody was reading.
    """

    def __init__(self, stream: TextIO | Output) -> None:
        self._stream = stream
        self._over = False
        self.failed: OutputFailed | None = None

    def write(self, text: str) -> int:
        """Write text, or don't."""
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or don't."""
        self._tried(self._stream.flush)

    def _tried(self, do: Callable[[], Any]) -> None:
        if self._over:
            return
        try:
            do()
        except OutputClosed:
            self._over = True
        except OutputFailed as error:
            self._over, self.failed = True, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is returned, never a traceback shown (XDPCTL_DEBUG=1 shows it)."""
    stdout = sys.stdout
    # a command makes many objects, keeps most, and ends: looking for cycles among them is a tenth of its time
    gc.set_threshold(300_000, 10, 10)
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return _interrupted()
    finally:
        sys.stdout = stdout
        if (
            argv is None
        ):  # the process ends now, which frees everything: Python need not look for cycles first
            gc.freeze()


def _run(arguments: list[str]) -> int:
    import os

    from xdpctl.errors import EXIT_INTERNAL, XdpctlError

    _open_standard_streams()
    as_json = "--json" in arguments
    debug = bool(os.environ.get("XDPCTL_DEBUG"))
    try:
        from xdpctl.cli.app import run

        result = run(arguments)
        if result == 130:  # typer's word for KeyboardInterrupt
            return _interrupted()
        sys.stdout.flush()
    except OutputClosed:
        _silence_stdout()
        return 0
    except OutputFailed as error:
        _silence_stdout()
        sys.stderr.write(f"xdpctl: error: can't write the output: {error}\n")
        return EXIT_OUTPUT
    except SystemExit as stop:  # completion and click's own way to end
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except XdpctlError as error:
        if debug:
            raise
        return report(error, as_json=as_json)
    except Exception as error:
        if _due_to_interrupt(error):
            return _interrupted()
        usage = _usage_error(error) or _about_a_file(error)
        if usage is not None:
            return report(usage, as_json=as_json)
        if debug:
            raise
        sys.stderr.write(
            f"xdpctl: internal error: {type(error).__name__}: {error}\n"
            "hint: this is a defect of xdpctl; XDPCTL_DEBUG=1 shows where it happened\n"
        )
        return EXIT_INTERNAL
    return result if isinstance(result, int) else 0


def report(error: XdpctlError, *, as_json: bool) -> int:
    """Print an error (to stderr; with --json its object to stdout too), and return its exit code."""
    from xdpctl.cli.output import print_error

    try:
        print_error(error, as_json=as_json)
        sys.stdout.flush()
    except (OutputClosed, OutputFailed):
        _silence_stdout()
    return error.exit_code


def _usage_error(error: Exception) -> XdpctlError | None:
    """Our error for one of click's, None when it is none; help due to an empty command line is printed."""
    from typer._click.exceptions import ClickException, NoArgsIsHelpError

    from xdpctl.errors import ConfigError

    if not isinstance(error, ClickException):
        return None
    context = getattr(error, "ctx", None)
    if isinstance(error, NoArgsIsHelpError):
        sys.stderr.write(error.format_message().rstrip() + "\n")
        return ConfigError("no command given", hint="xdpctl --help")
    command = context.command_path if context is not None else "xdpctl"
    return ConfigError(error.format_message().rstrip("."), hint=f"{command} --help")


def _about_a_file(error: Exception) -> XdpctlError | None:
    """Our error for a file that the system refuses (a folder that we may not search, a name too long), or None."""
    from xdpctl.errors import ConfigError

    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return None
    return ConfigError(f"can't use {error.filename}: {(error.strerror or str(error)).lower()}")


def _due_to_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: Python wraps what is raised while a class is made (``__set_name__``) or imported."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _interrupted() -> int:
    from xdpctl.errors import EXIT_INTERRUPTED

    sys.stderr.write("xdpctl: interrupted\n")
    return EXIT_INTERRUPTED


def _silence_stdout() -> None:
    """Point stdout at /dev/null: Python flushes once more at its end, and would complain."""
    import contextlib
    import os

    with contextlib.suppress(OSError, ValueError, OutputClosed, OutputFailed):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


def _open_standard_streams() -> None:
    """Fill descriptors 0 to 2 where the caller closed them: or else a socket becomes stdout."""
    import os

    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, stream) is None:
            setattr(sys, stream, os.fdopen(number, "w" if number else "r", closefd=False))
    for output in (sys.stdout, sys.stderr):
        # names come from files, the kernel and the user: bytes that are no text must not stop a message
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stdout, Output):
        sys.stdout = Output(sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
