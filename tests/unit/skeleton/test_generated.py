"""Generated skeletons: mypy --strict takes those of all our programs, and they know when they are stale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xdpctl.cli.main import main
from xdpctl.errors import ConfigError, ObjectError
from xdpctl.skeleton import generate

ROOT = Path(__file__).resolve().parents[3]
OBJECTS = sorted((ROOT / "build" / "bpf").glob("*.bpf.o"))
RIGHT = """
from xdpctl import Skeleton
from count_skel import Count, counter
from redirect_map_skel import RedirectMap
from tc_count_skel import TcCount

def use() -> None:
    with Count.open() as skel:
        skel.rodata.verdict = "XDP_DROP"
        skel.maps.actions.max_entries = 5
        skel.load()
        number: int = skel.maps.actions[0][1].packets
        skel.maps.actions[0] = counter(packets=1, bytes=2)
        skel.maps.actions[0] = {"packets": number}
        for key, values in skel.maps.actions.items():
            print(key + 1, values[0].bytes + 1, values.sum())
        with skel.progs.xdp_count.attach("eth0", mode="native") as link:
            link.pin("edge/eth0")
    with RedirectMap.open() as redirect:
        redirect.maps.tx_ports[0] = 7
        redirect.maps.tx_ports[1] = "eth0"
    with TcCount.open() as tc:
        for name in tc.progs:
            print(tc.progs[name].name)
    with Skeleton.open("x.bpf.o") as any_:
        any_.rodata.x = 3
        any_.progs.y.attach("eth0", mode="native")
"""
WRONG = {
    "skel.rodata.verdikt = 1": "verdikt",
    "skel.rodata.verdict = 1.5": "float",
    "skel.maps.action": "action",
    "skel.maps.actions['x', 1]": "tuple",
    "skel.maps.actions[0][1].packet": "packet",
    "skel.maps.actions[0] = 1.5": "float",
    "skel.progs.xdp_count.attach_tcx('eth0')": "attach_tcx",
    "skel.progs.xdp_count.attach('eth0', mode='fast')": "mode",
    "skel.progs.xdp_cuont": "xdp_cuont",
    "counter(packet=1)": "packet",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("skeletons")
    for path in OBJECTS:
        generate.write(generate.generate(path), made / generate.module_name(path))
    return made


def mypy(folder: Path, *files: str) -> str:
    """What mypy --strict says, one line an error; nothing where all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10", "--config-file", "",
         "--cache-dir", str(ROOT / "build" / "mypy-skeletons"), "--no-error-summary", "--hide-error-context",
         *files],
        cwd=folder, capture_output=True, text=True, timeout=200, check=False,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_there_are_objects_of_all_programs():
    sources = {path.name.removesuffix(".c") for path in (ROOT / "bpf").glob("*.bpf.c")}
    assert sources <= {path.name.removesuffix(".o") for path in OBJECTS}


def test_mypy_strict_takes_every_skeleton_and_sees_each_mistake(folder):
    (folder / "right.py").write_text(RIGHT)
    lines = ["from count_skel import Count, counter", "def use(skel: Count) -> None:"]
    first = len(lines) + 1
    lines += [f"    {one}" for one in WRONG]
    (folder / "wrong.py").write_text("\n".join(lines) + "\n")
    said = mypy(
        folder, *sorted(one.name for one in folder.glob("*_skel.pyi")), "right.py", "wrong.py"
    ).splitlines()
    assert [one for one in said if not one.startswith("wrong.py")] == []
    for number, (line, about) in enumerate(WRONG.items(), first):
        assert any(f"wrong.py:{number}: error" in one and about in one for one in said), (line, said)


def test_the_modules_themselves_are_strict_python(folder):
    # without the .pyi beside it mypy reads the module
    text = generate.generate(OBJECTS[0]).module
    (folder / "alone.py").write_text(text)
    assert mypy(folder, "alone.py") == ""


@pytest.mark.parametrize("embed", [True, False], ids=["embedded", "beside"])
def test_the_same_object_gives_the_same_text_from_any_folder(embed, tmp_path):
    copied = tmp_path / OBJECTS[0].name
    copied.write_bytes(OBJECTS[0].read_bytes())
    here, there = generate.generate(OBJECTS[0], embed=embed), generate.generate(copied, embed=embed)
    assert here == there
    assert str(ROOT) not in here.module + here.stub
    assert str(tmp_path) not in there.module + there.stub


def load_module(path: Path):
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_embedded_object_is_opened_wherever_the_module_lies(tmp_path):
    path = ROOT / "build" / "bpf" / "count.bpf.o"
    module, _ = generate.write(generate.generate(path), tmp_path / "count_skel.py")
    made = load_module(module)
    with made.Count.open() as skel:
        skel.rodata.verdict = 1
        assert skel.rodata.verdict == 1
        assert isinstance(skel.types.counter(packets=3), made.counter)
    with pytest.raises(AttributeError, match="no such struct: countr"):
        made.countr  # noqa: B018


def test_an_object_beside_that_has_changed_is_refused_with_the_command_that_helps(tmp_path):
    path = tmp_path / "pass.bpf.o"
    path.write_bytes((ROOT / "build" / "bpf" / "pass.bpf.o").read_bytes())
    module, _ = generate.write(generate.generate(path, embed=False), tmp_path / "pass_skel.py")
    made = load_module(module)
    with made.Pass.open() as skel:
        assert skel.state == "opened"
    assert generate.stale(path, module) is None
    path.write_bytes((ROOT / "build" / "bpf" / "drop.bpf.o").read_bytes())
    with pytest.raises(ConfigError, match="has changed since its skeleton pass_skel") as told:
        made.Pass.open()
    assert told.value.hint.startswith("xdpctl gen skeleton")
    assert "has changed" in generate.stale(path, module)


def test_a_damaged_module_is_told(tmp_path):
    path = ROOT / "build" / "bpf" / "pass.bpf.o"
    made = generate.generate(path)
    module = tmp_path / "pass_skel.py"
    module.write_text(made.module.replace("AAAA", "AAAB", 1))
    with pytest.raises(ObjectError, match="damaged"):
        load_module(module).Pass.open()


def test_the_command_writes_checks_and_ends_with_1_when_stale(tmp_path, capsys):
    path = tmp_path / "count.bpf.o"
    path.write_bytes((ROOT / "build" / "bpf" / "count.bpf.o").read_bytes())
    module = str(tmp_path / "my_count.py")
    assert main(["gen", "skeleton", str(path), "-o", module]) == 0
    assert main(["gen", "skeleton", str(path), "-o", module, "--check"]) == 0
    stub = tmp_path / "my_count.pyi"
    stub.write_text(stub.read_text() + "# edited\n")
    capsys.readouterr()
    assert main(["gen", "skeleton", str(path), "-o", module, "--check", "--json"]) == 1
    assert '"current": false' in capsys.readouterr().out
    path.write_bytes((ROOT / "build" / "bpf" / "drop.bpf.o").read_bytes())
    assert main(["gen", "skeleton", str(path), "-o", module, "--check"]) == 1
    assert "count.bpf.o has changed" in capsys.readouterr().out
    assert main(["gen", "skeleton", str(path), "-o", str(tmp_path / "no name.py")]) == 2


def test_names_of_modules_and_classes_follow_the_file():
    assert generate.module_name(Path("a/tx-swap.frags.bpf.o")) == "tx_swap_frags_skel.py"
    assert generate.class_name(Path("tx-swap.frags.bpf.o")) == "TxSwapFrags"
    assert generate.class_name(Path("7.o")) == "Object7"
