"""xdpctl: put XDP and TC programs on Linux interfaces, and know beforehand why it would fail.

As a library: `Skeleton`, a BPF object as a Python object.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from xdpctl.skeleton.skeleton import Skeleton as Skeleton

__version__ = "0.1.0"
__all__ = ["Skeleton", "__version__"]


def __getattr__(name: str) -> Any:  # imported when it is asked for: every command imports this package
    if name == "Skeleton":
        from xdpctl.skeleton.skeleton import Skeleton

        return Skeleton
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
