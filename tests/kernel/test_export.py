"""`xdpctl export`: what runs, as a file that changes nothing where it was written."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from attachments import HEADER, attach, detach
from deployments import SOURCE, apply_file, assert_same, destroy, forget_all, machine, plan_of
from kernels import GRO_STARTS_NAPI

from xdpctl.attach import runstate
from xdpctl.deploy import state

pytestmark = pytest.mark.kernel

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BUILT = CONFIGS.parent / "build" / "bpf"
SENDS = (
    HEADER
    + """
volatile const __u32 target_ifindex = 0;
volatile const __u64 limits[2];
SEC("xdp") int sends(struct xdp_md *c) { return limits[0] ? bpf_redirect(target_ifindex, 0) : XDP_PASS; }
"""
)


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


def write(path, text):
    path.write_text(text)
    return path


def deployment(obj, netns, *, name="edge", more="", interface="va"):
    return (
        f'[deployment]\nname = "{name}"\n[[program]]\nname = "guard"\nobject = "{obj}"\n{more}\n'
        f'[[interface]]\nname = "{interface}"\nnetns = "{netns}"\n[[interface.attach]]\nprogram = "guard"\n'
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_config_comes_back_from_the_machine(world, xdpctl, path, tmp_path):
    host, pod = world.namespace(), world.namespace(f"pod-{world.tag}")
    for name in ("eth0", "veth_in0", "veth_xxx0"):
        world.veth(name, f"{name[:12]}p", netns_a=host, netns_b=pod)
    text = path.read_text().replace("[[interface]]\nname", f'[[interface]]\nnetns = "{host}"\nname')
    text = text.replace("[[redirect]]", f'[[redirect]]\nnetns = "{host}"')
    (tmp_path / "blocked.csv").write_text((CONFIGS / "blocked.csv").read_text())
    text = text.replace('"../', f'"{CONFIGS.parent}/')
    if "XDPCTL_TEST_SLOW" in os.environ or shutil.which("clang") is None:
        # a guest: what `make` has compiled from the same sources
        text = re.sub(r'source = ".*/bpf/(\w+)\.bpf\.c"', rf'object = "{BUILT}/\1.bpf.o"', text)
    file = write(tmp_path / path.name, text)
    if path.stem == "veth-redirect" and not GRO_STARTS_NAPI:
        attach(BUILT / "pass.bpf.o", "veth_xxx0p", netns=pod)  # or it would fail, and is not applied
    more = {"netns": pod, "match": "*"} if "pod-" in text and "netns =" in path.read_text() else {}
    apply_file(file, **more)
    applied = machine(host, pod)

    made = tmp_path / "made.toml"
    xdpctl("export", "--deployment", path.stem, "-o", made, "--copy-to", tmp_path / "made", check=True)
    assert str(tmp_path) not in made.read_text(), "what was copied is named relative to the file"
    done = xdpctl("plan", made)
    assert (done.returncode, done.stdout) == (0, f"{path.stem}: nothing to do\n")
    destroy(path.stem)
    apply_file(made)  # and it makes the same machine anew
    assert_same(applied, host, pod)
    destroy(path.stem)


def test_the_export_says_what_is_and_not_what_was_asked(world, pair, xdpctl, compile_c, tmp_path):
    entries = "[{ key = 1, value = 5 }, { key = 2, value = 6 }]"
    more = f"[program.globals]\nlimit = 3\n[program.maps.table]\nentries = {entries}"
    text = deployment(compile_c(SOURCE), pair, more=more).replace(
        "[[interface.attach]]", "mtu = 1400\nfeatures = { tso = false, gro = true }\n[[interface.attach]]"
    )
    apply_file(write(tmp_path / "a.toml", text))
    world.ip("link set va mtu 1450", pair)
    world.run("ethtool", "-K", "va", "tx-tcp6-segmentation", "on", netns=pair)
    xdpctl(
        "map", "set", str(next((state.pin_folder("edge") / "maps").rglob("table@*"))), "2", "9", check=True
    )
    made = write(tmp_path / "made.toml", xdpctl("export", check=True).stdout)
    text = made.read_text()
    assert "mtu = 1450\n" in text
    assert "tx-tcp6-segmentation = true\n" in text
    assert "tx-tcp-segmentation = false\n" in text
    assert "entries = [{ key = 1, value = 5 }, { key = 2, value = 9 }]\n" in text
    assert "limit = 3\n" in text
    assert plan_of(made).changes == ()
    destroy("edge")


def test_what_was_attached_by_hand_is_taken_over_with_its_globals(world, pair, xdpctl, compile_c, tmp_path):
    world.veth("out", "outp", netns_a=pair, netns_b=pair)
    obj = compile_c(SENDS)
    xdpctl(
        "attach", "--force", "--netns", pair, "--set", "target_ifindex=out", "--set", "limits=[7,8]", "va", obj,
        check=True,
    )  # fmt: skip
    done = xdpctl("export", "--netns", pair, "--name", "mine", "--json", check=True)
    (told,) = done.json()["deployments"]
    assert told["programs"][0]["object"] == str(obj)
    assert [(one["from"], one["to"]) for one in told["redirects"]] == [("va", "out")]
    made = write(tmp_path / "made.toml", told["toml"])
    assert 'target_ifindex = "out"\nlimits = [7, 8]\n' in made.read_text()
    assert "adopt = true" in made.read_text()
    found = machine(pair)["links"][pair, "va"]["xdp"]
    kinds = [one.kind for one in plan_of(made).changes]
    assert kinds == ["program.keep", "program.load", "xdp.update"]
    xdpctl("apply", "--force", "--yes", made, check=True)
    assert machine(pair)["links"][pair, "va"]["xdp"] == found, "the same program, its constants included"
    xdpctl("validate", made, check=True)
    assert plan_of(made).changes == ()
    destroy("mine")


def test_what_nobody_knows_the_object_of_is_said_and_left_alone(world, pair, xdpctl, compile_c, tmp_path):
    obj = compile_c(SOURCE)
    attach(obj, "va", netns=pair, via="netlink", program="deployed_xdp")
    for one in runstate.read():
        runstate.forget([one])
    attach(obj, "vb", netns=pair, program="deployed_xdp")
    done = xdpctl("export", "--netns", pair, check=True)
    assert "# Not in this file:\n#   deployed_xdp (program " in done.stdout
    assert "on native XDP of va: nothing tells which object it was loaded from\n" in done.stdout
    assert "note: not exported: deployed_xdp (program " in done.stderr
    xdpctl("validate", write(tmp_path / "made.toml", done.stdout), check=True)
    only = xdpctl("export", "--netns", pair, "v[a]", check=True).stdout
    assert "[[interface]]" not in only
    assert "vb" not in only
    missing = xdpctl("export", "--netns", pair, "nothing0")
    assert missing.returncode == 2
    assert "no such interface: nothing0" in missing.stderr
    for name in ("va", "vb"):
        detach(name, netns=pair, all=True, foreign=True)


def test_two_deployments_are_two_files(pair, xdpctl, compile_c, tmp_path):
    obj = compile_c(SOURCE)
    for name, interface in (("one", "va"), ("two", "vb")):
        apply_file(write(tmp_path / f"{name}.toml", deployment(obj, pair, name=name, interface=interface)))
    refused = xdpctl("export")
    assert refused.returncode == 2
    assert "2 deployments run here (one, two)" in refused.stderr
    assert "--deployment one, or -o FOLDER/" in refused.stderr
    done = xdpctl("export", "-o", f"{tmp_path}/out/", check=True)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        f"{tmp_path}/out/{name}.toml" for name in ("one", "two")
    ]
    for name in ("one", "two"):
        assert plan_of(tmp_path / "out" / f"{name}.toml").changes == ()
        destroy(name)
    assert xdpctl("export", "--deployment", "one").returncode == 2


def test_settings_made_by_hand_are_told_and_defaults_are_not(world, pair, xdpctl, tmp_path):
    assert "[[interface]]" not in xdpctl("export", "--netns", pair, check=True).stdout
    world.ip("link set va mtu 1400", pair)
    # Linux 5.13 made "off" what a veth begins with
    world.run("ethtool", "-K", "vb", "gro", "on" if GRO_STARTS_NAPI else "off", netns=pair)
    made = xdpctl("export", "--netns", pair, check=True).stdout
    where, gro = f'netns = "{pair}"\n', "true" if GRO_STARTS_NAPI else "false"
    assert made.count("[[interface]]") == 2
    assert f'[[interface]]\nname = "va"\n{where}mtu = 1400\n' in made
    assert f'[[interface]]\nname = "vb"\n{where}[interface.features]\nrx-gro = {gro}\n' in made
    every = write(tmp_path / "all.toml", xdpctl("export", "--netns", pair, "--all", check=True).stdout)
    assert "up = true\nmtu = 1400\n" in every.read_text()
    assert "tx-checksum-ip-generic = true\n" in every.read_text()
    assert plan_of(every).changes == ()


def test_many_elements_go_into_a_file_beside(pair, xdpctl, compile_c, tmp_path):
    rows = "".join(f"{key},{key * 2}\n" for key in range(1500))
    (tmp_path / "rows.csv").write_text(rows)
    more = '[program.maps.table]\nmax_entries = 2000\nentries_from = "rows.csv"'
    apply_file(write(tmp_path / "a.toml", deployment(compile_c(SOURCE), pair, more=more)))
    made = tmp_path / "out" / "edge.toml"
    xdpctl("export", "-o", made, "--copy-to", tmp_path / "out" / "files", check=True)
    assert 'entries_from = "files/guard.table.csv"\n' in made.read_text()
    assert plan_of(made).changes == ()
    destroy("edge")


def test_elements_that_no_file_declares_are_told_on_request(pair, xdpctl, compile_c, tmp_path):
    more = "[program.maps.table]\nentries = { 5 = 6 }"
    apply_file(write(tmp_path / "a.toml", deployment(compile_c(SOURCE), pair, more=more)))
    table = next((state.pin_folder("edge") / "maps").rglob("table@*"))
    xdpctl("map", "set", str(table), "7", "8", check=True)
    assert "7" not in xdpctl("export", check=True).stdout.partition("entries")[2].partition("\n")[0]
    made = write(tmp_path / "inline.toml", xdpctl("export", "--entries", check=True).stdout)
    assert 'entries = [{ key = "5", value = 6 }, { key = 7, value = 8 }]\n' in made.read_text()
    assert plan_of(made).changes == ()
    destroy("edge")
