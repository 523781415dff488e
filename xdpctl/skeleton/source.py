"""Where the object of a generated skeleton is: inside its module, or in a file beside it that must not have changed."""

from __future__ import annotations

import base64
import binascii
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from xdpctl.bpf.file import read_file
from xdpctl.errors import ConfigError, ObjectError


class Source(Protocol):
    """Where the bytes of an object are."""

    @property
    def name(self) -> str:
        """Of the object's file."""
        ...

    def read(self) -> bytes:
        """The object.

        Raises:
            ObjectError: it is not what the skeleton was generated from.
        """
        ...


class Embedded(NamedTuple):
    """An object inside of the module, in base64."""

    name: str
    sha256: str
    """Of the object's bytes, in hex."""
    text: str

    def read(self) -> bytes:
        """See `Source`."""
        return _decoded(self)

    def decode(self) -> bytes:
        """The object, checked anew.

        Raises:
            ObjectError: it is damaged.
        """
        try:
            data = base64.b64decode("".join(self.text.split()), validate=True)
        except (binascii.Error, ValueError) as why:
            raise ObjectError(f"the skeleton of {self.name} is damaged: {why}") from why
        if digest(data) != self.sha256:
            raise ObjectError(
                f"the skeleton of {self.name} is damaged: its object has another SHA-256 than it says",
                hint=f"xdpctl gen skeleton {self.name} makes it anew",
            )
        return data


@cache
def _decoded(source: Embedded) -> bytes:
    return source.decode()


class Beside(NamedTuple):
    """An object in a file in the folder of the module."""

    module: str
    """``__file__`` of the module."""
    name: str
    sha256: str

    def read(self) -> bytes:
        """See `Source`.

        Raises:
            NotFoundError: it is not there.
            ObjectError: it is no BPF object.
            ConfigError: it has changed since the skeleton was generated.
        """
        path = Path(self.module).parent / self.name
        data = read_file(path)
        if digest(data) != self.sha256:
            raise ConfigError(
                f"{path} has changed since its skeleton {Path(self.module).name} was generated",
                hint=f"xdpctl gen skeleton {path} -o {self.module}",
            )
        return data


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return sha256(data).hexdigest()
