"""Pins of maps that are being moved: the new map's takes the old one's place, or gives it back (kernel/bpf/inode.c)."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf.map import open_map
from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.libbpf import libc

if TYPE_CHECKING:
    from xdpctl.attach.migrate_journal import Facts, MovedMap

NO_MEMBARRIER_SECONDS = 0.2
"""How long a program may run where the kernel does not tell when all have ended (nohz_full): it has no loops without
end, and an RCU grace period takes some 10 ms."""


def wait_for_programs() -> None:
    """Return when every program that was replaced before this call has ended on every CPU."""
    try:
        libc.grace_period()
    except OSError:
        time.sleep(NO_MEMBARRIER_SECONDS)


def take_over(one: MovedMap) -> None:
    """The new map's pin takes the place of the old one's, in one step (rename(2); simple_rename() in bpffs).

    Raises:
        ConfigError: it could not.
    """
    try:
        Path(one.new_pin).replace(one.pin)
    except FileNotFoundError:
        return  # done already
    except OSError as why:
        raise ConfigError(f"can't rename {one.new_pin} to {one.pin}: {why.strerror}") from why


def give_back(facts: Facts) -> None:
    """Every old map under its pin, no new one anywhere."""
    for one in facts.maps:
        with contextlib.suppress(OSError):
            Path(one.new_pin).unlink()
        if _id_at(one.pin) == one.old_id:
            with contextlib.suppress(OSError):
                Path(one.old_pin).unlink()
        else:
            with contextlib.suppress(FileNotFoundError):
                Path(one.old_pin).replace(one.pin)


def clear(facts: Facts) -> None:
    """Let go of the old maps, which nobody needs any more."""
    for one in facts.maps:
        with contextlib.suppress(OSError):
            Path(one.old_pin).unlink()


def _id_at(pin: str) -> int | None:
    try:
        with open_map(Path(pin)) as found:
            return found.info().id
    except (NotFoundError, ConfigError):
        return None
