"""The JSON Schema that editors complete by: takes every example, refuses what xdpctl refuses, explains each key."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import tomli

from xdpctl.deploy import schema

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PRINTED = json.loads(json.dumps(schema.json_schema()))
CHECK = jsonschema.Draft202012Validator(PRINTED)


def test_it_is_a_schema_itself():
    jsonschema.Draft202012Validator.check_schema(PRINTED)
    assert PRINTED["$schema"].endswith("/draft/2020-12/schema")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_valid_as_it_is_written(path):
    assert [one.message for one in CHECK.iter_errors(tomli.loads(path.read_text()))] == []


def tables():
    yield "file", PRINTED
    yield from PRINTED["$defs"].items()


@pytest.mark.parametrize(
    ("name", "table"), list(tables()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_table_is_closed_and_every_key_explained(name, table):
    assert table["additionalProperties"] is False
    for key, content in table["properties"].items():
        said = (
            content.get("description") or PRINTED["$defs"][content["$ref"].rpartition("/")[2]]["description"]
        )
        assert said.endswith((".", '".', ": tools")), (name, key)


def test_toml_has_no_null():
    text = json.dumps(PRINTED)
    assert '"null"' not in text
    assert "null" not in text


def test_defaults_are_there():
    attach = PRINTED["$defs"]["AttachTable"]["properties"]
    assert attach["hook"]["default"] == "xdp"
    assert attach["order"]["default"] == 0
    assert PRINTED["$defs"]["DeploymentTable"]["properties"]["adopt"]["default"] is False
    assert PRINTED["$defs"]["MapTable"]["properties"]["on_schema_change"]["default"] == "fail"


WRONG = {
    "an unknown key": '[[interface]]\nname = "a"\nmtuu = 1500',
    "an unknown table": "[[programm]]",
    "a wrong type": '[[interface]]\nname = "a"\nmtu = "big"',
    "out of range": '[[interface]]\nname = "a"\nmtu = 10',
    "a word that is none": '[[interface]]\nname = "a"\nattach = [{ program = "x", hook = "xpd" }]',
    "no name": "[deployment]\nadopt = true",
    "a name that leaves the folder": '[deployment]\nname = "../../etc"',
    "a ring that nobody has": '[[interface]]\nname = "a"\nrings = { rxx = 1 }',
    "a redirect to nowhere": '[[redirect]]\nfrom = "a"',
    "a duration that is none": '[[interface]]\nname = "a"\nwait = "soon"',
    "no digest": '[[program]]\nname = "a"\nobject = "x"\nsha256 = "12"',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_xdpctl_refuses_an_editor_underlines(text):
    document = tomli.loads(text)
    assert list(CHECK.iter_errors(document))
    assert schema.check(document)[1]


def test_a_variable_may_stand_for_any_value():
    document = tomli.loads(
        '[deployment]\nname = "${n}"\nadopt = "${a}"\n[[interface]]\nname = "eth${i}"\nmtu = "${mtu:-1500}"\n'
        'wait = "${w}"\n'
        'rings = { rx = "${r}" }\nattach = [{ program = "${p}", hook = "${h}", order = "${o}" }]'
    )
    assert [one.message for one in CHECK.iter_errors(document)] == []
