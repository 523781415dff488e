# ruff: noqa: E501 - a table of values and what is said of them
"""Odd values in deployments: one line each, that says what is allowed."""

from __future__ import annotations

import pytest

from xdpctl.deploy.desired import DeploymentError
from xdpctl.deploy.load import load

START = '[deployment]\nname = "edge"\n'
LOOP = '[[interface]]\nname = "eth0"\n'
LIST = '[[program]]\nname = "b"\nobject = "builtin:blocklist"\n[program.maps.blocked6]\n'
ODD = {
    "a NUL in a path": ('[[program]]\nname = "p"\nobject = "\\u0000x"\n', 5, r"'\x00x' is not allowed (no control"),
    "no number at all": (LOOP + "mtu = nan\n", 5, "nan is not allowed (a finite number)"),
    "a date": (LOOP + "mtu = 1979-05-27\n", 5, "1979-05-27 is not a whole number"),
    "less than no time": (LOOP + "wait = -1\n", 5, "-1 is out of range (at least 0)"),
    "more than a day": (LOOP + 'wait = "99999h"\n', 3, "wait = '99999h' is longer than a day"),
    "two points": (LOOP + 'wait = "1.2.3s"\n', 5, "'1.2.3s' is not allowed (a duration such as"),
    "an element of no type": (LIST + "entries = [1.5]\n", 7, "1.5 is not a table, a whole number or text"),
    "an element's key": (LIST + "entries = [{ ky = 1, key = 2 }]\n", 7, "entries[0].ky: unknown key (did you mean key?)"),
    "one pair of brackets": ('[interface]\nname = "a"\n', 3, "this is an array of tables ([[interface]])"),
    "one pair of brackets inside": (LOOP + "[interface.attach]\n", 5, "this is an array of tables ([[interface.attach]])"),
    "nothing as a text": (LOOP + 'driver = ""\n', 5, "'' is not allowed (at least 1 character)"),
    "a name of blanks": ('[[redirect]]\nfrom = " "\nto = "a"\n', 4, "' ' is not allowed (no blanks and no slash"),
    "a long text": (LOOP + f'driver = "{"a" * 5000}"\n', 5, "aaa... is not allowed (at most 4096 characters)"),
    "a variable that is a list": ("[vars]\na = [1]\n", 4, "a list is not true or false, a whole number, a number or text"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said"), ODD.values(), ids=ODD)
def test_an_odd_value_is_one_line(tmp_path, text, line, said):
    path = tmp_path / "a.toml"
    path.write_text(START + text)
    with pytest.raises(DeploymentError) as caught:
        load([path], compile_sources=False)
    (one,) = caught.value.errors
    assert one.place.line == line
    assert said in str(one)


def test_a_nul_in_an_include_is_a_mistake_like_others(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('include = ["\\u0000"]\n' + START)
    with pytest.raises(DeploymentError, match="can't be a path"):
        load([path], compile_sources=False)
