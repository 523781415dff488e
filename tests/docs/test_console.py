"""The reader of console blocks sees commands, exit codes and differences."""

from __future__ import annotations

from console import disagreement, other_shape, shorten, steps

PAGE = """
text
```console
$ ip link show \\
    veth_xxx0
12: veth_xxx0
$ xdpctl doctor
fail
$ echo $?
1
```
```sh
$ not this
```
"""


def test_commands_continuations_and_exit_codes_are_read():
    first, second = steps(PAGE)
    assert (first.command, first.shown, first.exit_code) == ("ip link show veth_xxx0", ["12: veth_xxx0"], 0)
    assert (second.command, second.shown, second.exit_code) == ("xdpctl doctor", ["fail"], 1)


def test_numbers_and_widths_may_differ_but_words_may_not():
    shown = ["veth_xxx0   native  id 12  tag 3b185187f1855c4c"]
    assert disagreement(shown, "veth_xxx0 native id 7 tag aaaabbbb12345678\n") is None
    assert disagreement(shown, "veth_xxx0 generic id 7 tag aaaabbbb12345678\n") is not None


def test_missing_and_surplus_lines_are_told():
    assert disagreement(["a", "b"], "a\n") is not None
    assert disagreement(["a"], "a\nb\n") is not None
    assert disagreement([], "anything\n") is None


def test_dots_stand_for_any_lines():
    assert disagreement(["a", "...", "d"], "a\nb\nc\nd\n") is None
    assert disagreement(["a", "..."], "a\nb\n") is None
    assert disagreement(["...", "e"], "a\nb\n") is not None


def test_an_example_belongs_to_the_command_before_it():
    (step,) = steps('```console\n$ x --json\n```\n\n```json\n{"a": [1]}\n```\n')
    assert step.example == {"a": [1]}


def test_a_script_is_run_and_prints_the_text_behind_it():
    script, after = steps(
        "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n2\n```\n\n```console\n$ x\n```\n"
    )
    assert script.command == "python3 -W error - <<'END'\nprint(1)\nprint(2)\nEND"
    assert (script.line, script.shown, script.end) == (1, ["1", "2"], 9)
    assert after.command == "x"


def test_examples_differ_by_keys_not_by_values():
    assert other_shape({"a": [{"b": 1}]}, {"a": [{"b": 2}, {"b": 3}]}) is None
    assert other_shape({"a": None}, {"a": {"b": 1}}) is None
    assert other_shape({"a": [{"b": 1}]}, {"a": [{"c": 1}]}) is not None
    assert other_shape({"a": 1}, {"a": "1"}) is not None
    assert shorten({"a": [1, 2], "b": {"c": [{"d": 3}, {"d": 4}]}}) == {"a": [1, 2], "b": {"c": [{"d": 3}]}}
