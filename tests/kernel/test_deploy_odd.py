"""Deployments in odd company: readers that go away, full disks, damaged state, files that fit nothing."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from attachments import attach, detach, programs_of
from deployments import SOURCE, apply_file, destroy, forget_all

from xdpctl.attach.status import status
from xdpctl.bpf import pins
from xdpctl.deploy import state

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@pytest.fixture
def edge(world, compile_c, tmp_path):
    """(namespace with va and vb, a deployment's file that is not applied)."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{compile_c(SOURCE)}"\n'
        f'[[interface]]\nname = "va"\nnetns = "{inside}"\n[[interface.attach]]\nprogram = "guard"\n'
    )
    return inside, path


def shell(tmp_path, line):
    command = f"{shlex.quote(sys.executable)} -m xdpctl.cli"
    return subprocess.run(
        ["bash", "-c", line.replace("XDPCTL", command)], check=False, capture_output=True, text=True, timeout=60,
        cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_nobody_has_to_listen_to_an_apply(edge, tmp_path):
    inside, path = edge
    done = shell(tmp_path, f"XDPCTL apply --yes {path} 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert programs_of(inside, "va") == ["deployed_xdp"], "a reader that went away does not take it back"
    done = shell(tmp_path, "XDPCTL destroy --yes edge > /dev/full")
    assert done.returncode == 74
    assert "can't write the output: No space left on device" in done.stderr
    assert programs_of(inside, "va") == []


def test_a_damaged_state_is_named_by_every_command_and_mended_by_its_hint(edge, tmp_path, xdpctl):
    _, path = edge
    apply_file(path)
    file = state.folder("edge") / "state.json"
    file.write_text("damaged")
    for command in (
        ["drift"],
        ["history"],
        ["destroy", "--yes", "edge"],
        ["apply", "--yes", path],
        ["rollback", "edge"],
    ):
        done = xdpctl(*command)
        assert done.returncode == 2
        assert f"{file} is damaged" in done.stderr
    assert "deployment edge: " in xdpctl("export", check=True).stderr
    assert xdpctl("check-boot", "--json").json()["lost"]
    hint = done.stderr.partition("hint: ")[2].strip()
    assert hint == f"cp {state.folder('edge')}/history/1.json {file}"
    subprocess.run(hint.split(), check=True)
    assert xdpctl("drift", check=True).stdout == "edge: as applied\n"
    destroy("edge")


def test_each_misfit_of_a_device_is_a_line_of_its_own(edge, xdpctl):
    _, path = edge
    path.write_text(
        path.read_text().replace(
            "[[interface.attach]]", "rings = { rx = 10 }\nfeatures = { grow = true }\n[[interface.attach]]"
        )
    )
    done = xdpctl("plan", "--json", path)
    assert done.returncode == 2
    errors = done.json()["error"]["errors"]
    assert [one["message"].partition(":")[0] for one in errors] == ["va", "va"]
    assert [one["line"] for one in errors] == [6, 6]
    assert "rx-ring: veth has no rings that can be set" in errors[0]["message"]
    assert "grow=on: this kernel has no such feature; did you mean gro" in errors[1]["message"]


def test_a_glob_that_fits_nothing_is_noted(edge, xdpctl):
    inside, path = edge
    path.write_text(path.read_text().replace('name = "va"', 'match = ["ens*", "enp*"]'))
    done = xdpctl("plan", path, check=True)
    assert done.stderr == f"note: {path}:6: ens*, enp* fits no interface now\n"
    assert programs_of(inside, "va") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "it lacks 'xdpctl_plan'"),
        ("[]", "is no plan of xdpctl"),
        ("{", "is no plan of xdpctl"),
        ('{"xdpctl_plan": 99}', "is a plan of format 99"),
        ('{"xdpctl_plan": "x"}', "is no plan of xdpctl"),
        ('{"xdpctl_plan": 1, "deployment": {"name": "../../x"}, "changes": []}', "it lacks 'programs'"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_in_words(xdpctl, tmp_path, content, said):
    path = tmp_path / "plan.json"
    path.write_text(content)
    done = xdpctl("apply", "--yes", path)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_plan_that_somebody_changed_does_not_leave_the_pins_folder(edge, xdpctl, tmp_path):
    inside, path = edge
    plan = tmp_path / "plan.json"
    xdpctl("plan", "--out", plan, path)
    document = json.loads(plan.read_text())
    document["deployment"]["name"] = "../../../tmp/x"
    plan.write_text(json.dumps(document))
    done = xdpctl("apply", "--yes", plan)
    assert done.returncode == 2
    assert programs_of(inside, "va") == []


def test_what_a_vanished_namespace_leaves_behind_goes_with_its_deployment(world, edge, xdpctl):
    inside, path = edge
    apply_file(path)
    world.run("ip", "netns", "del", inside)
    done = xdpctl("drift")
    assert done.returncode == 1
    assert f"no such network namespace: {inside}" in done.stdout
    assert f"wants: no such network namespace: {inside}" in xdpctl("export", check=True).stderr
    assert xdpctl("apply", "--yes", path).returncode == 2
    xdpctl("destroy", "--yes", "edge", check=True)
    assert [str(one) for one in pins.walk()] == [], "the pin of a link whose device is gone included"


def test_the_same_deployment_from_another_file_is_no_new_generation(edge, tmp_path, xdpctl):
    _, path = edge
    apply_file(path)
    other = tmp_path / "elsewhere" / "other.toml"
    xdpctl("export", "-o", other, "--copy-to", other.parent / "objects", check=True)
    assert xdpctl("apply", "--yes", other, check=True).stdout == "edge: nothing to do, generation 1\n"
    destroy("edge")


def test_programs_join_a_tc_hook_where_somebody_elses_stands(world, edge, compile_c, xdpctl):
    inside, path = edge
    obj = compile_c(SOURCE)
    attach(obj, "va", netns=inside, hook="ingress", program="deployed_tc")
    path.write_text(path.read_text() + 'hook = "ingress"\n')
    done = xdpctl("apply", "--yes", path, check=True)
    assert "+ tc.attach" in done.stdout
    assert programs_of(inside, "va") == ["deployed_tc", "deployed_tc"]
    assert xdpctl("plan", path, check=True).stdout == "edge: nothing to do\n"
    destroy("edge")
    assert programs_of(inside, "va") == ["deployed_tc"], "what was there before stays"
    detach("va", netns=inside, all=True)


@pytest.mark.parametrize("how", ["--undo", "--resume"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_taking_over_what_xdpctl_attach_put_there_can_be_taken_back(edge, compile_c, xdpctl, how, mode):
    inside, path = edge
    attach(compile_c(SOURCE), "va", netns=inside, program="deployed_xdp", mode=mode)
    (before,) = status(netns=inside).attachments
    path.write_text(path.read_text().replace('"edge"\n', '"edge"\nadopt = true\n'))
    died = xdpctl("apply", "--yes", path, env={"XDPCTL_DIE_AT": "after:2" if mode == "native" else "after:3"})
    assert died.returncode == -9
    xdpctl("apply", how, check=True)
    (after,) = status(netns=inside).attachments
    assert after.ours
    if how == "--undo":
        assert (after.program.id, after.mode) == (before.program.id, mode)
    else:
        assert (after.program.id == before.program.id, after.mode) == (False, "native")
        destroy("edge")
    detach("va", netns=inside, all=True) if how == "--undo" else None
    assert programs_of(inside, "va") == []


@pytest.mark.needs("tcx")  # clsact filters of others stay where they are
@pytest.mark.parametrize("dies", ["before:2", "after:2", None])
def test_a_tc_program_of_xdpctl_attach_is_taken_over_in_its_place(edge, compile_c, xdpctl, dies):
    inside, path = edge
    obj = compile_c(SOURCE)
    other = compile_c(SOURCE.replace("deployed_tc", "bystander"))
    attach(other, "va", netns=inside, hook="ingress", program="bystander")
    attach(obj, "va", netns=inside, hook="ingress", program="deployed_tc")
    before = [(one.program.name, one.program.id, one.link_id) for one in status(netns=inside).attachments]
    text = path.read_text().replace('"edge"\n', '"edge"\nadopt = true\n') + 'hook = "ingress"\n'
    path.write_text(text)
    done = xdpctl("apply", "--yes", path, env={"XDPCTL_DIE_AT": dies} if dies else {})
    if dies is not None:
        assert done.returncode == -9
        xdpctl("apply", "--undo", check=True)
        after = [(one.program.name, one.program.id, one.link_id) for one in status(netns=inside).attachments]
        assert after == before
    else:
        after = [(one.program.name, one.link_id) for one in status(netns=inside).attachments]
        assert after == [(name, link) for name, _, link in before]
        assert [one.program.id for one in status(netns=inside).attachments] != [
            number for _, number, _ in before
        ]
        assert xdpctl("plan", path, check=True).stdout == "edge: nothing to do\n"
        destroy("edge")
        assert programs_of(inside, "va") == ["bystander"]
    detach("va", netns=inside, all=True)
