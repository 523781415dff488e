"""Which unit files bring a deployment up at boot, by what lies in the folders."""

from __future__ import annotations

from xdpctl.deploy.boot_units import read_services

MADE = "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/bin/xdpctl drift --watch --heal --wait 60 edge\n"
MADE += "[Install]\nWantedBy=multi-user.target\n[X-Xdpctl]\nDeployment=edge\nFile=/etc/xdpctl/edge.toml\n"


def put(root, text, *, name="xdpctl-edge.service", folder="etc/systemd/system", enable=False):
    where = root / folder
    where.mkdir(parents=True, exist_ok=True)
    (where / name).write_text(text)
    if enable:
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / name).symlink_to(f"/{folder}/{name}")


def test_no_folders_are_no_units(tmp_path):
    assert read_services(tmp_path) == {}


def test_a_unit_is_enabled_by_a_link_to_it(tmp_path):
    put(tmp_path, MADE)
    found = read_services(tmp_path)["edge"]
    assert (found.enabled, found.why) == (False, "xdpctl-edge.service is not enabled")
    put(tmp_path, MADE, enable=True)
    found = read_services(tmp_path)["edge"]
    assert found.enabled
    assert found.files == ("/etc/xdpctl/edge.toml",)
    assert found.command == "/usr/bin/xdpctl"


def test_a_unit_in_run_ends_with_the_boot(tmp_path):
    put(tmp_path, MADE, folder="run/systemd/system", enable=True)
    found = read_services(tmp_path)["edge"]
    assert not found.enabled
    assert "ends with the boot" in found.why


def test_a_masked_unit_does_not_come(tmp_path):
    folder = tmp_path / "etc/systemd/system"
    put(tmp_path, MADE, folder="usr/lib/systemd/system", enable=True)
    (folder / "xdpctl-edge.service").symlink_to("/dev/null")
    found = read_services(tmp_path)["edge"]
    assert (found.enabled, found.why) == (False, "xdpctl-edge.service is masked")


def test_a_unit_that_somebody_wrote_is_understood_by_its_command(tmp_path):
    (tmp_path / "etc/xdpctl").mkdir(parents=True)
    (tmp_path / "etc/xdpctl/edge.toml").write_text('[deployment]\nname = "edge"\n')
    text = "[Service]\nType=oneshot\n# xdpctl apply nothing\nExecStart=-/opt/bin/xdpctl apply --yes \\\n"
    text += "  --var uplink=eth0 /etc/xdpctl/edge.toml\n"
    put(tmp_path, text, name="my.service", enable=True)
    found = read_services(tmp_path)["edge"]
    assert found.enabled
    assert found.name == "my.service"
    assert found.command == "/opt/bin/xdpctl"
    assert found.files == ("/etc/xdpctl/edge.toml",)
    assert found.variables == {"uplink": "eth0"}
    put(tmp_path, "[Service]\nExecStart=/usr/bin/xdpctl drift --watch --heal core\n", name="core.service")
    core = read_services(tmp_path)["core"]
    assert core.why == "core.service has no [Install], and nothing wants it"


def test_of_two_units_the_enabled_one_counts_and_others_are_none(tmp_path):
    put(tmp_path, MADE, name="a.service")
    put(tmp_path, MADE, name="b.service", enable=True)
    put(tmp_path, "[Service]\nExecStart=/usr/sbin/sshd -D\n", name="ssh.service", enable=True)
    put(tmp_path, "\0\xff xdpctl [[[\nExecStart='unclosed", name="damaged.service")
    assert {name: one.name for name, one in read_services(tmp_path).items()} == {"edge": "b.service"}
