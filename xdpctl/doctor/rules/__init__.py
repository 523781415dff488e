"""The rules: pure functions over (Snapshot, intent), one file a subject. `judge` asks them all."""

from xdpctl.doctor.rules.registry import MISTAKES, judge

__all__ = ["MISTAKES", "judge"]
