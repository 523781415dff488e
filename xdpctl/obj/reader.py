"""What an object file says without loading it: `read` puts sections, BTF and instructions into an `ObjFile`.

Nothing here needs root or asks the kernel; whether the kernel would take the object is `obj.verdict`'s question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.btf import ext as btf_ext
from xdpctl.btf import parse as btf_parse
from xdpctl.errors import ObjectError
from xdpctl.obj import code, elf, maps, programs, variables
from xdpctl.obj.model import ObjFile

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> ObjFile:
    """Read an object file.

    Raises:
        NotFoundError: there is no such file.
        PrivilegeError: it may not be read.
        ObjectError: not an ELF file, of another machine, truncated, inconsistent, or without a program.
    """
    return parse(elf.load(path), path)


def parse(data: bytes, path: Path) -> ObjFile:
    """The same for the bytes of an object; `path` only names it.

    Raises:
        ObjectError: as `read`.
    """
    name = str(path)
    try:
        return _parse(data, path, name)
    except ObjectError as error:
        if name in error.message:
            raise
        raise ObjectError(f"{name}: {error.message}", hint=error.hint) from error


def _parse(data: bytes, path: Path, name: str) -> ObjFile:
    file = elf.parse(data, name)
    blob = _data(file, ".BTF")
    btf = btf_parse.parse(blob) if blob else None
    blob = _data(file, ".BTF.ext")
    ext = btf_ext.parse(blob, btf) if blob and btf is not None else None
    table = maps.read(file, btf)
    found = variables.read(file, btf)
    sections = code.read(file, table.at)
    made, flaws = programs.read(sections, btf, ext, found.globals)
    if not made and not flaws:
        raise ObjectError(
            f"{name} has no program",
            hint='a program is a function that is not static, in a section of its own: SEC("xdp")',
        )
    internal = [
        maps.internal(one.name, one.size, frozen=one.name.startswith(".rodata"))
        for one in file.sections
        if code.is_data(one.name) and one.size
    ]
    license_ = _data(file, "license").split(b"\0")[0].decode("utf-8", "replace")
    return ObjFile(
        path=path,
        size=len(data),
        license=license_ or None,
        has_btf=btf is not None,
        has_btf_ext=ext is not None,
        has_line_info=ext is not None and any(ext.lines.values()),
        programs=tuple(made),
        maps=(*table.maps, *internal),
        globals=found.globals,
        kconfig=found.kconfig,
        ksyms=found.ksyms,
        byte_order="little" if file.order == "<" else "big",
        core_relocations=sum(len(rows) for rows in ext.relocations.values()) if ext is not None else 0,
        flaws=(*table.flaws, *flaws),
        externs=variables.externs(file, btf),
        btf=btf,
        ext=ext,
        code=sections,
    )


def _data(file: elf.Elf, name: str) -> bytes:
    section = file.section(name)
    return section.data if section is not None else b""
