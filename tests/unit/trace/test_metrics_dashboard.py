"""The dashboard as Grafana's schema wants it, as far as that shows without Grafana (its kinds/dashboard).

What its expressions give is seen by tests/kernel/test_metrics_prometheus.py.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from xdpctl.trace.metrics import METRICS

BOARD = json.loads((Path(__file__).resolve().parents[3] / "configs" / "grafana-dashboard.json").read_text())
PANELS = BOARD["panels"]
VARIABLES = {one["name"]: one for one in BOARD["templating"]["list"]}
CHOSEN = {"type": "prometheus", "uid": "${datasource}"}
"""The data source that the variable says, so that the file fits any Grafana."""
COLUMNS = 24
UNITS = {"pps", "bps", "s", "short", "percentunit", "ops"}
"""Of Grafana's units those that mean what is drawn."""
USED = re.compile(r"\$\{?(\w+)")
BY = re.compile(r"\bby \(([^)]*)\)")


def each_panel():
    return pytest.mark.parametrize("panel", PANELS, ids=[one["title"] for one in PANELS])


def test_the_head_says_what_grafana_needs():
    assert re.fullmatch(r"[\w-]{8,40}", BOARD["uid"])
    assert BOARD["title"]
    assert 36 <= BOARD["schemaVersion"] < 2**16
    assert (BOARD["time"]["to"], BOARD["time"]["from"]) == ("now", "now-1h")
    assert re.fullmatch(r"\d+[smh]", BOARD["refresh"])
    assert "id" not in BOARD, "a number of one Grafana's database"
    assert "__inputs" not in BOARD, "asked for only by the import form: provisioned files would not work"


def test_ids_and_titles_of_panels_are_their_own():
    for key in ("id", "title"):
        assert len({one[key] for one in PANELS}) == len(PANELS)
    assert all(isinstance(one["id"], int) and one["id"] > 0 for one in PANELS)


def test_panels_fill_the_grid_without_lying_over_each_other():
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in PANELS
        for x, y in itertools.product(range(panel["gridPos"]["w"]), range(panel["gridPos"]["h"]))
    ]
    assert len(taken) == len(set(taken)), "they overlap"
    height = max(y for _, y in taken) + 1
    assert set(taken) == set(itertools.product(range(COLUMNS), range(height))), "holes, or beyond the edge"


@each_panel()
def test_a_panel_is_whole(panel):
    assert panel["type"] in {"stat", "timeseries"}
    assert panel["title"]
    assert panel["datasource"] == CHOSEN
    assert panel["targets"]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    for one in panel["fieldConfig"]["overrides"]:  # what is of another unit
        assert one["matcher"]["id"] == "byFrameRefID"
        assert one["matcher"]["options"] in [target["refId"] for target in panel["targets"]]
        assert [(found["id"], found["value"] in UNITS) for found in one["properties"]] == [("unit", True)]
    if "thresholds" in defaults:
        first, *others = [one["value"] for one in defaults["thresholds"]["steps"]]
        assert first is None, "the first step is minus infinity"
        assert others == sorted(others)
        assert defaults["color"]["mode"] == "thresholds", "or they colour nothing"


@each_panel()
def test_queries_of_a_panel_have_names_a_data_source_and_legends_of_labels_that_are_left(panel):
    names = [one["refId"] for one in panel["targets"]]
    assert len(names) == len(set(names))
    for target in panel["targets"]:
        assert target["datasource"] == CHOSEN
        left = BY.findall(target["expr"])
        labels = {
            word.strip()
            for words in (left or [",".join(one.labels) for one in METRICS if one.exposed in target["expr"]])
            for word in words.split(",")
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


@each_panel()
def test_a_panel_shows_what_the_variables_choose(panel):
    for target in panel["targets"]:
        assert set(USED.findall(target["expr"])) <= VARIABLES.keys() | {"__rate_interval"}
        selectors = target["expr"].count("xdpctl_")
        assert target["expr"].count('instance=~"$instance"') == selectors
        # each rate over what the scrapes' interval asks for, and nothing else over a range
        assert target["expr"].count("rate(") == target["expr"].count("[$__rate_interval]")


def test_variables_stand_in_the_order_in_which_they_need_each_other():
    assert BOARD["templating"]["list"][0] == {
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "data source", "current": {},
    }  # fmt: skip
    known = {"datasource"}
    for one in BOARD["templating"]["list"][1:]:
        assert (one["type"], one["datasource"]) == ("query", CHOSEN)
        assert one["query"]["query"] == one["definition"]
        assert set(USED.findall(one["definition"])) <= known
        # several at once, or all, which is a regular expression that takes empty labels, too
        assert (one["multi"], one["includeAll"], one["allValue"]) == (True, True, ".*")
        assert one["current"]["value"] == "$__all"
        known.add(one["name"])
