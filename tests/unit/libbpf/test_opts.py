"""Option structs refuse what ctypes would let pass in silence."""

from __future__ import annotations

import ctypes

import pytest

from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import opts


@pytest.mark.parametrize("cls", opts.C_NAMES, ids=opts.C_NAMES.get)
def test_a_new_struct_knows_its_size_and_is_zero_otherwise(cls):
    made = cls()
    assert made.sz == ctypes.sizeof(made)
    assert bytes(made)[ctypes.sizeof(ctypes.c_size_t) :] == bytes(
        ctypes.sizeof(made) - ctypes.sizeof(ctypes.c_size_t)
    )


def test_a_misspelt_field_is_refused():
    with pytest.raises(AttributeError):
        opts.XdpAttachOpts(old_prog_fb=3)
    with pytest.raises(AttributeError):
        opts.XdpAttachOpts().old_fd = 3


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (opts.XdpAttachOpts, "old_prog_fd", 2**31),
        (opts.XdpAttachOpts, "old_prog_fd", -(2**31) - 1),
        (opts.LinkCreateOpts, "flags", 2**32 + 3),
        (opts.LinkCreateOpts, "flags", -1),
        (opts.XdpQueryOpts, "attach_mode", 256),
        (opts.MapBatchOpts, "elem_flags", 2**64),
    ],
)
def test_a_number_that_does_not_fit_is_refused(cls, field, value):
    with pytest.raises(ValueError, match=f"{field} = {value} does not fit"):
        cls(**{field: value})


def test_a_number_within_a_union_is_checked_too():
    made = opts.LinkCreateOpts()
    with pytest.raises(ValueError, match="relative_id"):
        made.tcx.relative_id = 2**32
    made.tcx.relative_id = 2**32 - 1
    assert made.tcx.relative_id == 2**32 - 1


def test_the_largest_numbers_fit():
    assert opts.XdpAttachOpts(old_prog_fd=2**31 - 1).old_prog_fd == 2**31 - 1
    assert opts.MapBatchOpts(elem_flags=2**64 - 1).elem_flags == 2**64 - 1


def test_a_field_newer_than_the_library_is_told_by_name():
    newer = opts.MapCreateOpts(token_fd=3)
    assert newer.checked((1, 4)) is newer
    with pytest.raises(
        UnsupportedError, match=r"token_fd of bpf_map_create_opts needs libbpf 1\.4, this is libbpf 1\.1"
    ):
        newer.checked((1, 1))
    assert opts.MapCreateOpts(map_flags=1).checked((1, 0)).map_flags == 1
