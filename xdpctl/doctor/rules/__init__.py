"""The rules: pure functions over (Snapshot, intent), one file a subject. `judge` asks them."""

from xdpctl.doctor.rules.registry import judge, mistakes

__all__ = ["judge", "mistakes"]
