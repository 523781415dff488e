"""The matrix as one document: scenario x kernel x driver, predicted / happened / fixed; as JSON, table and page."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .guest import Outcome

DRIVERS = ("igb", "virtio_net", "vmxnet3", "e1000e", "netdevsim", "bond", "macvtap", "macvlan", "vlan", "bridge", "ifb",
           "tun", "tap", "netkit", "dummy", "veth", "lo")  # fmt: skip
"""In the order in which a scenario's name is searched: hardware first, for a bridge over igb is about igb."""


def driver_of(scenario: str) -> str:
    """The driver that a scenario's name is about."""
    return next((name for name in DRIVERS if re.search(rf"\b{name}\b", scenario)), "core")


def _oracle(folder: Path) -> dict[str, Any] | None:
    path = folder / "oracle.json"
    return json.loads(path.read_text()) if path.exists() else None


def _tests(folder: Path) -> dict[str, Any] | None:
    path = folder / "tests.xml"
    if not path.exists():
        return None
    cases = list(ET.parse(path).getroot().iter("testcase"))  # noqa: S314 - our own file
    told: dict[str, list[str]] = {"failed": [], "skipped": []}
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        for child in case:
            if child.tag in ("failure", "error"):
                told["failed"].append(f"{name}: {(child.get('message') or '').splitlines()[0][:200]}")
            elif child.tag == "skipped":
                told["skipped"].append(f"{name}: {child.get('message')}")
    return {"total": len(cases), "passed": len(cases) - len(told["failed"]) - len(told["skipped"]), **told}


def library(variant: str, version: str, good: bool, folder: Path) -> dict[str, Any]:
    """What the bindings' tests said on one libbpf."""
    output = (folder / "stdout").read_text(errors="replace")
    return {
        "variant": variant,
        "version": version,
        "good": good,
        "tests": _tests(folder),
        "log": "" if good else output[-3000:],
    }


def gather(
    outcomes: Sequence[Outcome], libraries: Sequence[dict[str, Any]], work: Path, *, seconds: float
) -> dict[str, Any]:
    """Everything the guests left, and whether it is good."""
    kernels = []
    for outcome in outcomes:
        folder = work / outcome.series
        oracle, tests = _oracle(folder), _tests(folder)
        entry: dict[str, Any] = {
            "series": outcome.series,
            "ended": outcome.reason,
            "seconds": round(outcome.seconds, 1),
            "release": oracle["kernel"] if oracle else None,
            "oracle": oracle,
            "tests": tests,
            "good": outcome.ok,
        }
        if not outcome.ok:
            stderr = folder / "stderr"
            entry["log"] = (
                stderr.read_text(errors="replace")[-3000:] if stderr.exists() else ""
            ) + outcome.console.read_text(errors="replace")[-1500:]
        kernels.append(entry)
    rows = [row for kernel in kernels if kernel["oracle"] for row in kernel["oracle"]["rows"]]
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "seconds": round(seconds, 1),
        "cells": sum(row["verdict"] != "not here" for row in rows),
        "drivers": sorted({driver_of(row["scenario"]) for row in rows if row["verdict"] != "not here"}),
        "verdicts": dict(verdicts),
        "misses": verdicts["miss"],
        "false_alarms": verdicts["false alarm"],
        "fixes": sum(bool(row["fixed"]) and row["fixed"] != "none offered" for row in rows),
        "fixes_verified": sum(row["fixed"] == "verified" for row in rows),
        "unsteady": [row["scenario"] for row in rows if row.get("unsteady")],
        "not_good": [
            {
                "kernel": kernel["series"],
                **{
                    key: row[key] for key in ("scenario", "verdict", "predicted", "happened", "fixed", "note")
                },
            }
            for kernel in kernels
            if kernel["oracle"]
            for row in kernel["oracle"]["rows"]
            if not row["good"]
        ],
        "kernels": kernels,
        "libraries": list(libraries),
        "good": all(one["good"] for one in (*kernels, *libraries)),
    }


def table(made: dict[str, Any]) -> str:
    """For a terminal: what is off, then the totals."""
    lines = []
    for row in made["not_good"]:
        lines.append(f"!! {row['kernel']:5} {row['scenario']}")
        lines.append(f"         predicted {row['predicted'] or '-'}; happened {row['happened'] or '-'}; "
                     f"fixed {row['fixed'] or '-'}; {row['verdict']} {row['note']}")  # fmt: skip
    lines.append("")
    lines.append(f"{'kernel':8}{'release':26}{'cells':>6}{'failing':>9}{'healthy':>9}{'misses':>8}{'alarms':>8}"
                 f"{'fixes':>10}{'not here':>10}{'tests':>14}{'seconds':>9}")  # fmt: skip
    for kernel in made["kernels"]:
        counts = (kernel["oracle"] or {}).get("totals", {})
        tests = kernel["tests"]
        told = f"{tests['passed']}/{tests['total']}" if tests else "-"
        number = [counts.get(one, 0) for one in ("scenarios", "failing", "healthy", "misses", "false_alarms")]
        fixes = f"{counts.get('fixes_verified', 0)}/{counts.get('fixes', 0)}"
        lines.append(
            f"{kernel['series']:8}{kernel['release'] or kernel['ended'][:24]:26}"
            + "".join(f"{one:{width}}" for one, width in zip(number, (6, 9, 9, 8, 8), strict=True))
            + f"{fixes:>10}{counts.get('not_here', 0):10}{told:>14}{kernel['seconds']:9.0f}"
        )
        lines += _of_tests(tests)
        if not kernel["good"] and "log" in kernel and not kernel["oracle"]:
            lines.append(kernel["log"])
    for one in made["libraries"]:
        tests = one["tests"]
        told = f"{tests['passed']}/{tests['total']} tests" if tests else one["log"]
        lines.append(f"libbpf {one['version']:10} {told}")
        lines += _of_tests(tests)
    lines.append(
        f"{made['cells']} cells, {len(made['kernels'])} kernels, {len(made['drivers'])} drivers"
        f" ({', '.join(made['drivers'])}); {made['misses']} misses, {made['false_alarms']} false alarms,"
        f" {made['fixes_verified']} of {made['fixes']} fixes verified,"
        f" {len(made['unsteady'])} rows only at a second look; {made['seconds']:.0f} s"
    )
    return "\n".join(lines)


def _of_tests(tests: dict[str, Any] | None) -> list[str]:
    """The failed ones, and the skipped ones with their reasons."""
    found = tests or {"failed": [], "skipped": []}
    return [f"    {how}: {name}" for how in ("failed", "skipped") for name in found[how]]


_PAGE = (Path(__file__).parent / "page.html").read_text


def page(made: dict[str, Any]) -> str:
    """docs/matrix.html: one self-contained page."""
    cells: dict[str, dict[str, Any]] = {}
    for kernel in made["kernels"]:
        for row in (kernel["oracle"] or {}).get("rows", []):
            entry = cells.setdefault(row["scenario"], {"driver": driver_of(row["scenario"]), "by": {}})
            entry["by"][kernel["series"]] = {
                key: row[key]
                for key in (
                    "verdict", "predicted", "happened", "fixed", "note", "extack", "words", "fix", "good"
                )
            } | {
                "findings": [
                    {"summary": one["summary"], "evidence": one["evidence"], "id": one["id"], "status": one["status"]}
                    for one in row["findings"]
                    if one["status"] != "ok"
                ]
            }  # fmt: skip
    data = {
        "kernels": [{"series": one["series"], "release": one["release"]} for one in made["kernels"]],
        "summary": {
            key: made[key]
            for key in ("cells", "misses", "false_alarms", "fixes", "fixes_verified", "drivers")
        },
        "scenarios": [{"name": name, **entry} for name, entry in cells.items()],
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return (
        _PAGE()
        .replace("/*DATA*/", text)
        .replace("<!--TITLE-->", html.escape("xdpctl: predicted and happened, by kernel"))
    )
