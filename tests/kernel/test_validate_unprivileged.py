"""`xdpctl validate` and `schema` as nobody, where neither /run/xdpctl nor the bpffs may be looked into."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
from attachments import detach, xdp
from deployments import SOURCE, forget_all

import xdpctl.deploy.load
import xdpctl.deploy.schema
from xdpctl.cli import app, check_boot, drift, export, output, schema, validate
from xdpctl.cli.main import main
from xdpctl.deploy import boot, healing, running, unseen
from xdpctl.deploy import export as exporting
from xdpctl.netlink import netns
from xdpctl.obj import reader, shipped

pytestmark = pytest.mark.kernel

NOBODY = 65534
LOADED = (app, boot, check_boot, export, exporting, output, reader, running, schema, shipped, validate)
LOADED += (drift, healing, unseen, xdpctl.deploy.load, xdpctl.deploy.schema)
"""Imported while we still may: the interpreter's own files may be root's alone."""
GOOD = """
[deployment]
name = "edge"
[[program]]
name = "guard"
source = "guard.bpf.c"
[[program]]
name = "list"
object = "builtin:blocklist"
[program.maps.blocked4]
entries_from = "blocked.csv"
[[interface]]
match = "veth*"
netns = "pod-*"
[[interface.attach]]
program = "list"
"""


@pytest.fixture
def folder():
    """Files that everybody may read, and two folders that nobody may enter."""
    path = Path(tempfile.mkdtemp(prefix="xt"))
    (path / "guard.bpf.c").write_text("not even C: it is not compiled\n")
    (path / "blocked.csv").write_text("192.0.2.0/24\n")
    for closed in ("run", "bpffs"):
        (path / closed).mkdir(mode=0o700)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_nobody(folder, *argv):
    """(exit code, stdout, stderr) of a command line in a child without any privilege."""
    assert LOADED
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            closed = {"XDPCTL_RUN": f"{folder}/run", "XDPCTL_BPFFS": f"{folder}/bpffs", "HOME": "/gone"}
            os.environ.update(closed if folder is not None else {})
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.chdir("/")
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            out, err = sys.stdout, sys.stderr
            code = main([*map(str, argv)])
            said = json.dumps((code, out.getvalue(), err.getvalue()))
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            said = json.dumps((None, "", traceback.format_exc()))
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return tuple(json.loads(said))


def test_nobody_validates_a_deployment(folder):
    (folder / "edge.toml").write_text(GOOD)
    code, out, err = as_nobody(folder, "validate", folder / "edge.toml")
    assert (code, out, err) == (0, "deployment edge is valid: 2 programs, 1 interface, 0 redirects\n", "")


def test_nobody_is_told_everything_that_is_wrong_at_once(folder):
    text = GOOD.replace('"blocked.csv"', '"blockd.csv"').replace('name = "list"', 'name = "lst"')
    text += 'mod = "native"\n[[interface.attach]]\nprogram = "guard"\n[[interface]]\nname = "a/b"\n'
    text += "features = { gro = true, rx-gro = false }\n"
    (folder / "edge.toml").write_text(text)
    code, out, err = as_nobody(folder, "validate", folder / "edge.toml")
    assert code == 2
    assert out == ""
    assert "unknown key (did you mean mode?)" in err
    assert "'a/b' is not allowed" in err
    (folder / "edge.toml").write_text(text.replace('mod = "native"\n', "").replace("a/b", "ab"))
    code, _, err = as_nobody(folder, "validate", folder / "edge.toml")
    assert code == 2
    for said in (
        "no such file:",
        "did you mean blocked.csv?",
        "no [[program]] is called list (did you mean lst?)",
        "a second program on the XDP hook",
        "rx-gro = false contradicts gro = true: both are rx-gro",
    ):
        assert said in err


def test_nobody_prints_the_schema(folder):
    code, out, err = as_nobody(folder, "schema")
    assert (code, err) == (0, "")
    assert '"title": "xdpctl deployment"' in out


def test_a_redirect_to_what_nothing_makes_is_named_by_plan(world, xdpctl, tmp_path):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    path = tmp_path / "edge.toml"
    path.write_text(
        '[deployment]\nname = "edge"\n[[program]]\nname = "p"\nobject = "builtin:pass"\n'
        f'[[interface]]\nname = "va"\nnetns = "{inside}"\n[[interface.attach]]\nprogram = "p"\n'
        f'[[interface]]\nname = "vx"\nnetns = "{inside}"\n'
        f'[[redirect]]\nfrom = "va"\nto = "vbb"\nnetns = "{inside}"\n'
        f'[[redirect]]\nfrom = "vq"\nto = "vb"\nnetns = "{inside}"\n'
    )
    done = xdpctl("plan", path)
    assert done.returncode == 2
    assert (
        f"{path}:14: redirect[0]: redirect to vbb: no such interface in network namespace {inside}"
        in done.stderr
    )
    assert "(did you mean vb?)" in done.stderr
    assert f"{path}:18: redirect[1]: redirect from vq: no such interface" in done.stderr
    assert f"{path}:11: interface[1]: no such interface: vx" in done.stderr


def test_nobody_can_ask_what_a_boot_takes_but_not_export_half_of_what_runs(
    world, xdpctl, compile_c, tmp_path
):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "p"\nobject = "{compile_c(SOURCE)}"\n'
        '[[interface]]\nname = "va"\n[[interface.attach]]\nprogram = "p"\n'
    )
    xdpctl("apply", "--yes", path, check=True, netns=inside)
    with netns.enter(inside):
        code, _, err = as_nobody(None, "export")
        assert (code, err.splitlines()[0]) == (
            10,
            "xdpctl: error: tell what runs: not permitted, needs CAP_SYS_ADMIN",
        )
        code, out, err = as_nobody(None, "check-boot", "--json")
    assert code == 1, err
    (item,) = [one for one in json.loads(out)["items"] if one["fate"] == "lost"]
    assert item["deployment"] == "edge", (item, err)
    xdpctl("destroy", "--yes", "edge", check=True, netns=inside)
    forget_all()


EDGE = """
[deployment]
name = "edge"
[[program]]
name = "p"
object = "{}"
[program.maps.table]
entries = {{ 5 = 6 }}
[[interface]]
name = "va"
mtu = 1400
[[interface.attach]]
program = "p"
"""


def test_drift_tells_nobody_what_is_seen_and_calls_the_rest_unknown(world, xdpctl, compile_c, tmp_path):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    path = tmp_path / "edge.toml"
    path.write_text(EDGE.format(compile_c(SOURCE)))
    xdpctl("apply", "--yes", path, check=True, netns=inside)

    def drifts():
        with netns.enter(inside):
            code, out, _ = as_nobody(None, "drift", "--json")
        return code, {
            (one["kind"], one["target"]): one["message"]
            for one in json.loads(out)["deployments"][0]["drifts"]
        }

    hidden = ("unknown", "pins")
    code, found = drifts()
    assert (code, set(found)) == (10, {hidden})
    assert found[hidden].startswith("/sys/fs/bpf/xdpctl can't be looked into, ")
    with netns.enter(inside):
        code, out, err = as_nobody(None, "drift", "edge")
    assert out == f"edge: unknown   pins: {found[hidden]}\n"
    assert (code, err) == (10, "hint: run it as root, with sudo\n")

    # what nobody can see is told as to root
    world.ip("link set va mtu 1300", inside)
    code, found = drifts()
    assert (code, set(found)) == (1, {hidden, ("setting", "va")})
    detach("va", netns=inside)
    code, found = drifts()
    assert (code, found["missing", "va"]) == (1, "p is not on xdp")
    world.run(
        "ip",
        "link",
        "set",
        "va",
        "xdpdrv",
        "obj",
        str(compile_c(xdp("stranger"))),
        "sec",
        "xdp",
        netns=inside,
    )
    code, found = drifts()
    assert code == 1
    assert re.fullmatch(r"xdp runs program \d+, not p \(program \d+\)", found["changed", "va"])
    # whose program that is, is not for it to know where nothing was written down
    shutil.rmtree("/run/xdpctl/programs")
    code, found = drifts()
    assert (code, set(found)) == (1, {hidden, ("setting", "va"), ("unknown", "va")})
    world.run("ip", "link", "set", "va", "xdpdrv", "off", netns=inside)
    xdpctl("destroy", "--yes", "edge", check=True, netns=inside)
    forget_all()


def test_drift_of_what_nobody_may_look_into_is_neither_gone_nor_missing(world, xdpctl, compile_c, tmp_path):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    path = tmp_path / "edge.toml"
    for named in (inside, f"{inside[:-1]}*"):
        more = f'netns = "{named}"\nmtu = 1400'
        path.write_text(EDGE.format(compile_c(SOURCE)).replace("mtu = 1400", more))
        xdpctl("apply", "--yes", path, check=True)
        code, out, err = as_nobody(None, "drift")
        told = f"edge: unknown   {inside}/va: network namespace {inside} can't be looked into\nedge: unknown   pins: "
        assert (code, out.startswith(told)) == (10, True), (out, err)
    xdpctl("destroy", "--yes", "edge", check=True)
    path.write_text(EDGE.format(compile_c(SOURCE)) + 'hook = "ingress"\n')
    xdpctl("apply", "--yes", path, check=True, netns=inside)
    with netns.enter(inside):
        code, out, err = as_nobody(None, "drift")
    assert out.splitlines()[0] == f"edge: unknown   {inside}/va: whether p is on ingress can't be told"
    assert code == 10
    xdpctl("destroy", "--yes", "edge", check=True, netns=inside)
    forget_all()
