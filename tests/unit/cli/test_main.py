"""However a command ends, the edge turns it into words and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest

from xdpctl.cli import main as edge
from xdpctl.errors import (
    AttachError,
    ConfigError,
    MapError,
    NetlinkError,
    ObjectError,
    PrivilegeError,
    UnsupportedError,
    XdpctlError,
)


@pytest.fixture
def command(monkeypatch):
    """Put one more command into the table: what it does is the test's."""

    def define(body):
        import typer

        app = typer.Typer()

        @app.command()
        def run(as_json: bool = typer.Option(False, "--json"), name: str = typer.Option("x")) -> None:
            body()

        module = types.ModuleType("xdpctl_test_command")
        module.app = app
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(edge.COMMANDS, "probe", module.__name__)

    return define


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("c"), 2),
        (ObjectError("o"), 4),
        (AttachError("a", errno=16), 6),
        (MapError("m"), 7),
        (NetlinkError("n"), 8),
        (UnsupportedError("f", needs="a", has="b"), 9),
        (PrivilegeError("p", capability="CAP_BPF"), 10),
    ],
)
def test_each_family_has_its_code_and_one_line(command, capsys, error, code):
    command(raising(error))
    assert edge.main(["probe"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == f"xdpctl: error: {error.message}"


def test_json_errors_go_to_stdout_as_an_object(command, capsys):
    command(raising(AttachError("a", errno=16, extack="said", interface="eth0", hint="h")))
    assert edge.main(["probe", "--json"]) == 6
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["errno"] == "EBUSY"
    assert error["extack"] == "said"
    assert error["exit_code"] == 6
    assert captured.err == "xdpctl: error: a\nhint: h\n"


def test_a_defect_is_one_line_that_admits_it(command, capsys, monkeypatch):
    monkeypatch.delenv("XDPCTL_DEBUG", raising=False)
    command(raising(ZeroDivisionError("division by zero")))
    assert edge.main(["probe"]) == 70
    assert capsys.readouterr().err.startswith(
        "xdpctl: internal error: ZeroDivisionError: division by zero\nhint: "
    )
    monkeypatch.setenv("XDPCTL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        edge.main(["probe"])


def test_ctrl_c_is_130_and_a_word(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert edge.main(["probe"]) == 130
    assert capsys.readouterr().err == "xdpctl: interrupted\n"


def test_ctrl_c_that_python_wrapped_is_still_one(command, capsys):
    def body():
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    command(body)
    assert edge.main(["probe"]) == 130


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe", "--nmae", "x"], "No such option: --nmae"),
        (["prob"], "No such command 'prob'"),
        (["probe", "--name"], "Option '--name' requires an argument"),
        (["probe", "stray"], "unexpected extra argument"),
    ],
)
def test_usage_errors_are_told_like_all_others(command, capsys, words, said):
    command(lambda: None)
    assert edge.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0]
    assert lines[0].startswith("xdpctl: error: ")
    assert lines[1].endswith("--help")
    assert len(lines) == 2


def test_control_characters_in_errors_are_spelled_out(command, capsys):
    command(raising(XdpctlError("name \x1b[31mred\x07")))
    edge.main(["probe"])
    assert capsys.readouterr().err == "xdpctl: error: name \\x1b[31mred\\x07\n"


def test_exit_codes_of_commands_pass_through(command):
    import typer

    command(raising(typer.Exit(1)))
    assert edge.main(["probe"]) == 1
    command(raising(SystemExit(3)))
    assert edge.main(["probe"]) == 3


def test_plain_values_reach_the_command_without_pydantic():
    code = (
        "import sys; from xdpctl.cli.main import main; main(['--version']); print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["xdpctl", done.stdout.split()[1], "False"]


def test_values_that_are_no_plain_strings_go_typer_s_own_way(monkeypatch, capsys):
    import typer

    app = typer.Typer()
    got = []

    @app.command()
    def run(number: int = typer.Option(1, min=0), words: list[str] = typer.Argument(None)) -> None:  # noqa: B008
        got.append((number, words))

    module = types.ModuleType("xdpctl_test_numbers")
    module.app = app
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(edge.COMMANDS, "numbers", module.__name__)
    assert edge.main(["numbers", "--number", "7", "a", "b"]) == 0
    assert got == [(7, ["a", "b"])]
    assert edge.main(["numbers", "--number", "-7"]) == 2
    assert edge.main(["numbers", "--number", "seven"]) == 2
    assert "valid integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("xdpctl at", "attach"),
        ("xdpctl attach --mode ge", "generic"),
        ("xdpctl attach --hook in", "ingress"),
        ("xdpctl attach --type xd", "xdp"),
        ("xdpctl attach l", "lo"),
        ("xdpctl detach l", "lo"),
        ("xdpctl status l", "lo"),
    ],
)
def test_the_shell_is_offered_what_fits(words, offered):
    done = subprocess.run(
        [sys.executable, "-m", "xdpctl.cli"],
        env={"_XDPCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert offered in done.stdout.split()


def test_programs_of_the_object_are_offered(tmp_path):
    from xdpctl.cli import complete

    assert (
        complete.program_of_object(types.SimpleNamespace(params={"words": ["eth0", str(tmp_path)]}), "") == []
    )
    assert complete.namespace("no-such-") == []
