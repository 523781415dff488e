"""The reader of console blocks sees commands, exit codes and differences."""

from __future__ import annotations

from console import disagreement, steps

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
