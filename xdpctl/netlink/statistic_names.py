"""Which counter is meant where a driver calls several alike? Mirrors vmxnet3_get_strings(): names under headings.

vmxnet3 writes ``Rx Queue#`` and then that queue's counters, for each queue the same ones, and under
``  drv dropped tx total`` its reasons.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def distinct(raw: Sequence[str]) -> list[str]:
    """The names without blanks around them, each once.

    Args:
        raw: as the driver gives them, indentation included.

    Returns:
        As long as `raw`. Where none is given twice, nothing else is done to them; else a name carries those it is
        indented under (``rx_queue_1_pkts_rx_err``), and what is still alike a number.
    """
    plain = [name.strip() for name in raw]
    return plain if len(set(plain)) == len(plain) else _numbered(_under_headings(raw))


def _under_headings(raw: Sequence[str]) -> Iterable[str]:
    seen: Counter[str] = Counter()
    above: list[tuple[int, str]] = []
    for name in raw:
        indent, word = len(name) - len(name.lstrip()), re.sub(r"\W+", "_", name.strip().lower()).strip("_")
        while above and above[-1][0] >= indent:
            above.pop()
        if not indent and name.rstrip().endswith("#"):
            word, number = f"{word}_{seen[word]}", word
            seen[number] += 1
        yield (
            "_".join([*(one for _indent, one in above), word]) if above else word if indent else name.strip()
        )
        above.append((indent, word))


def _numbered(names: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return made
