"""xdpctl: put XDP and TC programs on Linux interfaces, and know beforehand why it would fail."""

from __future__ import annotations

__version__ = "0.1.0"
