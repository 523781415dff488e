"""One program: of an object, before and after load, or of the kernel by its id (libbpf.h, struct bpf_program)."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import pins, query
from xdpctl.bpf.failure import denied
from xdpctl.errors import AttachError, ConfigError, UnsupportedError, errno_text
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import TestRunOpts

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.bpf.object import Object


class TestRun(NamedTuple):
    """What BPF_PROG_TEST_RUN brought back."""

    retval: int
    """The program's return value (an XDP or TC action)."""
    data_out: bytes
    """The frame afterwards; empty in live-frame mode."""
    duration_ns: int
    """Mean of one run."""
    ctx_out: bytes = b""


class Program:
    """A program of an object.

    Setters work before the object is loaded, `fd` and what uses it after.
    """

    __slots__ = ("_object", "_pointer", "name", "section")

    def __init__(self, owner: Object, pointer: int) -> None:
        self._object = owner  # keeps the memory behind the pointer
        self._pointer = pointer
        self.name: str = lib().bpf_program__name(pointer).decode(errors="replace")
        self.section: str = lib().bpf_program__section_name(pointer).decode(errors="replace")

    @property
    def _at(self) -> int:
        self._object.opened()  # or the pointer leads nowhere
        return self._pointer

    def __repr__(self) -> str:
        return f"<Program {self.name} ({self.type}, section {self.section})>"

    @property
    def type(self) -> str:
        """Name of its type (``xdp``, ``sched_cls``); ``unspec`` where libbpf knows nothing from the section."""
        return uapi.name_of(uapi.PROG_TYPES, lib().bpf_program__type(self._at))

    @property
    def expected_attach_type(self) -> int:
        """Attach type it is loaded for (uapi.XDP, TCX_INGRESS, ...); 0 is also "none"."""
        return int(lib().bpf_program__expected_attach_type(self._at))

    @property
    def flags(self) -> int:
        """BPF_F_... that were set; what its section adds at load (``xdp.frags``, ``.s``) is not among them."""
        return int(lib().bpf_program__flags(self._at))

    @property
    def autoload(self) -> bool:
        """Whether loading the object loads it."""
        return bool(lib().bpf_program__autoload(self._at))

    @property
    def loaded(self) -> bool:
        """Whether it is in the kernel."""
        return int(lib().bpf_program__fd(self._at)) >= 0

    @property
    def fd(self) -> int:
        """File descriptor, owned by the object.

        Raises:
            ConfigError: it is not loaded.
        """
        fd = int(lib().bpf_program__fd(self._at))
        if fd < 0:
            raise ConfigError(f"program {self.name} is not loaded")
        return fd

    @property
    def address(self) -> int:
        """Address of libbpf's ``struct bpf_program``, valid while the object is open."""
        return self._at

    def set_type(self, kind: str | int, attach_type: int | None = None) -> None:
        """Load as this program type, whatever the section name says.

        Raises:
            ConfigError: no such type, or the object is loaded already.
        """
        if isinstance(kind, str):
            if kind not in uapi.PROG_TYPES:
                raise ConfigError(
                    f"no such program type: {kind}", hint=f"one of {', '.join(uapi.PROG_TYPES[1:])}"
                )
            kind = uapi.PROG_TYPES.index(kind)
        self._set("bpf_program__set_type", kind)
        if attach_type is not None:
            self._set("bpf_program__set_expected_attach_type", attach_type)

    def set_attach_type(self, attach_type: int) -> None:
        """Load for this attach type (uapi.TCX_INGRESS on libbpf that does not know the section ``tcx/ingress``)."""
        self._set("bpf_program__set_expected_attach_type", attach_type)

    def set_flags(self, flags: int) -> None:
        """Load with exactly these flags (BPF_F_XDP_HAS_FRAGS, ...)."""
        self._set("bpf_program__set_flags", flags)

    def set_autoload(self, wanted: bool) -> None:
        """Load it with the object, or leave it out."""
        self._set("bpf_program__set_autoload", wanted)

    def set_attach_target(self, program_fd: int, function: str) -> None:
        """Attach to `function` of a loaded program (fentry, freplace), or of the kernel with fd 0."""
        self._set("bpf_program__set_attach_target", program_fd, function.encode())

    def set_ifindex(self, ifindex: int, *, offload: bool) -> None:
        """Bind to a device: offloaded to it, or only bound (metadata kfuncs, Linux 6.3).

        Maps of an offloaded program must be on the device too: `Map.set_ifindex`.
        """
        if not offload:
            self.set_flags(self.flags | uapi.BPF_F_XDP_DEV_BOUND_ONLY)
        lib().bpf_program__set_ifindex(self._at, ifindex)

    def _set(self, function: str, *values: int | bool | bytes) -> None:
        try:
            getattr(lib(), function)(self._at, *values)
        except CallError as why:
            raise ConfigError(f"program {self.name}: {function} refused: {errno_text(why.code)}") from why

    def info(self) -> query.ProgramInfo:
        """What the kernel says about it."""
        return query.program_info(self.fd)

    def pin(self, path: Path) -> None:
        """Pin it; see `pins.pin`."""
        pins.pin(self.fd, path)

    def test_run(
        self,
        data: bytes,
        *,
        repeat: int = 1,
        ifindex: int = 0,
        live_frames: bool = False,
        ctx: bytes | None = None,
        batch_size: int = 0,
    ) -> TestRun:
        """Run it on a frame; see `run`."""
        return run(
            self.fd,
            data,
            repeat=repeat,
            ifindex=ifindex,
            live_frames=live_frames,
            ctx=ctx,
            batch_size=batch_size,
        )


class LoadedProgram:
    """A program that is in the kernel already, held by a file descriptor of its own."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def info(self) -> query.ProgramInfo:
        """What the kernel says about it."""
        return query.program_info(self.fd)

    def pin(self, path: Path) -> None:
        """Pin it; see `pins.pin`."""
        pins.pin(self.fd, path)


def program_by_id(program_id: int) -> LoadedProgram:
    """The loaded program with this id; close it, or use it as a context manager.

    Raises:
        NotFoundError: there is none.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    return LoadedProgram(query.open_id("program", program_id))


XDP_MD = struct.Struct("=6I")
"""struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
SK_BUFF_SIZE, SK_BUFF_IFINDEX = 192, 40
"""sizeof(struct __sk_buff) and offset of its ifindex."""


def _context(kind: str, size: int, ifindex: int) -> bytes:
    """The context that makes a test run on `ifindex` (xdp_convert_md_to_buff, convert___skb_to_skb)."""
    if kind == "xdp":
        return XDP_MD.pack(0, size, 0, ifindex, 0, 0)
    context = bytearray(SK_BUFF_SIZE)
    struct.pack_into("=I", context, SK_BUFF_IFINDEX, ifindex)
    return bytes(context)


def run(
    fd: int,
    data: bytes,
    *,
    repeat: int = 1,
    ifindex: int = 0,
    live_frames: bool = False,
    ctx: bytes | None = None,
    batch_size: int = 0,
) -> TestRun:
    """Run a loaded program on a frame (BPF_PROG_TEST_RUN, net/bpf/test_run.c).

    Args:
        fd: of the program.
        data: the frame, from its Ethernet header, at least 14 bytes.
        repeat: how often.
        ifindex: device it seems to come in on; 0: the namespace's lo.
        live_frames: let XDP_TX, REDIRECT and PASS really happen (Linux 5.18).
        ctx: the context (struct xdp_md or __sk_buff) instead of one made from `ifindex`.
        batch_size: frames at once in live-frame mode, 0: the kernel's 64.

    Raises:
        UnsupportedError: the kernel can't run this type, or has no live frames.
        AttachError: the kernel refused (a frame too short or too long for the device's frame size, ...).
        PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
    """
    from xdpctl.bpf import features  # its import would delay an attach, which runs nothing

    if live_frames and not features.probe("live_frames"):  # an older kernel would take no notice of the flag
        raise UnsupportedError("a test run with live frames", needs="Linux 5.18", has="an older one")
    if ctx is None and ifindex:
        ctx = _context(query.program_info(fd).type, len(data), ifindex)
    out = memory.buffer(0 if live_frames else len(data) + 4096)
    frame, context = memory.buffer(len(data), data), memory.buffer(len(ctx or b""), ctx or b"")
    context_out = memory.buffer(len(ctx or b""))
    opts = TestRunOpts(
        data_in=memory.address(frame),
        data_size_in=len(data),
        repeat=repeat,
        flags=uapi.BPF_F_TEST_XDP_LIVE_FRAMES if live_frames else 0,
        batch_size=batch_size,
    )
    if not live_frames:
        opts.data_out, opts.data_size_out = memory.address(out), len(data) + 4096
    if ctx:
        opts.ctx_in, opts.ctx_size_in = memory.address(context), len(ctx)
        if not live_frames:
            opts.ctx_out, opts.ctx_size_out = memory.address(context_out), len(ctx)
    try:
        lib().bpf_prog_test_run_opts(fd, opts)
    except CallError as why:
        if ctx and why.code == errno.EINVAL and not features.probe("test_run_context"):
            raise UnsupportedError(
                "a test run with a context (ifindex)", needs="Linux 5.15", has="an older one", errno=why.code
            ) from why
        if why.code == 524:  # ENOTSUPP: no test_run for the type
            raise UnsupportedError(
                "a test run", needs="a program type that can be run", has=query.program_info(fd).type
            ) from why
        raise denied("test run", why, "CAP_NET_ADMIN", "CAP_BPF") or AttachError(
            f"test run of program {query.program_info(fd).name}: {errno_text(why.code)}", errno=why.code
        ) from why
    return TestRun(
        retval=opts.retval,
        data_out=b"" if live_frames else out.raw[: opts.data_size_out],
        duration_ns=opts.duration,
        ctx_out=context_out.raw[: opts.ctx_size_out] if ctx and not live_frames else b"",
    )
