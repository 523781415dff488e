"""``xdpctl doctor --snapshot``: the whole command without root, on a machine made by hand."""

import importlib.util
import json
from pathlib import Path

import pytest

from xdpctl.cli.main import main
from xdpctl.host import jsonform

_spec = importlib.util.spec_from_file_location(
    "machines", Path(__file__).parents[1] / "doctor" / "conftest.py"
)
machines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(machines)


@pytest.fixture
def saved(tmp_path):
    """veth xxx here, its peer yyy in namespace blue, and a healthy NIC; as a file."""
    host = machines.Machine()
    blue = host.netns("blue")
    host.veth("xxx", "yyy", netns_b=blue)
    host.link("eth0", None, driver="igb", xdp_features=0x23)
    path = tmp_path / "host.json"
    path.write_text(jsonform.text(jsonform.dump(host.snapshot())))
    return str(path)


def run(capsys, *argv):
    code = main(["doctor", *argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_json_has_the_documented_keys(capsys, saved):
    code, out, _ = run(capsys, "xxx", "--snapshot", saved, "--json")
    assert code == 1
    document = json.loads(out)
    assert set(document) >= {"findings", "links", "healthy", "namespaces", "problems"}
    for one in document["findings"]:
        assert set(one) >= {"id", "status", "interface", "netns", "summary", "errno", "evidence", "fix"}
        assert one["status"] in ("fail", "warn", "ok", "unknown")
        for fix in one["fix"]:
            assert set(fix) >= {"argv", "netns", "flaps_link", "inverse"}
    (story,) = [one for one in document["findings"] if one["fix"] and one["fix"][0]["argv"][2] == "yyy"]
    assert (story["id"], story["errno"], story["fix"][0]["netns"]) == (
        "redirect.veth-peer-napi",
        "EOPNOTSUPP",
        "blue",
    )


def test_people_get_evidence_consequence_and_a_line_to_type(capsys, saved):
    code, out, _ = run(capsys, "xxx", "--snapshot", saved)
    assert code == 1
    assert "\033" not in out
    assert "FAIL  frames redirected natively into xxx are lost" in out
    assert "xdp:xdp_redirect_err" in out
    assert "      fix: ip netns exec blue ethtool -K yyy gro on\n" in out
    assert out.endswith("1 link: 2 failures, 0 healthy\n")


def test_the_whole_host_warns_and_sums_up_the_healthy(capsys, saved):
    code, out, _ = run(capsys, "--snapshot", saved)
    assert code == 0
    assert out.splitlines()[-1] == "3 links in 2 network namespaces: 2 warnings, 1 healthy"


def test_a_healthy_link_is_told_so(capsys, saved):
    assert run(capsys, "eth0", "--snapshot", saved)[:2] == (
        0,
        "OK  eth0: nothing stands against native XDP and redirects  [link.ok]\n1 link: 1 healthy\n",
    )


def test_many_alike_are_counted(capsys, tmp_path):
    host = machines.Machine()
    for number in range(10):
        host.veth(f"a{number}", f"b{number}")
    path = tmp_path / "many.json"
    path.write_text(jsonform.text(jsonform.dump(host.snapshot())))
    code, out, _ = run(capsys, "--snapshot", str(path))
    assert code == 0
    assert "WARN  17 more redirect.veth-peer-napi: " in out
    assert len(out.splitlines()) < 50


@pytest.mark.parametrize(
    "argv",
    [
        ("--mode", "swim"),
        ("--fix", "--yes"),
        ("--probe",),
        ("--yes",),
        ("--netns", "blue", "--all-netns"),
        ("--netns", "green"),
        ("nope",),
        ("--redirect-to", "xxx"),
        ("--program", "p"),
        ("xxx", "--redirect-to", "nope"),
        ("xxx", "--prog", "/nonexistent.o"),
    ],
)
def test_bad_usage_is_one_line_and_a_hint(capsys, saved, argv):
    code, out, err = run(capsys, *argv, "--snapshot", saved)
    assert code == 2
    assert out == ""
    assert err.startswith("xdpctl: error: ")


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_a_truncated_snapshot_is_a_word(capsys, saved, cut):
    path = Path(saved)
    path.write_text(path.read_text()[:cut])
    code, _, err = run(capsys, "--snapshot", saved)
    assert code == 2
    assert "host.json" in err
