"""What stands left of what in a picture: frames come in on the left, so wires are turned the way that frames go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from xdpctl.doctor.topology import ABOVE, PAIR, PORT, REDIRECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.topology import Edge, Space, Topology


class Order:
    """What stands left of what: frames come in by interfaces that redirect, and leave by those redirected to."""

    def __init__(self, topology: Topology) -> None:
        redirects = [one for one in topology.edges if one.kind == REDIRECT]
        self.out = Counter(one.source for one in redirects)
        self.both = {(one.source, one.target) for one in redirects}
        self.targets = {one.target for one in redirects}
        self.ports = {one.source for one in topology.edges if one.kind == PORT}
        self.busy = {one.id for one in topology.interfaces() if one.programs}
        self.spaces = {one.id: one.netns or "" for one in topology.interfaces()}
        self.pairs = [one for one in topology.edges if one.kind == PAIR]
        self.stacked = {
            end for one in topology.edges if one.kind == ABOVE for end in (one.source, one.target)
        }
        self.paired = {end for one in self.pairs for end in (one.source, one.target)}
        self.votes: Counter[tuple[str, str]] = Counter()
        for one in self.pairs:
            self.votes[self._between(one)] += self._pull(one.target) - self._pull(one.source)

    def goes_back(self, one: Edge) -> bool:
        """Whether it answers a redirect of the other direction: then it is the one that runs from right to left."""
        if (one.target, one.source) not in self.both or one.source == one.target:
            return False
        return (self.out[one.source], one.target) < (self.out[one.target], one.source)

    def turned(self, one: Edge) -> bool:
        """Whether a wire's target stands left of its source."""
        if one.kind == ABOVE:
            return True  # the lower device sees frames first
        if one.kind == PORT:
            return (
                one.source in self.paired
            )  # uplinks left of a bridge, pairs that lead elsewhere right of it
        # all pairs between two namespaces run the same way, or else one of these would be on both sides
        here = self.votes[self._between(one)]
        return here < 0

    def beside(self, space: Space) -> Iterator[tuple[str, str]]:
        """Interfaces of a namespace that nothing but a pair touches, and which one each belongs beside.

        One that leads elsewhere like interfaces that frames are redirected to stands with those.
        """
        mine = {one.id for one in space.interfaces}
        leading: dict[str, str] = {}
        for pair in self.pairs:
            left, right = (pair.target, pair.source) if self.turned(pair) else (pair.source, pair.target)
            if left in mine and right not in mine:
                leading[left] = self.spaces.get(right, "")
        anchored = {one: there for one, there in leading.items() if one in self.targets or one in self.ports}
        for one, there in leading.items():
            if one not in anchored and not self.out[one] and one not in self.stacked and anchored:
                yield one, next((each for each, to in anchored.items() if to == there), next(iter(anchored)))

    def _between(self, pair: Edge) -> tuple[str, str]:
        first, second = self.spaces.get(pair.source), self.spaces.get(pair.target)
        if first is None or second is None or first == second:
            return pair.source, pair.target
        return first, second

    def _pull(self, end: str) -> int:
        """To the right, where frames come in by this end of a pair; to the left, where they leave by it."""
        out = end in self.targets or end in self.ports
        return 3 * bool(self.out[end]) - 4 * out + (end in self.busy)
