"""Which network namespaces are there, and how does a thread work in one? (/run/netns, /proc, setns(2))."""

from __future__ import annotations

import contextlib
import errno as errno_module
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ConfigError, NetlinkError, NotFoundError, PrivilegeError, errno_text

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
RUN_NETNS = "/run/netns"
"""Where ``ip netns add`` binds names (iproute2's NETNS_RUN_DIR)."""

_OWN = "/proc/thread-self/ns/net"
_left: list[int] = []
"""Open files of the namespaces that threads have left in `enter` and will return to."""


class NetnsRef(NamedTuple):
    """A network namespace and a path that opens it."""

    inode: int
    """Of its nsfs file: what names a namespace on one machine, as in ``net:[4026531840]``."""
    name: str | None
    """As under /run/netns, None where it has none."""
    path: str
    pid: int | None = None
    """A process inside, where no name exists."""
    current: bool = False
    """The one the caller is in."""

    @property
    def label(self) -> str:
        """How people read it and `find` takes it: name, ``pid:123``, or "" for the caller's unnamed one."""
        if self.name:
            return self.name
        if self.current:
            return ""
        return f"pid:{self.pid}" if self.pid else f"net:[{self.inode}]"


def current() -> NetnsRef:
    """The namespace that the calling thread is in, with its name when it has one.

    Raises:
        NetlinkError: /proc is not there.
    """
    inode, _device = _identity(_OWN)
    name = next((one.name for one in _named() if one.inode == inode), None)
    return NetnsRef(inode, name, _OWN, current=True)


def list_named() -> list[NetnsRef]:
    """Every namespace with a name under /run/netns, sorted by it; the caller's own is marked."""
    inode, _device = _identity(_OWN)
    return sorted(
        (NetnsRef(one.inode, one.name, one.path, current=one.inode == inode) for one in _named()),
        key=lambda one: one.name or "",
    )


def find(name: str) -> NetnsRef:
    """The namespace that somebody names: ``blue``, ``pid:123``, ``net:[4026532000]``, or an nsfs file's path.

    Raises:
        NotFoundError: there is none; near names are suggested.
        PrivilegeError: another user's process is named.
        ConfigError: the path is something else than a network namespace.
    """
    inode, device = _identity(_OWN)
    if name.startswith("/"):
        found = _at_path(name, device)
    elif match := re.fullmatch(r"pid:([1-9]\d{0,9})", name):
        found = _at_path(f"/proc/{match[1]}/ns/net", device, pid=int(match[1]), shown=name)
    elif match := re.fullmatch(r"net:\[(\d{1,12})\]", name):
        wanted = int(match[1])
        chosen = next((one for one in discover(include_processes=True) if one.inode == wanted), None)
        if chosen is None:
            raise NotFoundError("network namespace", name)
        found = chosen
    else:
        named = list(_named())
        chosen = next((one for one in named if one.name == name), None)
        if chosen is None:
            raise NotFoundError(
                "network namespace",
                name,
                known=[one.name for one in named if one.name],
                hint=_unreadable_hint(),
            )
        found = chosen
    return NetnsRef(found.inode, found.name, found.path, found.pid, current=found.inode == inode)


def very(name: str | None, inode: int | None, cookie: int | None) -> NetnsRef:
    """The namespace that was once seen under a name (None: the caller's), and no other that took its place.

    Args:
        name: as `find` takes it.
        inode: what it had; None: whichever has the name.
        cookie: what it had (`cookie`); None: not known.

    Raises:
        NotFoundError: it is gone.
        PrivilegeError: it may not be looked at.
    """
    ref = current() if name is None else find(name)
    if inode is None:
        return ref
    if ref.inode != inode:
        if name is not None and not re.match(r"pid:|net:\[", name):
            raise NotFoundError("network namespace", name, hint="another one has its name now")
        ref = find(f"net:[{inode}]")  # the caller was elsewhere, or the process has ended
    if cookie is not None and cookie_of(ref) not in (None, cookie):
        raise NotFoundError(
            "network namespace", name or f"net:[{inode}]", hint="another one has its inode now"
        )
    return ref


def cookie_of(ref: NetnsRef) -> int | None:
    """What no other namespace of this boot has or had; None: before Linux 5.14."""
    from xdpctl.netlink import wire

    with enter(ref), wire.Socket(wire.NETLINK_ROUTE) as sock:
        return sock.cookie()


def discover(include_processes: bool = True) -> list[NetnsRef]:
    """Every namespace that can be seen: the caller's first, then named ones, then the rest by pid.

    Namespaces without a name are found by their mounts (container runtimes bind them) and, on request,
    through the processes inside; those of processes whose /proc entry the caller may not read stay unseen.
    """
    own = current()
    found: dict[int, NetnsRef] = {own.inode: own}
    for one in list_named():
        found.setdefault(one.inode, one)
    pids: dict[int, int] = {}
    if include_processes:
        pids = _of_processes()
        for inode, pid in pids.items():
            found.setdefault(inode, NetnsRef(inode, None, f"/proc/{pid}/ns/net", pid))
    for inode, path in _mounted():
        found.setdefault(inode, NetnsRef(inode, None, path, pids.get(inode)))
    head, *rest = found.values()
    return [head, *sorted(rest, key=lambda one: (one.name is None, one.name or "", one.pid or 0, one.inode))]


def hidden_processes() -> int:
    """How many processes' namespaces the caller may not look at (that needs CAP_SYS_PTRACE)."""
    count = 0
    for pid in _processes():
        try:
            os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115 - thousands of times
        except PermissionError:
            count += 1
        except OSError:
            continue  # gone, or a zombie
    return count


@contextlib.contextmanager
def enter(where: NetnsRef | str | None) -> Iterator[NetnsRef]:
    """Move the calling thread (it alone) into a namespace, and back at the end. None: stay.

    Only CLONE_NEWNET is changed: mounts, and so /sys/fs/bpf, stay visible, unlike under ``ip netns exec``.

    Raises:
        NotFoundError: it does not exist, or does so no longer.
        PrivilegeError: entering needs CAP_SYS_ADMIN.
        NetlinkError: the kernel refused otherwise.
    """
    if where is None:
        yield current()
        return
    ref = find(where) if isinstance(where, str) else where
    target = open_nsfs(ref)
    try:
        if ref.inode == _identity(_OWN)[0]:
            yield ref
            return
        from xdpctl.libbpf import libc

        back = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        _left.append(back)
        try:
            try:
                libc.setns(target, CLONE_NEWNET)
            except OSError as error:
                raise _refused(ref, error) from error
            try:
                yield ref
            finally:
                libc.setns(back, CLONE_NEWNET)
        finally:
            _left.remove(back)
            os.close(back)
    finally:
        os.close(target)


def open_nsfs(ref: NetnsRef) -> int:
    """A file descriptor of the namespace (the caller closes it): what setns and NETNSA_FD take.

    Raises:
        NotFoundError: it is gone.
        PrivilegeError: a process of somebody else.
        NetlinkError: the kernel refused otherwise.
    """
    try:
        descriptor = os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        refusal = error
    else:
        if os.fstat(descriptor).st_ino == ref.inode:
            return descriptor
        # the thread has moved (/proc/thread-self), or the pid or name now means another namespace
        os.close(descriptor)
        refusal = FileNotFoundError(errno_module.ENOENT, "it has gone")
    for path in _other_paths(ref.inode):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    raise _refused(ref, refusal) from refusal


def _other_paths(inode: int) -> Iterator[str]:
    yield from (f"/proc/self/fd/{one}" for one in _left if os.fstat(one).st_ino == inode)
    yield from (one.path for one in _named() if one.inode == inode)
    yield from (path for found, path in _mounted() if found == inode)
    pid = _of_processes().get(inode)
    if pid is not None:
        yield f"/proc/{pid}/ns/net"


def _refused(ref: NetnsRef, error: OSError) -> NotFoundError | PrivilegeError | NetlinkError:
    shown = ref.label or f"net:[{ref.inode}]"
    if error.errno in (errno_module.ENOENT, errno_module.ESRCH):
        return NotFoundError("network namespace", shown, hint="it has gone meanwhile")
    if error.errno in (errno_module.EPERM, errno_module.EACCES):
        return PrivilegeError(
            f"entering network namespace {shown}", capability="CAP_SYS_ADMIN", errno=error.errno
        )
    return NetlinkError(
        f"can't enter network namespace {shown}: {errno_text(error.errno or 0)}", errno=error.errno
    )


def _identity(path: str) -> tuple[int, int]:
    """Inode and device of an nsfs file."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise NetlinkError(f"can't read {path}: {error.strerror}", errno=error.errno) from error
    return found.st_ino, found.st_dev


def _named() -> Iterator[NetnsRef]:
    _inode, device = _identity(_OWN)
    try:
        entries = list(os.scandir(RUN_NETNS))
    except OSError:
        return  # nobody ever made one, or it is not for us to read
    for entry in entries:
        try:
            found = entry.stat()
        except OSError:
            continue  # removed meanwhile
        # a plain file is a name whose namespace lives in another mount namespace, or was lost at a crash
        if found.st_dev == device and not entry.is_symlink():
            yield NetnsRef(found.st_ino, entry.name, entry.path)


def _unreadable_hint() -> str | None:
    if Path(RUN_NETNS).is_dir() and not os.access(RUN_NETNS, os.R_OK | os.X_OK):
        return f"{RUN_NETNS} is not readable for you"
    return None


def _at_path(path: str, device: int, pid: int | None = None, shown: str | None = None) -> NetnsRef:
    try:
        found = Path(path).stat()
    except ValueError as error:  # a NUL inside
        raise NotFoundError("network namespace", path) from error
    except OSError as error:
        if error.errno in (errno_module.EACCES, errno_module.EPERM):
            raise PrivilegeError(
                f"looking at network namespace {shown or path}",
                capability="CAP_SYS_PTRACE",
                errno=error.errno,
            ) from error
        raise NotFoundError("network namespace", shown or path) from error
    name = next((one.name for one in _named() if one.inode == found.st_ino), None)
    try:
        is_network = found.st_dev == device and str(Path(path).readlink()).startswith("net:")
    except OSError:  # a bind mount is no symbolic link
        is_network = found.st_dev == device and any(inode == found.st_ino for inode, _path in _mounted())
    if not is_network:
        raise ConfigError(
            f"{path} is not a network namespace", hint="name one that `ip netns list` shows, or pid:N"
        )
    return NetnsRef(found.st_ino, name, path, None if name else pid)


def _mounted() -> Iterator[tuple[int, str]]:
    """Inode and mount point of every namespace bound somewhere (/proc/self/mountinfo, root ``net:[N]``)."""
    try:
        lines = (
            Path("/proc/self/mountinfo").read_bytes().decode("utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return
    for line in lines:
        words = line.split(" ")
        if len(words) > 5 and words[3].startswith("net:["):
            yield int(words[3][5:-1]), re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])


def _processes() -> list[str]:
    try:
        return [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def _of_processes() -> dict[int, int]:
    """Inode -> lowest pid of a process inside, for the processes that the caller may look at."""
    found: dict[int, int] = {}
    for pid in sorted(map(int, _processes())):
        try:
            link = os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115 - thousands of times
        except OSError:
            continue  # gone, a zombie, or somebody else's
        if not link.startswith("net:["):
            continue  # empty before 5.12 or so for a process that is just ending
        found.setdefault(int(link[5:-1]), pid)
    return found
