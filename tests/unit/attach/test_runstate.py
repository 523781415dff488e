"""Run-time state and names of pins: written by us, read back from anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.attach import ownership, runstate
from xdpctl.attach.model import Attachment, ProgramRef, iso
from xdpctl.attach.runstate import Record

ONE = Record(12, 345, "count", "aabb", "count.o", "netlink", 1.5, ("/sys/fs/bpf/x",), ((7, 2),))


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv(runstate.ENVIRONMENT, str(tmp_path / "run"))
    return tmp_path / "run" / "programs"


def test_a_record_is_read_as_it_was_written(state):
    assert runstate.read() == {}
    assert runstate.write(ONE) is None
    assert runstate.read() == {12: ONE}
    assert [path.name for path in state.iterdir()] == ["12.json"], "no half-written file beside it"
    runstate.forget([12, 99])
    assert runstate.read() == {}
    assert not state.exists()


@given(content=st.one_of(st.binary(max_size=200), st.sampled_from([b"{}", b"[]", b'{"id": "x"}', b"null"])))
def test_damaged_records_are_no_records(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(runstate.ENVIRONMENT, str(folder))
        (folder / "programs").mkdir()
        (folder / "programs" / "5.json").write_bytes(content)
        assert runstate.read() == {}


def test_a_place_that_can_t_be_written_is_told_not_raised(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(runstate.ENVIRONMENT, str(tmp_path / "file"))
    assert "Not a directory" in runstate.write(ONE)


def test_marks_of_clsact_pass_on_to_another_record(state):
    runstate.write(ONE._replace(via="clsact"))
    runstate.write(ONE._replace(id=13, via="clsact", clsact=()))
    runstate.forget([12])
    assert runstate.made_clsact(7, 2)
    runstate.unmark_clsact(7, 2)
    assert not runstate.made_clsact(7, 2)


@given(
    name=st.text(
        st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=15
    )
)
def test_a_pin_s_name_tells_the_interface_whatever_it_is_called(name):
    for hook in ("xdp", "tcx-ingress", "netkit-peer"):
        pin = ownership.link_pin(4026531840, 3, name, hook, 77)
        assert "." not in pin.name
        assert pin.parent.name == "4026531840"
        assert ownership.interface_of(pin) == name


def test_the_json_shape_of_an_attachment():
    one = Attachment(
        "eth0", 2, None, 1, "xdp", "native", "link", ProgramRef(3, "f", "aa"), link_id=5, since=0.0
    )
    shape = one.to_json()
    assert list(shape)[:10] == [
        "interface", "netns", "ifindex", "hook", "mode", "via", "program", "link_id", "pin", "owner",
    ]  # fmt: skip
    assert (shape["since"], shape["pin"], shape["owner"]) == ("1970-01-01T00:00:00Z", None, "other")
    assert "note" not in shape
    assert iso(None) is None


def test_an_attachment_is_described_with_what_tells_it_from_others():
    one = Attachment(
        "eth0", 2, None, 1, "xdp", "native", "link", ProgramRef(3, "f", "aa"), link_id=5, owner="xdpctl"
    )
    assert one.describe() == "f (program 3, link 5, attached by xdpctl)"
    nameless = Attachment("eth0", 2, None, 1, "xdp", "native", None, ProgramRef(3))
    assert nameless.describe() == "program 3 (not attached by xdpctl)"
