# ruff: noqa: E501 - tables of files and what is said of them
"""Bad deployments: every error at once, each with its file, its line and what would be right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.deploy import positions, schema
from xdpctl.deploy.desired import DeploymentError
from xdpctl.deploy.load import load

ROOT = Path(__file__).resolve().parents[3]
START = '[deployment]\nname = "edge"\n'
LOOP = '[[interface]]\nname = "eth0"\n'


def errors(tmp_path, text, *, variables=None, environment=None, name="a.toml"):
    """What is said against a file: (line, text) of each error."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DeploymentError) as caught:
        load([path], variables=variables, environment=environment or {}, compile_sources=False)
    return [(one.place.line, str(one)) for one in caught.value.errors]


BAD = [
    ("a key nobody knows", START + LOOP + "mtuu = 1500\n", 5, "interface[0].mtuu: unknown key (did you mean mtu?)"),
    ("a table nobody knows", START + "[[programm]]\n", 3, "did you mean program?"),
    ("a wrong type", START + LOOP + 'mtu = "big"\n', 5, "'big' is not a whole number"),
    ("a number out of range", START + LOOP + "mtu = 10\n", 5, "10 is out of range (at least 68)"),
    ("a word that is none of those allowed", START + LOOP + '[[interface.attach]]\nprogram="x"\nhook="xpd"\n', 7, "one of 'xdp', 'ingress', 'egress'"),
    ("an inner table's key", START + LOOP + "rings = { rx = 1,\n  tx_pus = 2 }\n", 6, "interface[0].rings.tx_pus: unknown key (did you mean tx-push"),
    ("no name", "[deployment]\nadopt = true\n", 1, "deployment.name: missing"),
    ("no deployment at all", LOOP, None, "no [deployment]"),
    ("a name that would leave the pins' folder", '[deployment]\nname = "../../etc"\n', 2, "becomes part of a pin's path"),
    ("a program's name with a slash", START + '[[program]]\nname = "a/b"\nobject = "x.o"\n', 4, "'a/b' is not allowed"),
    ("no source and no object", START + '[[program]]\nname = "a"\n', 3, "source or object: give exactly one of them"),
    ("a missing file", START + '[[program]]\nname = "a"\nobject = "gone.o"\n', 5, "no such file:"),
    ("a missing source", START + '[[program]]\nname = "a"\nsource = "gone.bpf.c"\n', 5, "no such file:"),
    ("a file that is no object", START + '[[program]]\nname = "a"\nobject = "a.toml"\n', 3, "is not an ELF file"),
    ("another file than was meant", START + f'[[program]]\nname = "a"\nobject = "a.toml"\nsha256 = "{"0" * 64}"\n', 6, "is another file: its SHA-256 is"),
    ("no such builtin", START + '[[program]]\nname = "a"\nobject = "builtin:nope"\n', 5, "no such builtin program: nope"),
    ("a program that is not there", START + LOOP + '[[interface.attach]]\nprogram = "gone"\n', 6, "no [[program]] is called gone"),
    ("a feature on and off", START + LOOP + "features = { gro = true, rx-gro = false }\n", 5, "rx-gro = false contradicts gro = true"),
    ("a mode for TC", START + LOOP + '[[interface.attach]]\nprogram="x"\nhook="egress"\nmode="native"\n', 5, "is for XDP; egress has none"),
    ("via for another hook", START + LOOP + '[[interface.attach]]\nprogram="x"\nvia="tcx"\n', 5, "does not go with hook = 'xdp'"),
    ("nothing that says which interface", START + "[[interface]]\nmtu = 1500\n", 3, "say which interfaces are meant"),
    ("a glob as a name", START + '[[interface]]\nname = "veth*"\n', 4, "globs go into match"),
    ("a duration that is none", START + '[[interface]]\nname = "a"\nwait = "soon"\n', 5, "interface[0].wait"),
    ("no TOML", START + "x = = 1\n", 3, "no TOML:"),
    ("a value twice", START + "name = 'b'\n", 3, "no TOML:"),
    ("a variable nobody gave", START + '[[interface]]\nname = "${uplink}"\n', 4, "no variable ${uplink} (give it: --var uplink=...)"),
    ("a variable made of itself", '[vars]\na = "${b}"\nb = "${a}"\n' + START, 2, "is made of itself"),
    ("an include that is not there", 'include = ["gone.toml"]\n' + START, 1, "can't read"),
    ("an include that fits nothing", 'include = ["gone-*.toml"]\n' + START, 1, "fits no file"),
    ("a redirect without its target", START + '[[redirect]]\nfrom = "a"\n', 3, "redirect[0].to: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_a_mistake_is_named_with_its_line(tmp_path, text, line, said):
    found = errors(tmp_path, text)
    assert any(said in message for _, message in found), found
    assert line in [at for at, message in found if said in message]


def test_every_mistake_is_told_at_once(tmp_path):
    text = '[deployment]\nname = "a b"\n[[interface]]\nname = "x"\nmtu = "a"\nrngs = 1\n[[program]]\nname = "p"\n'
    found = errors(tmp_path, text)
    assert [line for line, _ in found] == [2, 5, 6, 7]


def test_two_programs_on_one_xdp_hook_contradict_each_other(tmp_path):
    programs = "".join(f'[[program]]\nname = "{one}"\nobject = "builtin:pass"\n' for one in "ab")
    hooks = "".join(f'[[interface.attach]]\nprogram = "{one}"\n' for one in "ab")
    found = errors(tmp_path, START + programs + LOOP + hooks)
    assert len(found) == 1
    assert "a second program on the XDP hook, which holds one: a is there" in found[0][1]


def test_globals_and_maps_are_held_against_the_object(tmp_path):
    text = START + (
        '[[program]]\nname = "p"\nobject = "builtin:blocklist"\nfunction = "nope"\n[program.globals]\nmatch_sourc = true\n'
        'match_destination = "perhaps"\n[program.maps.blocked4]\nentries = ["1.2.3.4/33"]\n[program.maps.blockd6]\n'
        "max_entries = 1\n"
    )
    found = "\n".join(message for _, message in errors(tmp_path, text))
    for said in (
        "has no function nope",
        "did you mean match_source?",
        "'perhaps' does not fit match_destination",
        "'1.2.3.4/33' does not fit key of blocked4",
        "has no map blockd6 (did you mean blocked6?)",
    ):
        assert said in found


def test_bad_lines_of_a_csv_are_numbered_and_the_rest_counted(tmp_path):
    lines = ["key,value", "192.0.2.0/24", "# a remark", "", *["a,b,c"] * 15]
    (tmp_path / "e.csv").write_text("\n".join(lines))
    text = (
        START
        + '[[program]]\nname = "p"\nobject = "builtin:blocklist"\n[program.maps.blocked4]\nentries_from = "e.csv"\n'
    )
    found = errors(tmp_path, text)
    assert found[1][0] == 5
    assert "3 columns: KEY,VALUE expected" in found[1][1]
    assert any("5 more such lines" in message for _, message in found)


def test_a_file_of_fifty_megabytes_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "big.toml"
    with path.open("w") as file:
        file.write(START)
        file.truncate(50 << 20)
    with pytest.raises(DeploymentError, match="more than 4 MiB"):
        load([path], compile_sources=False)


def test_a_symbolic_link_out_of_the_tree_is_refused(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret.o").write_bytes(b"\x7fELF")
    (tmp_path / "tree" / "x.o").symlink_to(tmp_path / "secret.o")
    found = errors(tmp_path / "tree", START + '[[program]]\nname = "p"\nobject = "x.o"\n')
    assert "leads out of" in found[0][1]
    found = errors(tmp_path / "tree", START + '[[program]]\nname = "p"\nobject = "../secret.o"\n')
    assert "leads out of" not in found[0][1], "what a path says aloud is no way out"


def test_a_folder_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "edge.toml").write_text(START)
    (tmp_path / "bytes.toml").write_bytes(b"# one\nname = '\xff'\n")
    with pytest.raises(DeploymentError) as caught:
        load([tmp_path / "empty", tmp_path / "egde.toml", tmp_path / "bytes.toml"], compile_sources=False)
    text = str(caught.value)
    assert "no *.toml in this folder" in text
    assert re.search(r"egde.toml: no such file or directory \(did you mean .*edge.toml\?\)", text)
    assert "bytes.toml:2: no TOML: not UTF-8 (byte 0xff)" in text


def test_errors_have_a_json_form(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(START + LOOP + "mtu = 1\n")
    with pytest.raises(DeploymentError) as caught:
        load([path], compile_sources=False)
    told = caught.value.to_json()
    assert told["exit_code"] == 2
    assert told["errors"] == [
        {
            "file": str(path),
            "line": 5,
            "path": "interface[0].mtu",
            "message": "1 is out of range",
            "hint": "at least 68",
        }
    ]
    json.dumps(told)


# -- what is right ------------------------------------------------------------------------------------------------


def test_files_folders_includes_and_variables_make_one_deployment(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "1.toml").write_text('[[program]]\nname = "p"\nobject = "builtin:pass"\n')
    (tmp_path / "parts" / "2.toml").write_text(
        '[vars]\nmtu = 1400\nname = "inner"\n[[interface]]\nmatch = "${glob}"\nmtu = "${mtu}"\n'
    )
    text = 'include = ["parts/*.toml"]\n[vars]\nname = "edge"\nglob = "veth${n}*"\n[deployment]\nname = "${name}-${HOST:-here}$$"\n'
    (tmp_path / "main.toml").write_text(text.replace("$$", ""))
    found = load(
        [tmp_path / "main.toml"], variables={"n": "7"}, environment={}, compile_sources=False
    ).deployment
    assert found.name == "edge-here"
    assert [one.name for one in found.programs] == ["p"]
    assert (found.interfaces[0].match, found.interfaces[0].settings.mtu) == (("veth7*",), 1400)
    found = load(
        [tmp_path / "main.toml"],
        variables={"n": "7", "name": "x"},
        environment={"HOST": "h"},
        compile_sources=False,
    )
    assert found.deployment.name == "x-h"


def test_a_variable_that_no_file_uses_is_a_mistake(tmp_path):
    (tmp_path / "a.toml").write_text('[deployment]\nname = "${name}"\n')
    with pytest.raises(DeploymentError, match=r"--var nam: no file uses \$\{nam\} \(did you mean name\?\)"):
        load([tmp_path / "a.toml"], variables={"name": "x", "nam": "y"}, compile_sources=False)


def test_the_json_schema_takes_every_file_of_configs():
    made = schema.json_schema()
    assert made["$schema"].startswith("https://json-schema.org/")
    known = set(made["properties"])
    assert known == {"include", "vars", "deployment", "program", "interface", "redirect"}
    assert "from" in made["$defs"]["RedirectTable"]["properties"]


keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True)
values = st.recursive(
    st.integers(-1000, 1000) | st.booleans() | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def written(value):
    """A value as TOML, on lines of its own where TOML allows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[\n" + "".join(f"{written(one)}, # x\n" for one in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + " }"
    return str(value)


@given(st.dictionaries(keys, st.dictionaries(keys, values, max_size=3) | st.lists(st.dictionaries(keys, values, max_size=2), min_size=1, max_size=3), max_size=4))  # fmt: skip
def test_every_value_of_any_toml_has_its_line(document):
    text = ""
    for key, part in document.items():
        for table in part if isinstance(part, list) else [part]:
            text += f"[[{key}]]\n" if isinstance(part, list) else f"[{key}]\n"
            text += "".join(f"{name} = {written(value)}\n" for name, value in table.items())
    assert tomli.loads(text) == document
    found = positions.lines(text)
    rows = text.split("\n")

    def check(value, path):
        line = rows[found[path] - 1]
        if isinstance(path[-1], str):
            assert path[-1] in line
        for key, one in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            check(one, (*path, key))

    for key, part in document.items():
        check(part, (key,))
