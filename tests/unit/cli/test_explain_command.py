"""``xdpctl explain`` as typed."""

import json

import pytest

from xdpctl.cli.main import main


def run(capsys, *argv):
    code = main(["explain", *argv])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("query", ["ENXIO", "-6", "6", "Peer MTU is too large to set XDP"])
def test_errnos_of_either_sign_and_texts_are_answered(capsys, query):
    code, out, _ = run(capsys, query)
    assert code == 0
    assert out.startswith("1. ")
    assert "tell:" in out
    assert "fix:" in out


def test_json_has_ranked_candidates(capsys):
    code, out, _ = run(capsys, "ENXIO", "--op", "redirect", "--driver", "veth", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["query"] == "ENXIO"
    fits = [one["fit"] for one in document["candidates"]]
    assert fits == sorted(fits, reverse=True)
    assert {one["op"] for one in document["candidates"]} == {"redirect"}


def test_what_is_not_known_says_so(capsys):
    code, out, err = run(capsys, "the cat sat on the mat")
    assert (code, out) == (1, "")
    assert "nothing is known" in err


@pytest.mark.parametrize("argv", [("ENXIO", "--op", "swim"), ("ENXIO", "--nope")])
def test_bad_options_end_with_2(capsys, argv):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "hint:" in err
