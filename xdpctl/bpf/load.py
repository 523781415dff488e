"""Programs and maps without an object file, for probes and small tracers (BPF_PROG_LOAD, BPF_MAP_CREATE)."""

from __future__ import annotations

from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import lib
from xdpctl.libbpf.memory import Buffer, address, buffer
from xdpctl.libbpf.opts import MapCreateOpts, ProgLoadOpts


def program(
    kind: int,
    code: bytes,
    *,
    name: str = "xdpctl_probe",
    attach_type: int = 0,
    flags: int = 0,
    attach_btf_id: int = 0,
    btf_fd: int = 0,
    log: Buffer | None = None,
) -> int:
    """Load instructions (GPL); the file descriptor is the caller's.

    Args:
        kind: program type (uapi.PROG_TYPE_...).
        code: 8 bytes an instruction.
        name: at most 15 characters.
        attach_type: expected attach type.
        flags: BPF_F_...
        attach_btf_id: kernel type or function it is for.
        btf_fd: of BTF for it.
        log: memory for the verifier's log, if it is wanted.

    Raises:
        CallError: the kernel refused.
    """
    opts = ProgLoadOpts(
        expected_attach_type=attach_type, prog_flags=flags, attach_btf_id=attach_btf_id, prog_btf_fd=btf_fd
    )
    if log is not None:
        opts.log_buf, opts.log_size, opts.log_level = address(log), len(log), 1
    return int(lib().bpf_prog_load(kind, name[:15].encode(), b"GPL", code, len(code) // 8, opts))


def map_(
    kind: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    name: str = "xdpctl_probe",
    flags: int = 0,
) -> int:
    """Create a map; the file descriptor is the caller's.

    Raises:
        CallError: the kernel refused.
    """
    opts = MapCreateOpts(map_flags=flags) if flags else None
    return int(lib().bpf_map_create(kind, name[:15].encode(), key_size, value_size, max_entries, opts))


def array(value_size: int, max_entries: int = 1) -> int:
    """Create an array map."""
    return map_(uapi.MAP_TYPE_ARRAY, 4, value_size, max_entries)


__all__ = ["array", "buffer", "map_", "program"]
