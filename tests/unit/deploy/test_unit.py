"""The systemd unit of a deployment: its directives, its words, and what is said beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdpctl.cli.unit import _Asked, _command_of
from xdpctl.deploy import unit
from xdpctl.deploy.boot_units import read_services
from xdpctl.deploy.load import load
from xdpctl.errors import ConfigError

KNOWN = {
    "Unit": "Description Documentation After Before RequiresMountsFor StartLimitIntervalSec",
    "Service": """
        Type NotifyAccess RemainAfterExit ExecStartPre ExecStart ExecReload WatchdogSec TimeoutStartSec TimeoutStopSec
        Restart RestartSec RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve CacheDirectory Environment
        UMask LimitMEMLOCK CapabilityBoundingSet NoNewPrivileges ProtectSystem ReadWritePaths ProtectHome PrivateTmp
        PrivateDevices ReadOnlyPaths InaccessiblePaths ProtectKernelModules ProtectKernelLogs ProtectControlGroups
        ProtectClock ProtectHostname ProtectProc LockPersonality MemoryDenyWriteExecute RestrictRealtime
        RestrictSUIDSGID RestrictNamespaces RemoveIPC KeyringMode RestrictAddressFamilies IPAddressDeny
        SystemCallArchitectures SystemCallFilter SystemCallErrorNumber
    """,
    "Install": "WantedBy",
    "X-Xdpctl": "Deployment File Variable",
}
"""Directives of systemd.unit(5), systemd.service(5) and systemd.exec(5), all in systemd 247 (Debian 11) already."""
START = '[deployment]\nname = "edge"\n'


def make(folder, text, *, variables=None, environment=None, name="edge.toml", **more):
    path = folder / name
    path.write_text(text)
    asked = _Asked(environment or {})
    loaded = load([path], variables=variables, environment=asked, compile_sources=False)
    request = unit.Request((path,), ("/usr/bin/xdpctl",), variables or {}, asked.used, **more)
    return unit.make(request, loaded)


def directives(made):
    """(section, key, value) of a unit, read strictly."""
    section = ""
    for line in made.text.splitlines():
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"\[([A-Za-z-]+)\]", line):
            section = match[1]
            continue
        match = re.fullmatch(r"([A-Za-z]+)=(.*)", line)
        assert match is not None, line
        assert not line.endswith("\\"), line
        yield section, match[1], match[2]


@pytest.mark.parametrize("once", [False, True])
def test_every_directive_is_one_of_systemds(tmp_path, once):
    made = make(tmp_path, START + '[[interface]]\nname = "a"\nnapi = { threaded = true }\n', once=once)
    for section, key, _ in directives(made):
        assert key in KNOWN[section].split(), (section, key)


def values(made, wanted):
    return [value for _, key, value in directives(made) if key == wanted]


def test_it_comes_before_the_network_counts_as_online_and_is_watched(tmp_path):
    made = make(tmp_path, START + '[[interface]]\nname = "eth0"\nwait = "30s"\n', watchdog=20)
    assert made.name == "xdpctl-edge.service"
    assert "network-online.target" in values(made, "Before")
    assert "network-pre.target" in values(made, "After")[0].split()
    assert values(made, "Type") == ["notify"]
    assert values(made, "WatchdogSec") == ["20"]
    assert values(made, "ExecStart") == ["/usr/bin/xdpctl drift --watch --heal --wait 60 edge"]
    assert values(made, "ExecStartPre") == [
        f"/usr/bin/xdpctl validate {tmp_path}/edge.toml",
        f"/usr/bin/xdpctl apply --resume --yes --wait 60 {tmp_path}/edge.toml",
    ]
    assert values(made, "TimeoutStartSec") == ["210"]
    assert values(made, "RuntimeDirectoryPreserve") == ["yes"]


def test_once_applies_and_ends(tmp_path):
    made = make(tmp_path, START, once=True)
    assert values(made, "Type") == ["oneshot"]
    assert values(made, "RemainAfterExit") == ["yes"]
    assert values(made, "ExecStart") == [
        f"/usr/bin/xdpctl apply --resume --yes --wait 60 {tmp_path}/edge.toml"
    ]
    assert values(made, "WatchdogSec") == []


XDP = '[[program]]\nname = "p"\nsource = "x.bpf.c"\n[[interface]]\nname = "eth0"\n{}'
XDP += '[[interface.attach]]\nprogram = "p"\n{}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (XDP.format("", ""), None),
        (XDP.format('netns = "blue"\n', ""), "enter network namespaces (setns(2)): blue"),
        (XDP.format("", 'hook = "ingress"\n'), "TC hook"),
        (XDP.format("", "") + '[[redirect]]\nfrom = "eth0"\nto = "eth1"\n', "redirect"),
        (XDP.format("", "").replace("[[program]]", "adopt = true\n[[program]]", 1), "adopt"),
    ],
)  # fmt: skip
def test_sys_admin_is_kept_only_where_the_kernel_asks_for_it(tmp_path, text, reason):
    (tmp_path / "x.bpf.c").write_text("")
    made = make(tmp_path, START + text)
    told = dict(made.capabilities).get("CAP_SYS_ADMIN")
    assert told is None if reason is None else reason in told
    assert values(made, "CapabilityBoundingSet")[0].split() == [name for name, _ in made.capabilities]


def test_what_it_needs_is_left_to_it_and_the_rest_of_the_kernels_files_is_not(tmp_path):
    made = make(tmp_path, START + '[[interface]]\nname = "a"\nnapi = { threaded = true }\n')
    assert values(made, "ReadWritePaths") == ["-/sys/fs/bpf -/sys/devices"]
    (kept,) = values(made, "ReadOnlyPaths")
    assert {"/sys", "-/proc/sys"} <= {*kept.split()}
    assert values(made, "SystemCallFilter") == ["@system-service bpf perf_event_open"]
    made = make(tmp_path, START + '[[interface]]\nname = "a"\nnetns = "b"\nnapi = { threaded = true }\n')
    assert "fsopen fsconfig fsmount" in values(made, "SystemCallFilter")[0], (
        "to see the sysfs of another namespace"
    )


def test_before_cap_bpf_there_is_only_sys_admin(tmp_path):
    made = make(tmp_path, START, has_cap_bpf=False)
    assert [name for name, _ in made.capabilities] == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]


def test_words_are_quoted_as_systemd_reads_them(tmp_path):
    folder = tmp_path / 'a "b" 100%'
    folder.mkdir()
    text = START + '[[interface]]\ndriver = "${uplink}"\nnetns = "${SPACE}"\n'
    made = make(folder, text, variables={"uplink": "e$h 0"}, environment={"SPACE": "bl $e", "OTHER": "x"})
    (start,) = values(made, "ExecReload")
    assert f'--var "uplink=e$$h 0" "{tmp_path}/a \\"b\\" 100%%/edge.toml"' in start
    assert 'Environment="SPACE=bl $e"' in made.text
    assert "OTHER" not in made.text
    assert any("SPACE is taken from this shell's environment" in one for one in made.notes)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system" / made.name).write_text(made.text)
    found = read_services(tmp_path)["edge"]
    assert found.files == (str(folder / "edge.toml"),)
    assert found.variables == {"uplink": "e$h 0"}


def test_what_stands_in_the_way_of_a_boot_is_said(tmp_path):
    (tmp_path / "x.bpf.c").write_text("")
    made = make(tmp_path, START + XDP.format("", ""))
    told = "\n".join(made.notes)
    assert f"{tmp_path}/edge.toml is gone after a reboot" in told
    assert "program p is a source" in told
    assert 'without wait = "30s"' in told
    assert values(made, "PrivateTmp") == ["no"], "or it would not find its own files"


def test_an_interpreter_in_a_home_is_not_hidden_from_its_own_service(tmp_path):
    made = make(tmp_path, START, needs=(Path("/", "home", "ann", "python3.11"),))
    assert values(made, "ProtectHome") == ["read-only"]
    assert any("ProtectHome=read-only, not yes: " in one for one in made.notes)
    assert values(make(tmp_path, START), "ProtectHome") == ["yes"]


def test_the_command_is_the_one_that_was_called(tmp_path):
    script = tmp_path / "xdpctl"
    script.write_text("")
    assert _command_of(str(script), "/usr/bin/python3") == ("/usr/bin/python3", "-m", "xdpctl.cli")
    script.chmod(0o755)
    assert _command_of(str(script), "/usr/bin/python3") == (str(script),)


def test_a_unit_of_somebody_else_is_not_overwritten(tmp_path):
    from xdpctl.cli.unit import _write

    (tmp_path / "xdpctl-edge.service").write_text("[Unit]\nDescription=mine\n")
    with pytest.raises(ConfigError, match="xdpctl did not make it"):
        _write(tmp_path, "xdpctl-edge.service", "new", force=False)
    assert _write(tmp_path, "xdpctl-edge.service", "# Made by `xdpctl unit`", force=True).read_text()
    assert _write(tmp_path, "xdpctl-edge.service", "# Made by `xdpctl unit` 2", force=False) == Path(
        tmp_path / "xdpctl-edge.service"
    )
    with pytest.raises(ConfigError, match="no such folder"):
        _write(tmp_path / "gone", "xdpctl-edge.service", "new", force=False)
