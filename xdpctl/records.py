"""``@dataclass(frozen=True, slots=True)``, and that without ``frozen``, at little cost until it is used.

The standard library's compiles six functions a class, 0.6 ms, while a module is imported: a third of the start of most
commands, for classes that most commands never make. Here a class gets its slots at once and its ``__init__`` when the
first object is made; the rest is common to all. `dataclasses.fields`, ``replace``, ``asdict`` and ``is_dataclass``
take these classes as their own. Other forms (without slots, ordered, with bases, class variables or ``__post_init__``)
go to the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - exported under this name
else:
    import dataclasses
    from operator import attrgetter

    def dataclass(cls=None, /, **options):
        """The decorator; with or without options, like the standard library's."""

        def wrap(made):
            if options in _FORMS and _is_plain(made):
                return _slotted(made, _FROZEN if "frozen" in options else _MUTABLE)
            return dataclasses.dataclass(made, **options)

        return wrap if cls is None else wrap(cls)

    def _is_plain(cls):
        if cls.__bases__ != (object,) or cls.__doc__ is None:
            return False
        own = cls.__dict__
        given = own.get("__annotations__", {})
        return (
            bool(given)
            and not any("ClassVar" in str(one) or "InitVar" in str(one) for one in given.values())
            and not _FROZEN.keys() & own.keys()
            and not {"__init__", "__post_init__"} & own.keys()
            and not any(
                isinstance(own.get(name), dataclasses.Field) and not _is_simple(own[name]) for name in given
            )
        )

    def _is_simple(field):
        plain = field.init and field.repr and field.compare
        return plain and field.hash is None and field.kw_only is dataclasses.MISSING

    def _slotted(cls, common):
        """The class anew, with a slot for each field, what is common, and an ``__init__`` that makes the real one."""
        names = tuple(cls.__annotations__)
        left_out = {*names, "__dict__", "__weakref__"}
        space = {name: value for name, value in cls.__dict__.items() if name not in left_out}
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        space.update(common)
        space.update(
            __slots__=names,
            __match_args__=names,
            __qualname__=cls.__qualname__,
            __dataclass_fields__=_Fields(defaults),
            __record_values__=attrgetter(*names),
        )
        made = type(cls)(cls.__name__, cls.__bases__, space)
        made.__init__ = _first_init(made, names, defaults)
        return made

    class _Fields:
        """``__dataclass_fields__``, made when somebody asks: those of a twin that the standard library makes."""

        def __init__(self, defaults):
            self._defaults = defaults

        def __get__(self, _, cls):
            space = {
                **self._defaults,
                "__annotations__": cls.__annotations__,
                "__module__": cls.__module__,
                "__doc__": cls.__doc__,
            }
            twin = dataclasses.dataclass(init=False, repr=False, eq=False)(type(cls.__name__, (), space))
            cls.__dataclass_fields__ = twin.__dataclass_fields__
            return twin.__dataclass_fields__

    def _first_init(cls, names, defaults):
        def __init__(self, *positional, **named):  # noqa: N807 - becomes the class's own
            cls.__init__ = made = _init(cls, names, defaults)
            made(self, *positional, **named)

        return __init__

    def _init(cls, names, defaults):
        """``__init__`` as one would write it: slots set by their descriptors, which no ``__setattr__`` refuses."""
        known, parameters, lines, late = {}, [], [], False
        for name in names:
            known[f"_set_{name}"] = cls.__dict__[name].__set__
            value, parameter = name, name
            if name in defaults:
                late = True
                default = defaults[name]
                factory = dataclasses.MISSING
                if isinstance(default, dataclasses.Field):
                    default, factory = default.default, default.default_factory
                parameter = f"{name}=_default_{name}"
                if factory is dataclasses.MISSING:
                    known[f"_default_{name}"] = default
                else:
                    known[f"_default_{name}"], known[f"_make_{name}"] = _MADE, factory
                    known["_MADE"] = _MADE
                    value = f"_make_{name}() if {name} is _MADE else {name}"
            elif late:
                raise TypeError(f"non-default argument {name!r} follows default argument")
            parameters.append(parameter)
            lines.append(f" _set_{name}(self, {value})")
        head = f"def __init__(self, {', '.join(parameters)}):\n"
        exec(head + "\n".join(lines), known)  # noqa: S102 - as the standard library does; the names are identifiers
        made = known["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        made.__module__ = cls.__module__
        return made

    _MADE = object()

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__record_values__(self) == self.__record_values__(other)

    def _hash(self):
        return hash(self.__record_values__(self))

    def _repr(self):
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{self.__class__.__qualname__}({shown})"

    def _refuse_set(self, name, value):  # noqa: ARG001 - the signature of __setattr__
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_delete(self, name):  # noqa: ARG001 - the signature of __delattr__
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _getstate(self):
        return [getattr(self, name) for name in self.__match_args__]

    def _setstate(self, state):
        for name, value in zip(self.__match_args__, state, strict=True):
            object.__setattr__(self, name, value)

    _FORMS = ({"frozen": True, "slots": True}, {"slots": True})
    _MUTABLE = {"__eq__": _eq, "__hash__": None, "__repr__": _repr}
    _FROZEN = {
        "__eq__": _eq,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _refuse_set,
        "__delattr__": _refuse_delete,
        "__getstate__": _getstate,
        "__setstate__": _setstate,
    }
