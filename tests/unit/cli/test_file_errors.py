"""A file that the system refuses is told as such, wherever a command met it."""

import pytest

from xdpctl.cli.main import main


@pytest.mark.parametrize(
    "argv",
    [
        ("inspect", "x" * 300),
        ("attach", "eth0", "x" * 300 + ".o"),
        ("build", "x" * 300 + ".c"),
        ("doctor", "--snapshot", "x" * 300),
        ("doctor", "--prog", "x" * 300),
    ],
)
def test_a_name_too_long_for_a_file_is_an_error_in_words(argv, capsys):
    assert main(argv) in (2, 4)
    told = capsys.readouterr().err
    assert "xdpctl: error: " in told
    assert "internal" not in told
