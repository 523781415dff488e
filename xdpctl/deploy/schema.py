"""The shape of a deployment's TOML, told once: pydantic checks it, `xdpctl schema` prints it as JSON Schema.

Imported only where a file is read: pydantic costs 100 ms.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from xdpctl.deploy.desired import seconds
from xdpctl.errors import near

LONGEST_WAIT = 86400.0
DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|min|m|h)?$"

SafeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$")]
"""What may become part of a pin's path."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[^\s/:*?\[]{1,15}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[^\s/]{1,64}$")]
Duration = Annotated[str, StringConstraints(pattern=DURATION)]
PLAIN = r"^[^\x00-\x1f\x7f]+$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=PLAIN)]
Count = Annotated[int, Field(ge=0, lt=1 << 32)]
Value = bool | int | float | str | list[Any] | dict[str, Any]


class Table(BaseModel):
    """A table that takes the keys it knows and no others."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True, defer_build=True)


class DeploymentTable(Table):
    """What the deployment is called; said once."""

    name: SafeName = Field(description="Its name: of its pins, its history, and of `xdpctl destroy NAME`.")
    adopt: bool = Field(
        False, description="Take over programs that somebody else attached where ours are to be."
    )
    description: str | None = Field(None, description="For people.")


class EntryTable(Table):
    """One element of a map."""

    key: Value = Field(
        description="A number, an address, a prefix, an interface's name, or a table of members."
    )
    value: Value | None = Field(None, description="As the key; left out where the program itself writes it.")


class MapTable(Table):
    """One map of a program."""

    max_entries: Annotated[int, Field(ge=1, lt=1 << 32)] | None = Field(
        None, description="Room, in place of what the object says."
    )
    entries: dict[str, Value] | list[EntryTable | int | str] | None = Field(
        None,
        description="What it holds: KEY = VALUE, [{key = ..., value = ...}], or [KEY, ...] where the program itself"
        " writes the values.",
    )
    entries_from: Text | None = Field(
        None, description="A CSV file of keys and values, relative to this file."
    )
    on_schema_change: Literal["fail", "reuse", "copy", "recreate"] = Field(
        "fail", description="What becomes of its elements when a new version changes its key or value."
    )

    @model_validator(mode="after")
    def _one_source(self) -> MapTable:
        if self.entries is not None and self.entries_from is not None:
            raise ValueError("entries and entries_from: give one of them")
        return self


class ProgramTable(Table):
    """What to load."""

    name: SafeName = Field(description="What attachments call it.")
    source: Text | None = Field(None, description="C source, compiled when needed; relative to this file.")
    object: Text | None = Field(None, description="BPF object, or builtin:NAME; relative to this file.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        None, description="What the object's bytes must have as their SHA-256."
    )
    function: Identifier | None = Field(
        None, description="C function, where the object has several programs."
    )
    type: Literal["xdp", "tc"] | None = Field(
        None, description="What it is, where its section name tells nothing."
    )
    globals: dict[Identifier, Value] = Field(
        default_factory=dict, description="Global variables, set before load."
    )
    maps: dict[Identifier, MapTable] = Field(default_factory=dict, description="Its maps, by name.")

    @model_validator(mode="after")
    def _one_origin(self) -> ProgramTable:
        if (self.source is None) == (self.object is None):
            raise ValueError("source or object: give exactly one of them")
        if self.sha256 is not None and self.object is None:
            raise ValueError("sha256 is for an object: what a source becomes depends on the compiler")
        return self


class RingsTable(Table):
    """Ring sizes, as ethtool -G sets them."""

    rx: Count | None = Field(None, description="Receive descriptors of each queue.")
    tx: Count | None = Field(None, description="Transmit descriptors of each queue.")
    rx_mini: Count | None = Field(None, alias="rx-mini", description="Descriptors for small frames.")
    rx_jumbo: Count | None = Field(None, alias="rx-jumbo", description="Descriptors for jumbo frames.")
    rx_buf_len: Count | None = Field(
        None, alias="rx-buf-len", description="Bytes of a receive buffer (Linux 5.16)."
    )
    tcp_data_split: Literal["on", "off", "auto"] | None = Field(
        None, alias="tcp-data-split", description="Headers and payload into buffers of their own (Linux 6.0)."
    )
    hds_thresh: Count | None = Field(
        None, alias="hds-thresh", description="Bytes from which a frame is split (Linux 6.14)."
    )
    cqe_size: Count | None = Field(
        None, alias="cqe-size", description="Bytes of a completion entry (Linux 5.18)."
    )
    rx_push: bool | None = Field(None, alias="rx-push", description="Receive descriptors without doorbells.")
    tx_push: bool | None = Field(
        None, alias="tx-push", description="Transmit descriptors without doorbells (Linux 5.19)."
    )
    tx_push_buf_len: Count | None = Field(
        None, alias="tx-push-buf-len", description="Bytes of a frame that are pushed (Linux 6.4)."
    )


class ChannelsTable(Table):
    """Queues, as ethtool -L sets them."""

    rx: Count | None = Field(None, description="Queues that only receive.")
    tx: Count | None = Field(None, description="Queues that only transmit.")
    other: Count | None = Field(None, description="Queues for other events.")
    combined: Count | None = Field(None, description="Queues that do both.")


class PauseTable(Table):
    """Flow control, as ethtool -A sets it."""

    autoneg: bool | None = Field(None, description="Agree with the link partner.")
    rx: bool | None = Field(None, description="Obey pause frames.")
    tx: bool | None = Field(None, description="Send pause frames.")


class NapiTable(Table):
    """Settings of all NAPIs of the device."""

    threaded: bool | None = Field(None, description="Poll in a kernel thread (Linux 5.12).")
    defer_hard_irqs: Count | None = Field(
        None, alias="defer-hard-irqs", description="Empty polls before interrupts are enabled again."
    )
    gro_flush_timeout: int | None = Field(
        None, ge=0, alias="gro-flush-timeout", description="Nanoseconds that GRO may hold a frame."
    )
    irq_suspend_timeout: int | None = Field(
        None,
        ge=0,
        alias="irq-suspend-timeout",
        description="Nanoseconds without interrupts while an application polls (Linux 6.13).",
    )


class AttachTable(Table):
    """One program on one hook of the interface."""

    program: SafeName = Field(description="Name of a [[program]].")
    hook: Literal["xdp", "ingress", "egress"] = Field(
        "xdp", description="Before the stack sees a frame, or as it enters or leaves it."
    )
    mode: Literal["native", "generic", "offload", "auto"] | None = Field(
        None, description="Of XDP; native unless said otherwise."
    )
    via: Literal["link", "netlink", "tcx", "clsact"] | None = Field(
        None, description="How; by default what the kernel has best."
    )
    order: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Among the programs of a TC hook: lower runs first."
    )
    function: Identifier | None = Field(
        None, description="C function, where the program's default is not meant."
    )

    @model_validator(mode="after")
    def _fits(self) -> AttachTable:
        if self.hook != "xdp" and self.mode is not None:
            raise ValueError(f"mode = {self.mode!r} is for XDP; {self.hook} has none")
        if self.via is not None and (self.hook == "xdp") != (self.via in ("link", "netlink")):
            raise ValueError(f"via = {self.via!r} does not go with hook = {self.hook!r}")
        return self


class InterfaceTable(Table):
    """Which interfaces, how they are set, and what is attached to them."""

    name: InterfaceName | None = Field(None, description="One interface by name; it must be there, or come.")
    match: Pattern | list[Pattern] | None = Field(
        None, description="Every interface whose name fits this glob, be it none."
    )
    driver: Text | None = Field(None, description="Only those of this driver.")
    netns: Text | None = Field(None, description="Network namespace, by name or glob; else the caller's.")
    wait: Duration | Annotated[float, Field(ge=0, le=86400)] | None = Field(
        None, description='How long a named interface may take to appear: "30s".'
    )
    up: bool | None = Field(None, description="Whether the link is administratively up.")
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = Field(None, description="Bytes.")
    features: dict[Text, bool] = Field(
        default_factory=dict, description="By ethtool's names: gro, rx-gro-hw, ..."
    )
    rings: RingsTable | None = Field(None, description="Ring sizes, as ethtool -G sets them.")
    channels: ChannelsTable | None = Field(None, description="Queues, as ethtool -L sets them.")
    coalesce: dict[Text, bool | int | str] = Field(
        default_factory=dict, description="By ethtool's names: rx-usecs, adaptive-rx, ..."
    )
    pause: PauseTable | None = Field(None, description="Flow control, as ethtool -A sets it.")
    private_flags: dict[Text, bool] = Field(
        default_factory=dict,
        description="The driver's own switches, as ethtool --show-priv-flags names them.",
    )
    napi: NapiTable | None = Field(None, description="Settings of all NAPIs of the device.")
    attach: list[AttachTable] = Field(default_factory=list, description="Programs on its hooks.")

    @model_validator(mode="after")
    def _named(self) -> InterfaceTable:
        if self.name is None and self.match is None and self.driver is None:
            raise ValueError("name, match or driver: say which interfaces are meant")
        if self.name is not None and self.match is not None:
            raise ValueError("name and match: give one of them")
        if self.wait is not None and self.name is None:
            raise ValueError("wait is for an interface with a name")
        if seconds(self.wait) > LONGEST_WAIT:
            raise ValueError(f"wait = {self.wait!r} is longer than a day")
        return self


class RedirectTable(Table):
    """A promise that doctor checks: frames that arrive here reach there."""

    from_: Pattern = Field(alias="from", description="Interface whose program redirects; a glob is fine.")
    to: InterfaceName = Field(description="Interface that they leave through.")
    netns: Text | None = Field(None, description="Network namespace of both.")
    ensure: bool = Field(False, description="May set what it needs, such as GRO of a veth's peer.")


class File(Table):
    """One TOML file of a deployment; several make one."""

    include: list[Text] = Field(default_factory=list, description="Other files, relative to this one; globs.")
    vars: dict[Identifier, bool | int | float | str] = Field(
        default_factory=dict, description="Values of ${NAME}; --var overrides them."
    )
    deployment: DeploymentTable | None = Field(
        None, description="What the deployment is called; in one of its files."
    )
    program: list[ProgramTable] = Field(default_factory=list, description="What to load.")
    interface: list[InterfaceTable] = Field(
        default_factory=list, description="How devices are set, and what is attached to them."
    )
    redirect: list[RedirectTable] = Field(
        default_factory=list, description="Promises that doctor checks: from here frames reach there."
    )


VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
"""What may stand for any value: an editor sees a file before its variables are put in."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a deployment's file as it is written: ``${NAME}`` may stand for any value."""
    made = File.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "xdpctl deployment",
        **{key: _as_written(value) for key, value in made.items() if key != "title"},
    }


def _as_written(part: Any) -> Any:
    """Without null, which TOML lacks, and without names of Python classes; with variables where no text would do."""
    if isinstance(part, list):
        return [_as_written(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "anyOf" in part:
        arms = [one for one in part["anyOf"] if one != {"type": "null"}]
        rest = {key: one for key, one in part.items() if key not in ("anyOf", "title")}
        if rest.get("default", 0) is None:
            del rest["default"]
        if len(arms) == 1:
            return _as_written({**arms[0], **rest})
        arms = [_as_written(one) for one in arms]
        inner = [each for one in arms for each in (one["anyOf"] if set(one) == {"anyOf"} else [one])]
        kept = [one for place, one in enumerate(inner) if one not in inner[:place]]
        return {"anyOf": kept, **rest}
    if "properties" in part:
        inside = {name: _as_written(one) for name, one in part["properties"].items()}
        made = {key: _as_written(one) for key, one in part.items() if key not in ("title", "properties")}
        return {**made, "properties": inside}
    made = {key: _as_written(one) for key, one in part.items() if key != "title"}
    if made.get("type") in ("integer", "number", "boolean") or (
        made.get("type") == "string" and ({"pattern", "enum", "const"} & made.keys())
    ):
        said = {key: made.pop(key) for key in ("description", "default") if key in made}
        return {"anyOf": [made, VARIABLE], **said}
    return made


def safe_name(text: str) -> bool:
    """Whether a deployment or program may be called so."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", text) is not None


def check(
    document: dict[str, Any],
) -> tuple[File | None, list[tuple[tuple[str | int, ...], str, str | None]]]:
    """The file's content, or everything that is wrong with it as (path, message, hint)."""
    try:
        return File.model_validate(document), []
    except ValidationError as error:
        by_path: dict[tuple[str | int, ...], list[Any]] = {}
        for one in error.errors(include_url=False):
            absent = one["type"] in ("missing", "extra_forbidden")
            by_path.setdefault(_real_path(document, one["loc"], absent=absent), []).append(one)
        told = [(path, *words) for path, found in by_path.items() for words in _of_arms(found, path)]
        return None, list(dict.fromkeys(told))


def _of_arms(found: list[Any], path: tuple[str | int, ...]) -> list[tuple[str, str | None]]:
    """What is said of one value: where it may be of several types, of the one that was meant."""
    others = [one for one in found if one["type"] not in _TYPES]
    if others or len(found) == 1:
        return [_in_words(one, path) for one in others or found]
    words = list(dict.fromkeys(_TYPES[one["type"]] for one in found))
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return [(f"{_shown(found[0].get('input'))} is not {listed}", None)]


def _real_path(document: Any, loc: tuple[str | int, ...], *, absent: bool) -> tuple[str | int, ...]:
    """The path into the document: pydantic's also names the arms of unions."""
    path: list[str | int] = []
    at: Any = document
    for place, step in enumerate(loc):
        if (isinstance(at, dict) and step in at) or (
            isinstance(at, list) and isinstance(step, int) and step < len(at)
        ):
            at = at[step]  # type: ignore[index]  # an int where it is a list
            path.append(step)
        elif absent and place == len(loc) - 1 and isinstance(at, dict) and _is_key(step):
            path.append(step)  # a key that is missing
    return tuple(path)


def _is_key(step: str | int) -> bool:
    return isinstance(step, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", step) is not None


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _in_words(error: Any, path: tuple[str | int, ...]) -> tuple[str, str | None]:
    """One of pydantic's errors as (message, hint)."""
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "extra_forbidden":
        known = known_keys(path[:-1])
        close = near(str(path[-1]), known)
        if close:
            return "unknown key", f"did you mean {' or '.join(close)}?"
        return "unknown key", f"known are {', '.join(sorted(known))}" if known else None
    if kind == "missing":
        return "missing", None
    if kind == "value_error":
        return str(context.get("error", error["msg"])), None
    shown = _shown(given)
    if kind == "literal_error":
        return f"{shown} is not allowed", f"one of {context['expected'].replace(' or ', ', ')}"
    if kind == "list_type" and isinstance(given, dict) and path and path[-1] in _ARRAYS:
        return (
            "this is an array of tables",
            f"[[{'.'.join(str(one) for one in path if isinstance(one, str))}]]",
        )
    if kind in _TYPES:
        return f"{shown} is not {_TYPES[kind]}", None
    if kind in _LENGTHS:
        return f"{shown} is not allowed", _LENGTHS[kind].format(**context)
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"{shown} is not allowed", _PATTERNS.get(pattern, f"it must match {pattern}")
    limits = {
        "greater_than_equal": ("ge", "at least"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "below"),
    }
    if kind in limits:
        name, word = limits[kind]
        return f"{shown} is out of range", f"{word} {context[name]:g}" if context[
            name
        ] < 1e6 else f"{word} {context[name]}"
    return f"{shown}: {error['msg']}", None


def _shown(given: Any) -> str:
    if isinstance(given, (dict, list)):
        return f"a {'table' if isinstance(given, dict) else 'list'}"
    shown = given.isoformat() if hasattr(given, "isoformat") else repr(given)
    return shown if len(shown) <= 60 else shown[:57] + "..."


_ARRAYS = ("program", "interface", "redirect", "attach")
_LENGTHS = {
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character",
    "finite_number": "a finite number",
}
_PATTERNS = {
    PLAIN: "no control characters",
    r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$": "letters, digits, _ and -, at most 64: it becomes part of a pin's path",
    r"^[A-Za-z_][A-Za-z0-9_]{0,127}$": "a C name",
    r"^[^\s/:*?\[]{1,15}$": "an interface name of at most 15 characters; globs go into match",
    r"^[^\s/]{1,64}$": "no blanks and no slash, at most 64 characters",
    r"^[0-9a-fA-F]{64}$": "64 hexadecimal digits",
    DURATION: 'a duration such as "30s" or "2min"',
}


def known_keys(path: tuple[str | int, ...]) -> list[str]:
    """Keys that a table at this path takes."""
    model: type[BaseModel] | None = File
    for step in path:
        if isinstance(step, int) or model is None:
            continue
        found = next((one for name, one in model.model_fields.items() if step in (name, one.alias)), None)
        model = _model_in(found.annotation) if found is not None else model
    return [one.alias or name for name, one in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
