"""What an object file says without loading it: plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.btf.ext import BtfExt
    from xdpctl.btf.parse import Btf
    from xdpctl.obj.code import Section


@dataclass(frozen=True, slots=True)
class RedirectCall:
    """One redirect call site found in a program's instructions."""

    helper: str
    """bpf_redirect, bpf_redirect_map, bpf_redirect_peer, bpf_redirect_neigh, bpf_clone_redirect."""
    offset: int
    """Instruction index within the program's section."""
    map: str | None = None
    """Map that feeds bpf_redirect_map."""
    ifindex: int | None = None
    """Constant target, where it is one."""
    variable: str | None = None
    """Global that holds the target, or the key of bpf_redirect_map, as `--set` names it: `target_ifindex`,
    `cfg.out`, `targets[2]`, or `targets[*]` for an element that only runs can know."""
    key: int | None = None
    """Constant key into the map, where it is one."""
    flags: int | None = None
    section: str = ""
    """Section of `offset`; not the program's own where a subprogram redirects."""
    origin: str | None = None
    """What else feeds the target, or the key of bpf_redirect_map: `ctx->ingress_ifindex` (back to where the frame
    came from), `ctx->rx_queue_index`, `bpf_fib_lookup` (the routing table), `a value of map NAME`, a helper."""
    origin_map: str | None = None
    """Map whose value holds the ifindex."""
    line: int | None = None
    """Line in the C source, from line info."""


@dataclass(frozen=True, slots=True)
class ObjProgram:
    """One program of an object."""

    name: str
    section: str
    type: str | None
    """libbpf's name (xdp, sched_cls, tracepoint, ...); None: the section name says nothing."""
    attach_type: str | None
    """xdp, xdp/devmap, xdp/cpumap, tcx/ingress, tcx/egress, ...; None: none or unknown."""
    type_from: str
    """section: libbpf knows the name; alias: we recognise it safely and load it with the type set; none."""
    since_libbpf: str | None
    """libbpf that first takes this section name; None: all from 1.0, or none."""
    frags: bool
    sleepable: bool
    instructions: int
    source: str | None = None
    """C source file of its first line, from line info."""
    helpers: tuple[str, ...] = ()
    kfuncs: tuple[str, ...] = ()
    subprograms: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    tail_calls: tuple[str, ...] = ()
    """prog_array maps it tail-calls through."""
    redirects: tuple[RedirectCall, ...] = ()
    attach_target: str | None = None
    """Function named by the section (fentry/..., freplace/...)."""
    returns_tx: bool | None = None
    """A path returns the constant XDP_TX; None: could not be told."""
    adjusts: tuple[str, ...] = ()
    """head, tail, meta: what bpf_xdp_adjust_* it calls."""
    autoload: bool = True
    """False for SEC("?..."): loaded only when asked for."""
    hook: str | None = None
    """ingress or egress, where the section name says so."""
    core_relocations: int = 0
    """Instructions that libbpf patches from the kernel's BTF."""
    line: int | None = None
    """Line in `source`."""
    start: int = 0
    """Its first instruction in the section."""

    @property
    def rx_metadata(self) -> tuple[str, ...]:
        """Kfuncs of the driver (bpf_xdp_metadata_rx_hash, ...): it loads only when bound to a device (6.3)."""
        return tuple(one for one in self.kfuncs if one.startswith("bpf_xdp_metadata_"))


@dataclass(frozen=True, slots=True)
class ObjMap:
    """One map of an object."""

    name: str
    type: str
    """Kernel's name in lower case (hash, devmap, percpu_array)."""
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    definition: str
    """btf: SEC(".maps"); legacy: SEC("maps"); internal: .rodata, .data, .bss, .kconfig."""
    pin: str | None = None
    """Path that LIBBPF_PIN_BY_NAME would make below the pin root; None: not pinned by itself."""
    key_type: str | None = None
    value_type: str | None = None
    inner: str | None = None
    """Type of the inner maps (`array`), for array_of_maps and hash_of_maps."""
    key_type_id: int = 0
    """BTF id of the key's type in the object; 0: only a size is given."""
    value_type_id: int = 0
    values: tuple[str, ...] = ()
    """Programs or maps that the definition puts into it (`.values`), by name; an empty slot is an empty name."""
    numa_node: int | None = None
    map_extra: int = 0
    inner_map: ObjMap | None = None
    """The inner map's definition, where one is given."""


@dataclass(frozen=True, slots=True)
class ObjGlobal:
    """One global variable."""

    name: str
    section: str
    """.rodata, .data, .bss, .data.NAME, .rodata.NAME, .kconfig."""
    type: str
    """C type as BTF gives it (`__u32`, `struct in6_addr`)."""
    offset: int
    size: int
    value: Any
    """Decoded where the type is known, else the bytes in hex."""
    kind: str
    """int, uint, bool, char, enum, float, array, struct, union, pointer, unknown."""
    writable: bool
    """False for .rodata after load; both may be set before."""
    type_id: int = 0
    """BTF id of the type in the object; 0 without BTF."""
    initial: bytes = field(default=b"", repr=False)
    """Initial bytes; empty: zero, or more than a page."""
    static: bool = False
    """`static` in C: two sources linked together may each have one of this name."""


@dataclass(frozen=True, slots=True)
class ObjExtern:
    """Something that libbpf has to find in the kernel at load."""

    name: str
    kind: str
    """kfunc, ksym (a kernel variable), kconfig, or unknown: no BTF describes it."""
    weak: bool
    """`__weak`: it may be missing; its address or value is 0 then."""
    type: str | None = None
    """C type of a variable; None for a function and for `extern const void`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why the object would not load as it is."""

    id: str
    """unknown-section, legacy-maps, max-entries-zero, cpumap-too-large, missing-kfunc, no-btf, ..."""
    severity: str
    """fail: loading is refused; warn: it loads but is not what one would think; unknown: can't be told here."""
    where: str
    """Program or map it is about, "" for the object."""
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class ObjFile:
    """An object file."""

    path: Path
    size: int
    license: str | None
    has_btf: bool
    has_btf_ext: bool
    has_line_info: bool
    programs: tuple[ObjProgram, ...]
    maps: tuple[ObjMap, ...]
    globals: tuple[ObjGlobal, ...]
    kconfig: tuple[str, ...] = ()
    ksyms: tuple[str, ...] = ()
    btf_producer: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    byte_order: str = "little"
    core_relocations: int = 0
    flaws: tuple[Problem, ...] = ()
    """What libbpf refuses whatever the kernel: found while reading."""
    externs: tuple[ObjExtern, ...] = ()
    btf: Btf | None = field(default=None, compare=False, repr=False)
    """The object's own types, for `obj.globals` and skeletons."""
    ext: BtfExt | None = field(default=None, compare=False, repr=False)
    """Its line info and CO-RE relocations."""
    code: dict[str, Section] = field(default_factory=dict, compare=False, repr=False)
    """Its instructions, by section."""

    def program(self, name: str) -> ObjProgram | None:
        """The program by its C function name."""
        for one in self.programs:  # asked for each of hundreds of attachments: no generator
            if one.name == name:
                return one
        return None

    def map(self, name: str) -> ObjMap | None:
        """The map by name."""
        return next((one for one in self.maps if one.name == name), None)

    def global_(self, name: str) -> ObjGlobal | None:
        """The global by name."""
        return next((one for one in self.globals if one.name == name), None)
