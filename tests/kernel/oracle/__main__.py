"""``python -m tests.kernel.oracle``: the whole table on this kernel, in mounts and namespaces of its own.

Ends with 1 on any miss, false alarm, wrong reason or fix that doesn't help, and with 2 when it can't run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

from xdpctl.errors import XdpctlError
from xdpctl.lab.sandbox import Sandbox

from . import attaching, drivers, redirecting, transmitting  # noqa: F401 - each registers its scenarios
from .run import NONE_OFFERED, NOT_HERE, VERIFIED, Row, run_together
from .scenario import TABLE

UNSTEADY = 5
"""Scenarios that may need a second look in one run: emulated CPUs are shared with others."""


def totals(rows: list[Row]) -> dict[str, int]:
    """Counts that the last line and the JSON give."""
    verdicts = Counter(row.verdict for row in rows)
    fixes = [row.fixed for row in rows if row.fixed and row.fixed != NONE_OFFERED]
    return {
        "scenarios": len(rows) - verdicts[NOT_HERE],
        "failing": sum(row.happened not in ("", "works") for row in rows),
        "healthy": sum(row.happened == "works" for row in rows),
        "misses": verdicts["miss"],
        "false_alarms": verdicts["false alarm"],
        "wrong_reasons": verdicts["wrong reason"],
        "undecided": verdicts["undecided"],
        "one_end_silent": verdicts["one end silent"],
        "live_differs": verdicts["live differs"],
        "fixes": len(fixes),
        "fixes_verified": fixes.count(VERIFIED),
        "bad_advice": sum(len(row.advice) for row in rows),
        "unsteady": sum(bool(row.unsteady) for row in rows),
        "not_here": verdicts[NOT_HERE],
    }


def line(row: Row) -> str:
    """One row for the eye."""
    sign = "-" if row.verdict == NOT_HERE else "ok" if row.good else "!!"
    text = f"{sign:2}  {row.scenario:96.96}  {row.predicted:44.44}  {row.happened:34}  {row.fixed}"
    if row.note:
        text += f"  [{row.verdict}: {row.note}]"
    if row.unsteady:
        text += f"  [only the second time; the first: {row.unsteady}]"
    if row.advice:
        text += f"  [bad advice: {'; '.join(row.advice)}]"
    return text.rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.oracle", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and totals there")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="scenarios whose name matches this pattern"
    )
    parser.add_argument("--truth", action="store_true", help="ask the kernel only, not doctor")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes that share the table (2)")
    parser.add_argument("--bad", action="store_true", help="print only what is off")
    asked = parser.parse_args()
    try:
        with Sandbox():
            return report(asked)
    except XdpctlError as error:
        print(f"{error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2


def report(asked: argparse.Namespace) -> int:
    """Run, print, count."""
    start = time.monotonic()
    rows = []
    print(f"    {'scenario':96}  {'predicted':44}  {'happened':34}  fixed", flush=True)
    table = [one for one in TABLE if re.search(asked.only, one.name)]
    # in no order, so that scenarios that wait for the same device seldom meet; the same one each time
    mixed = random.Random(1).sample(table, len(table))  # noqa: S311
    for row in run_together(mixed, asked.jobs, truth_only=asked.truth):
        rows.append(row)
        if not (asked.bad and row.good and not row.unsteady):
            print(line(row), flush=True)
    order = {one.name: number for number, one in enumerate(table)}
    rows.sort(key=lambda row: order[row.scenario])
    counts = totals(rows)
    seconds = time.monotonic() - start
    kernel = os.uname().release
    print("\n" + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    print(f"on {kernel} in {seconds:.1f} s")
    if asked.json:
        document = {
            "kernel": kernel,
            "seconds": seconds,
            "totals": counts,
            "rows": [row.to_json() for row in rows],
        }
        asked.json.write_text(json.dumps(document, indent=1) + "\n")
    if counts["unsteady"] > UNSTEADY:
        print(
            f"more than {UNSTEADY} scenarios came out differently the second time: the oracle itself is off"
        )
        return 1
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
