"""`xdpctl check-boot`: what a reboot would take, told from the machine and from unit files in a folder."""

from __future__ import annotations

import pytest
from attachments import detach
from deployments import SOURCE, apply_file, destroy, forget_all
from kernels import GRO_STARTS_NAPI

from xdpctl.attach import runstate

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@pytest.fixture
def root(tmp_path):
    """Where systemd's folders are."""
    made = tmp_path / "root"
    (made / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    return made


@pytest.fixture
def edge(world, compile_c, tmp_path):
    """A deployment that is applied, its namespace, its file, and its object."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    obj = tmp_path / "guard.bpf.o"
    obj.write_bytes(compile_c(SOURCE).read_bytes())
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{obj}"\n'
        f'[[interface]]\nname = "va"\nnetns = "{inside}"\nmtu = 1400\n[[interface.attach]]\nprogram = "guard"\n'
    )
    apply_file(path)
    yield inside, path, obj
    destroy("edge")


def fates(done, *, deployment="edge"):
    return [(one["fate"], one["why"]) for one in done.json()["items"] if one["deployment"] == deployment]


def test_a_deployment_comes_back_by_an_enabled_unit_alone(edge, root, xdpctl):
    _, path, _obj = edge
    asked = ("check-boot", "edge", "--root", root, "--json")
    lost = xdpctl(*asked)
    assert lost.returncode == 1
    assert fates(lost) == [("lost", "nothing applies it at boot")]
    assert lost.json()["items"][0]["hint"] == f"xdpctl unit {path}"

    folder = root / "etc/systemd/system"
    xdpctl("unit", "-o", folder, path, check=True)
    assert fates(xdpctl(*asked)) == [("lost", "xdpctl-edge.service is not enabled")]
    (folder / "multi-user.target.wants/xdpctl-edge.service").symlink_to("../xdpctl-edge.service")
    told = fates(xdpctl(*asked))
    assert told == [("lost", f"xdpctl-edge.service reads {path}, which does not outlive a boot")]


def test_what_comes_back_is_compared_with_what_was_applied(edge, root, xdpctl):
    from xdpctl.deploy import boot, running

    _, path, obj = edge
    folder = root / "etc/systemd/system"
    xdpctl("unit", "-o", folder, path, check=True)
    (folder / "multi-user.target.wants/xdpctl-edge.service").symlink_to("../xdpctl-edge.service")

    def look():
        return [(one.fate, one.why) for one in boot.check(running.look(), root=root, names=["edge"])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot, "VOLATILE", ("/run",))  # a test's files lie in /tmp
        fate, late = look()
        assert fate == ("returns", "xdpctl-edge.service is enabled")
        assert late == ("late", "namespaces and their links end with the boot")
        path.write_text(path.read_text().replace("1400", "1450"))
        assert look()[0] == ("changed", f"{path} says other interfaces now than what was applied")
        path.write_text(path.read_text().replace("1450", "14500000"))
        assert look()[0][0] == "changed"
        assert "xdpctl-edge.service would fail" in look()[0][1]
        path.write_text(path.read_text().replace("14500000", "1400"))
        obj.write_bytes(obj.read_bytes() + b"\0")
        assert look()[0] == ("changed", f"{path} says other programs now than what was applied")
        path.unlink()
        assert look()[0] == ("lost", f"xdpctl-edge.service reads {path}, which is not there")


def test_what_is_in_no_deployment_is_lost(world, root, xdpctl, compile_c):
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    clean = xdpctl("check-boot", "--root", root, "--json", netns=inside)
    ours = [one for one in clean.json()["items"] if inside in one["what"]]
    assert ours == []
    obj = compile_c(SOURCE)
    xdpctl("attach", "--netns", inside, "--program", "deployed_xdp", "va", obj, check=True)
    xdpctl("attach", "--netns", inside, "--program", "deployed_tc", "--hook", "egress", "vb", obj, check=True)
    for one in runstate.read().values():
        if one.name == "deployed_tc":
            runstate.forget([one.id])
    gro = "on" if GRO_STARTS_NAPI else "off"  # Linux 5.13 made "off" what a veth begins with
    world.run("ethtool", "-K", "vb", "gro", gro, netns=inside)
    done = xdpctl("check-boot", "--root", root, "--json")
    assert done.returncode == 1
    told = [one for one in done.json()["items"] if inside in one["what"]]
    assert {one["fate"] for one in told} == {"lost"}
    assert [one["why"].partition(",")[0] for one in told if "va" in one["what"]] == ["attached by hand"]
    assert any(
        f"rx-gro {gro} of vb" in one["what"] and "no deployment asks for it" in one["why"] for one in told
    )
    hints = [one["hint"] for one in told if one["hint"]]
    assert f"xdpctl export --netns {inside} va" in hints
    text = xdpctl("check-boot", "--root", root).stdout
    assert text.startswith("would be lost:\n")
    for name in ("va", "vb"):
        detach(name, netns=inside, all=True, foreign=True)


def test_a_file_that_is_not_applied_loses_nothing(root, xdpctl, tmp_path):
    path = tmp_path / "later.toml"
    path.write_text('[deployment]\nname = "later"\n')
    done = xdpctl("check-boot", path, "--root", root, "--json", check=True)
    assert [one["fate"] for one in done.json()["items"]] == ["stays"]
    assert xdpctl("check-boot", "nothing-here", "--root", root).returncode == 2
    assert xdpctl("check-boot", "--root", tmp_path / "gone").returncode == 2
