"""An end like any other for commands that run until they are stopped: Ctrl-C and SIGTERM leave their block quietly."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ends_by_signal() -> Iterator[None]:
    """Whatever the block holds is let go of when SIGINT or SIGTERM comes; the command has then done what it should."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
