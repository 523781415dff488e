"""Times counted in buckets that grow with them: percentiles from what a tracer counted in the kernel.

Eight buckets a power of two, as bucket_of() in bpf/trace_qdisc.bpf.c fills them: a percentile read from them is at
most an eighth above the true one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

SUB_BITS = 3
SUB = 1 << SUB_BITS


def lower_edge(bucket: int) -> int:
    """Least value that falls into a bucket."""
    if bucket < SUB:
        return bucket
    power, part = divmod(bucket, SUB)
    return (SUB + part) << power - 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long packets took, in ns."""

    packets: int
    total_ns: int
    most_ns: int
    buckets: tuple[tuple[int, int], ...]
    """(bucket, packets), those that are not empty, in order."""

    @property
    def mean_ns(self) -> float:
        """0 where nothing was counted."""
        return self.total_ns / self.packets if self.packets else 0.0

    def percentile(self, share: float) -> int:
        """Upper edge (ns) of the bucket that the packet at `share` (0 to 1) of all is in; never above the greatest."""
        wanted, seen = share * sum(count for _, count in self.buckets), 0
        for bucket, count in self.buckets:
            seen += count
            if seen >= wanted:
                return min(lower_edge(bucket + 1), self.most_ns)
        return self.most_ns

    def above(self, ns: int) -> int:
        """Packets in buckets that begin at `ns` or later: at least so many took longer."""
        return sum(count for bucket, count in self.buckets if lower_edge(bucket) >= ns)

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """(from ns, below ns, packets) a power of two."""
        powers: dict[int, int] = {}
        for bucket, count in self.buckets:
            edge = lower_edge(bucket)
            floor = 1 << edge.bit_length() - 1 if edge else 0
            powers[floor] = powers.get(floor, 0) + count
        for floor, count in sorted(powers.items()):
            yield floor, max(1, floor * 2), count

    def plus(self, other: Histogram) -> Histogram:
        """Both together."""
        return Histogram(
            self.packets + other.packets,
            self.total_ns + other.total_ns,
            max(self.most_ns, other.most_ns),
            _merged(self.buckets, other.buckets, 1),
        )

    def minus(self, earlier: Histogram) -> Histogram:
        """What was counted since; the greatest stays that of all."""
        return Histogram(
            self.packets - earlier.packets,
            self.total_ns - earlier.total_ns,
            self.most_ns,
            _merged(self.buckets, earlier.buckets, -1),
        )

    def to_json(self) -> dict[str, Any]:
        """Stable keys; ``histogram`` has a row a power of two: ``{"from_ns", "below_ns", "packets"}``."""
        return {
            "packets": self.packets,
            "mean_ns": round(self.mean_ns),
            "p50_ns": self.percentile(0.5),
            "p99_ns": self.percentile(0.99),
            "max_ns": self.most_ns,
            "histogram": [
                {"from_ns": low, "below_ns": high, "packets": count} for low, high, count in self.rows()
            ],
        }


NOTHING = Histogram(0, 0, 0, ())


def _merged(
    one: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...], sign: int
) -> tuple[tuple[int, int], ...]:
    counts = dict(one)
    for bucket, count in other:
        counts[bucket] = counts.get(bucket, 0) + sign * count
    return tuple(sorted((bucket, count) for bucket, count in counts.items() if count))
