"""Global variables of an object as attributes: libbpf's memory before load, the kernel's (mmap) after it.

Each data section is a map of one element (libbpf.c, bpf_object__init_internal_map) whose BTF_KIND_DATASEC names and
types its variables. ``.rodata`` is frozen by the load; ``.data`` and ``.bss`` stay shared with the programs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from xdpctl.btf import views
from xdpctl.btf.layout import StructLayout, layout
from xdpctl.btf.parse import DATASEC
from xdpctl.btf.types import Section
from xdpctl.errors import ObjectError
from xdpctl.libbpf import memory

if TYPE_CHECKING:
    import mmap

    from xdpctl.bpf.map import Map
    from xdpctl.bpf.object import Object
    from xdpctl.btf.parse import Btf
    from xdpctl.skeleton.states import Life

FROZEN = "it is constant since the load; set it between open() and load()"


def attribute(section: str) -> str:
    """The name of a section as an attribute: ``.rodata`` is ``rodata``, ``.data.hot`` is ``data_hot``."""
    return "".join(one if one.isalnum() else "_" for one in section.lstrip("."))


def section_of(map_: Map) -> str | None:
    """Section that an internal map holds: libbpf names it ``NAME.bss``, or ``.data.hot`` in full; None: no such map."""
    if not map_.internal or "." not in map_.name:
        return None
    return map_.name[map_.name.index(".") :]


def described(btf: Btf) -> dict[str, Section]:
    """The sections whose variables BTF describes, by name."""
    return {one.name: one for one in btf.of_kind(DATASEC) if isinstance(one, Section)}


class Globals:
    """One section's memory and the view of it, through a skeleton's life."""

    def __init__(self, life: Life, map_: Map, section: Section, btf: Btf, owner: Object) -> None:
        self._life = life
        self._owner = owner
        self._map = map_
        self._section = section
        self._mapping: mmap.mmap | None = None
        self._memory: views.Memory | None = None
        made = layout(btf, section.id)
        if not isinstance(made, StructLayout) or made.size > map_.value_size:
            raise ObjectError(
                f"BTF says that {section.name} has {made.size} bytes, its map has {map_.value_size}"
            )
        self._layout = made
        self._view: Any = None

    @property
    def constant(self) -> bool:
        """Whether programs only read it."""
        return self._section.name.startswith((".rodata", ".kconfig"))

    def view(self) -> Any:
        """The variables as attributes.

        Raises:
            ConfigError: the skeleton is closed; ``.kconfig`` before load.
            MapError: the kernel's memory can't be mapped.
        """
        name = attribute(self._section.name)
        self._life.require_open(f"use of {name}")
        if self._view is None:
            if self._section.name == ".kconfig":
                self._life.require("loaded", "what the kernel's configuration says")
            buffer, frozen = self._kernels() if self._life.state == "loaded" else (self._libbpfs(), None)
            self._memory = views.Memory(buffer, frozen=frozen, owner=self._owner)
            self._view = views.view(self._layout, self._memory, path=name)
        return self._view

    def _libbpfs(self) -> memoryview:
        where, size = self._map.initial_memory()
        return memory.view(where, size)

    def _kernels(self) -> tuple[mmap.mmap, str | None]:
        self._mapping = self._map.mapped(writable=not self.constant)
        return self._mapping, FROZEN if self.constant else None

    def loaded(self) -> None:
        """The object is loaded: views that exist lie over the kernel's memory from now on."""
        if self._memory is not None:
            buffer, frozen = self._kernels()
            self._memory.move(buffer, frozen=frozen)

    def close(self) -> None:
        """Unmap; views that are left say that the skeleton is closed."""
        if self._memory is not None:
            self._memory.revoke(f"{attribute(self._section.name)} can't be used: {self._life.what} is closed")
        if self._mapping is not None:
            with contextlib.suppress(
                BufferError
            ):  # somebody still holds a buffer of it, and unmaps it with that
                self._mapping.close()
            self._mapping = None
