"""``IFACE... OBJ``: the object comes last, and a slip is answered with the right command line."""

from __future__ import annotations

import pytest

from xdpctl.attach.model import Attachment, ProgramRef
from xdpctl.cli.attach import _split
from xdpctl.cli.status import table
from xdpctl.errors import ConfigError


def test_the_last_word_is_the_object(tmp_path):
    obj = tmp_path / "x.o"
    obj.write_bytes(b"")
    assert _split(["eth0", "eth1", str(obj)]) == (["eth0", "eth1"], obj)
    assert _split(["eth0", "missing.o"])[1].name == "missing.o", "that it is missing is told by who opens it"


@pytest.mark.parametrize(
    ("words", "said", "typed"),
    [
        (["OBJ"], "no interface given", "xdpctl attach IFACE OBJ"),
        (["eth0"], "no object file given", "xdpctl attach eth0 prog.o"),
        (["OBJ", "eth0"], "the object comes last, not eth0", "xdpctl attach eth0 OBJ"),
        (["eth0", "OBJ", "eth1"], "the object comes last, not eth1", "xdpctl attach eth0 eth1 OBJ"),
    ],
)
def test_slips_are_answered_with_the_right_words(tmp_path, words, said, typed):
    obj = tmp_path / "x.o"
    obj.write_bytes(b"")
    with pytest.raises(ConfigError, match=said) as refused:
        _split([str(obj) if one == "OBJ" else one for one in words])
    assert refused.value.hint == typed.replace("OBJ", str(obj))


def test_the_status_table_leaves_out_columns_that_would_be_empty():
    one = Attachment("eth0", 2, None, 1, "xdp", "native", "link", ProgramRef(3, "f", "aa"), link_id=5)
    columns, rows = table((one,))
    assert columns == ["INTERFACE", "HOOK", "MODE", "VIA", "PROGRAM", "ID", "TAG", "LINK", "OWNER", "SINCE"]
    assert rows == [["eth0", "xdp", "native", "link", "f", "3", "aa", "5", "other", "?"]]
