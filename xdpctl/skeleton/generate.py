"""``xdpctl gen skeleton``: the Python module and the .pyi of one object, as text; nothing in them is of one machine.

The module is thin: a subclass of `Skeleton` that knows its object by SHA-256. What is in the object, the .pyi tells
type checkers and editors; at run time it comes from BTF.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf.file import read_file
from xdpctl.bpf.object import Object
from xdpctl.btf.layout import StructLayout, layout
from xdpctl.errors import ConfigError, ObjectError
from xdpctl.skeleton import types
from xdpctl.skeleton.annotate import ALIAS, Annotation, Structs, declarations, is_name
from xdpctl.skeleton.globals import attribute, described, section_of
from xdpctl.skeleton.kinds import kind_of
from xdpctl.skeleton.programs import class_of
from xdpctl.skeleton.skeleton import set_types
from xdpctl.skeleton.source import digest

if TYPE_CHECKING:
    from xdpctl.bpf.map import Map
    from xdpctl.btf.parse import Btf

MADE = "Made by `xdpctl gen skeleton {name}`: do not edit, make it anew."
_SHA = re.compile(r'"([0-9a-f]{64})"')
_RESERVED = (
    "Embedded",
    "Beside",
    "Skeleton",
    "ClassVar",
    "Source",
    "Sequence",
    "Field",
    "MapOf",
    "CpuValues",
)
_ATTRIBUTES = frozenset("maps progs types state path object links open load close type_named SOURCE".split())


class Generated(NamedTuple):
    """The texts of a skeleton."""

    name: str
    """Of the class."""
    module: str
    stub: str


def module_name(obj: Path) -> str:
    """File name of the module: ``tx-swap.bpf.o`` gives ``tx_swap_skel.py``."""
    return f"{_stem(obj)}_skel.py"


def _stem(obj: Path) -> str:
    stem = re.sub(r"(\.bpf)?\.o$", "", obj.name)
    return re.sub(r"\W", "_", stem) or "object"


def class_name(obj: Path) -> str:
    """``tx-swap.frags.bpf.o`` gives ``TxSwapFrags``."""
    name = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+|_", _stem(obj)) if word)
    return name if is_name(name) else f"Object{name}"


def generate(path: Path, *, embed: bool = True) -> Generated:
    """The module and .pyi of an object.

    Args:
        path: the object.
        embed: put it into the module; else it is looked for beside the module.

    Raises:
        NotFoundError: there is no such file.
        ObjectError: it can't be used, or has no BTF.
    """
    data = read_file(path)
    with Object.open(path, data=data) as opened:
        set_types(opened, {})
        btf = types.of_object(opened)
        if btf is None:
            raise ObjectError(
                f"{path} has no BTF, so nothing tells its types", hint="compile it with clang -g"
            )
        name = class_name(path)
        stub = _stub(opened, btf, name)
    return Generated(name, _module(path.name, name, data, embed=embed), stub)


def _module(file: str, name: str, data: bytes, *, embed: bool) -> str:
    if embed:
        text = base64.b64encode(data).decode()
        rows = "\n".join(text[at : at + 100] for at in range(0, len(text), 100))
        source = f'Embedded(\n        "{file}",\n        "{digest(data)}",\n        """\n{rows}\n""",\n    )'
    else:
        source = f'Beside(__file__, "{file}", "{digest(data)}")'
    kind = "Embedded" if embed else "Beside"
    return f'''"""Skeleton of {file}.

{MADE.format(name=file)}
"""

from __future__ import annotations

from xdpctl import Skeleton
from xdpctl.btf.views import StructView
from xdpctl.skeleton.source import {kind}


class {name}(Skeleton):
    """{file}: its types stand in the .pyi beside this module."""

    __slots__ = ()

    SOURCE = {source}


def __getattr__(name: str) -> type[StructView]:
    """A struct of the object, as a class that makes values."""
    if name.startswith("__"):  # what Python itself asks of modules
        raise AttributeError(name)
    return {name}.type_named(name)
'''


def _stub(opened: Object, btf: Btf, name: str) -> str:
    structs = Structs({*_RESERVED, name, "_Maps", "_Progs"})
    known = described(btf)
    sections: list[tuple[str, str, list[str]]] = []
    for one in opened.maps.values():
        section = section_of(one)
        if section in known and section is not None:
            made = layout(btf, known[section].id)
            if isinstance(made, StructLayout):
                near = attribute(section)
                sections.append((near, section, declarations(made, structs, near)))
    maps = [
        (one, _map_annotation(one, btf, structs))
        for one in sorted(opened.maps.values(), key=lambda one: one.name)
        if not one.internal
    ]
    programs = {
        one.name: class_of(one.type, one.expected_attach_type).__name__
        for one in sorted(opened.programs.values(), key=lambda one: one.name)
    }
    classes = [_struct(name, made, structs) for name, made in list(structs.found.items())]
    sections_text = [
        f'class _{_camel(attr)}(StructView):\n    """The variables in {section}."""\n\n' + _body(lines)
        for attr, section, lines in sections
    ]
    map_lines = [
        f"{one.name}: {text}" if is_name(one.name) else f"# maps[{one.name!r}]" for one, text in maps
    ]
    program_lines = [
        f"{one}: {kind}" if is_name(one) else f"# progs[{one!r}]" for one, kind in programs.items()
    ]
    own = [f"{attr}: _{_camel(attr)}" for attr, _, _ in sections if attr not in _ATTRIBUTES]
    parts = [
        *classes,
        *sections_text,
        "class _Maps(Named[TypedMap]):\n" + _body(map_lines),
        "class _Progs(Named[Program]):\n" + _body(program_lines),
        f"class {name}(Skeleton):\n"
        f'    """Skeleton of {opened.path.name}."""\n\n'
        + _body(["SOURCE: ClassVar[Source | None]", "maps: _Maps", "progs: _Progs", *own]),
    ]
    text = "\n\n".join(parts)
    aliases = [
        f"{ALIAS}{one}: TypeAlias = {one}" for one in structs.found if re.search(rf"\b{ALIAS}{one}\b", text)
    ]
    if aliases:
        text = text + "\n\n" + "\n".join(aliases)
    return _imports(text, opened.path.name) + text.rstrip() + "\n"


def _camel(attr: str) -> str:
    return "".join(word.capitalize() for word in attr.split("_"))


def _body(lines: list[str]) -> str:
    shown = [f"    {one}\n" for one in lines]
    if all(one.startswith("#") for one in lines):
        shown.append("    ...\n")
    return "".join(shown)


def _struct(name: str, made: StructLayout, structs: Structs) -> str:
    lines = declarations(made, structs, name)
    arguments = []
    for member, field in made.fields.items():
        if is_name(member):
            written = structs.of(field.layout, f"{name}_{member}").written
            arguments.append(f"{member}: {written} = ...")
    listed = "".join(f"        {one},\n" for one in arguments)
    init = f"    def __init__(\n        self,\n        *,\n{listed}    ) -> None: ...\n" if arguments else ""
    spelled = made.spelled.split("{")[0].strip()
    head = f'class {name}(StructView):\n    """``{spelled}``, {made.size} bytes."""\n\n'
    return head + _inside(init, made, structs) + _body(lines)


def _inside(init: str, made: StructLayout, structs: Structs) -> str:
    """Arguments are annotated where the members hide names, too."""
    from xdpctl.skeleton.annotate import apart

    done = []
    for line in init.splitlines(keepends=True):
        member, colon, rest = line.partition(": ")
        inside = colon and line.startswith("        ") and rest.rstrip().endswith("= ...,")
        done.append(f"{member}: {apart(rest, made.fields, structs)}" if inside else line)
    return "".join(done)


def _map_annotation(one: Map, btf: Btf, structs: Structs) -> str:
    kind = kind_of(one.type)
    key = _of(btf, one.btf_key_type_id, one.key_size, structs, f"{one.name}_key")
    if kind.keys == "none":
        key = Annotation("None", "None")
    elif kind.keys == "prefix":
        key = Annotation("str", "object")
    elif kind.keys == "index":
        key = Annotation("int", "int | str")
    elif key.read not in {"int", "str", "bool", "bytes"}:
        key = Annotation("tuple[Any, ...]", f"{key.written} | tuple[object, ...] | str")
    elif "str" not in key.written:
        key = Annotation(key.read, f"{key.written} | str")
    value = _of(btf, one.btf_value_type_id, one.value_size, structs, f"{one.name}_value")
    if kind.holds in {"device", "cpu"}:
        value = Annotation("Slot", "int | str | tuple[object, ...] | dict[str, object]")
    elif kind.holds in {"program", "map", "descriptor"}:
        value = Annotation("int", "object")
    elif kind.holds in {"records", "opaque"}:
        return "TypedMap"
    elif "str" not in value.written:
        value = Annotation(value.read, f"{value.written} | str")
    if kind.per_cpu:
        value = Annotation(f"CpuValues[{value.read}]", f"{value.written} | Sequence[{value.written}]")
    return f"MapOf[{key.read}, {key.written}, {value.read}, {value.written}]"


def _of(btf: Btf, type_id: int, size: int, structs: Structs, near: str) -> Annotation:
    if type_id:
        try:
            made = layout(btf, type_id)
        except ObjectError:
            made = None
        if made is not None and made.size == size:
            return structs.of(made, near)
    return Annotation("bytes", "bytes | str")


def _imports(text: str, file: str) -> str:
    def used(*names: str) -> list[str]:
        return [one for one in names if re.search(rf"\b{one}\b", text)]

    lines = ["import builtins"] if used("builtins") else []
    wanted = {
        "collections.abc": used("Sequence"),
        "typing": used("Any", "ClassVar", "TypeAlias"),
        "xdpctl": ["Skeleton"],
        "xdpctl.skeleton.names": ["Named"],
        "xdpctl.skeleton.programs": used("Program", "TcProgram", "TracingProgram", "XdpProgram"),
        "xdpctl.skeleton.source": ["Source"],
        "xdpctl.skeleton.stubs": used(
            "ArrayView", "CpuValues", "Field", "MapOf", "Slot", "StructView", "TypedMap"
        ),
    }
    lines += [f"from {module} import {', '.join(names)}" for module, names in wanted.items() if names]
    return f'"""{MADE.format(name=file)}"""\n\n' + "\n".join(lines) + "\n\n"


def write(made: Generated, module: Path) -> tuple[Path, Path]:
    """Write the module and its .pyi; each appears whole or not at all.

    Args:
        made: what `generate` gave.
        module: the ``.py``.

    Raises:
        ConfigError: the name is no module's, or a file can't be written.
    """
    if module.suffix != ".py" or not is_name(module.stem):
        raise ConfigError(f"{module} is no name for a Python module", hint=f"-o {made.name.lower()}_skel.py")
    files = (module, module.with_suffix(".pyi"))
    for file, text in zip(files, (made.module, made.stub), strict=True):
        part = file.with_name(f".{file.name}.part")
        try:
            part.write_text(text)
            part.replace(file)
        except OSError as why:
            raise ConfigError(f"{file} can't be written: {why.strerror}") from why
    return files


def require_beside(path: Path, module: Path) -> None:
    """Say where the object must be, if it is not there.

    Raises:
        ConfigError: it is not in the module's folder.
    """
    there = module.parent / path.name
    if not there.exists():
        raise ConfigError(
            f"{module} was written, but looks for {path.name} in its own folder",
            hint=f"cp {path} {there}",
        )


def stale(path: Path, module: Path, *, embed: bool | None = None) -> str | None:
    """Why a generated skeleton is not what would be made of the object now; None: it is.

    Args:
        path: the object.
        module: the generated ``.py``; its .pyi is beside it.
        embed: as in `generate`; None: as the module has it.

    Raises:
        NotFoundError, ObjectError: as `generate`.
    """
    try:
        text = module.read_text()
        stub = module.with_suffix(".pyi").read_text()
    except FileNotFoundError as why:
        return f"{Path(why.filename).name} is not there"
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"{module} can't be read: {why}") from why
    found = _SHA.search(text)
    if found is None:
        return f"{module.name} is no skeleton"
    if found[1] != digest(read_file(path)):
        return f"{path.name} has changed since {module.name} was made"
    if embed is None:
        embed = "Embedded(" in text
    now = generate(path, embed=embed)
    for name, had, has in ((module.name, text, now.module), (f"{module.stem}.pyi", stub, now.stub)):
        if had != has:
            return f"{name} was made by another xdpctl, in another form, or edited"
    return None
