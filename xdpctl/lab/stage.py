"""A lab's stage: throwaway namespaces that end with the process, or kept ones that end with ``xdpctl lab clean``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from xdpctl.lab.transcript import Transcript


class Stage:
    """What a lab plays on; the same for a sandbox and for what is kept.

    Args:
        show: what prints and records.
        prefix: put before every namespace's name, so that kept ones disturb nobody's.
        made: told of every namespace before it is made.
    """

    def __init__(
        self, show: Transcript, *, prefix: str = "", made: Callable[[str], None] = lambda _: None
    ) -> None:
        self.show = show
        self.chapter, self.say, self.table = show.chapter, show.say, show.table
        self.shell, self.expect = show.shell, show.expect
        self._prefix, self._made = prefix, made

    def netns(self, name: str) -> str:
        """The full name of one of the lab's namespaces."""
        return self._prefix + name

    def namespace(self, name: str) -> str:
        """Make a namespace that sends nothing of its own; its full name."""
        full = self.netns(name)
        self._made(full)
        self.shell(f"ip netns add {full}")
        self.show.sandbox.silence(full)
        return full

    def run(self, command: str, *, inside: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command without showing it."""
        return self.show.sandbox.run(command, inside=inside)

    def pair(
        self, here: str, there: str, spaces: tuple[str, str], *, more: str = "", here_more: str = ""
    ) -> None:
        """A veth between two namespaces (full names), both ends up; `more` goes to both ends, `here_more` to one."""
        do = self.shell
        first, second = "".join(f" {one}" for one in (here_more, more) if one), f" {more}" if more else ""
        do(f"ip -n {spaces[0]} link add {here}{first} type veth peer name {there}{second} netns {spaces[1]}")
        do(f"ip -n {spaces[0]} link set {here} up")
        do(f"ip -n {spaces[1]} link set {there} up")

    def measured(self, rows: Sequence[tuple[str, object, object]]) -> None:
        """The closing table."""
        self.table(("", "before", "after"), rows)
