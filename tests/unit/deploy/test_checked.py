"""A document that was found right is not checked again, and means the same; another one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.deploy import checked, load, schema
from xdpctl.deploy.desired import DeploymentError

ROOT = Path(__file__).resolve().parents[3]
WHOLE = """
[deployment]
name = "edge"
[[program]]
name = "p"
object = "builtin:blocklist"
[program.globals]
match_source = true
[program.maps.blocked4]
max_entries = 9
entries = [{ key = "192.0.2.0/24", value = { packets = 1, bytes = 2 } }, "198.51.100.0/24"]
[program.maps.blocked6]
entries = { "2001:db8::/32" = { packets = 3, bytes = 4 } }
[[interface]]
match = "a*"
rings = { rx = 64, rx_mini = 2, tx-push = true }
channels = { combined = 2 }
napi = { gro-flush-timeout = 5 }
coalesce = { rx-usecs = 3 }
features = { gro = true }
[[interface.attach]]
program = "p"
[[interface]]
name = "b"
wait = "2min"
[[redirect]]
from = "a0"
to = "b"
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Nothing is kept when a test begins."""
    monkeypatch.setenv("XDPCTL_RUN", str(tmp_path / "run"))
    return tmp_path / "run" / "checked"


def loaded(path, **variables):
    return load.load([path], variables=variables, environment={}, compile_sources=False).deployment


@pytest.fixture
def no_more_checks(monkeypatch):
    def refuse(_document):
        raise AssertionError("checked again")

    return lambda: monkeypatch.setattr(schema, "check", refuse)


def test_what_was_right_is_the_same_without_a_check(tmp_path, no_more_checks):
    path = tmp_path / "a.toml"
    path.write_text(WHOLE)
    first = loaded(path)
    assert first.interfaces[0].settings.rings == {"rx": 64, "rx-mini": 2, "tx-push": True}
    assert first.interfaces[0].settings.napi == {"gro-flush-timeout": 5}
    assert first.interfaces[1].wait == 120
    no_more_checks()
    assert loaded(path) == first


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_of_configs_is_the_same_without_a_check(path, no_more_checks):
    first = loaded(path)
    no_more_checks()
    assert loaded(path) == first


def test_another_document_or_another_variable_is_checked(tmp_path, own_folder):
    path = tmp_path / "a.toml"
    path.write_text('[deployment]\nname = "edge"\n[[interface]]\nname = "a"\nmtu = "${mtu}"\n')
    assert loaded(path, mtu="1400").interfaces[0].settings.mtu == 1400
    assert len(list(own_folder.iterdir())) == 1
    with pytest.raises(DeploymentError, match="out of range"):
        loaded(path, mtu="1")
    assert len(list(own_folder.iterdir())) == 1, "what is wrong is not kept"


def test_a_damaged_or_forbidden_memory_is_none(tmp_path, own_folder):
    path = tmp_path / "a.toml"
    path.write_text(WHOLE)
    first = loaded(path)
    (kept,) = own_folder.iterdir()
    kept.write_text("{ no")
    assert loaded(path) == first
    kept.unlink()
    own_folder.rmdir()
    own_folder.write_text("in the way")
    assert loaded(path) == first


def test_old_ones_go(own_folder):
    for number in range(checked.KEPT + 5):
        checked.check({"deployment": {"name": f"n{number}"}})
    assert len(list(own_folder.iterdir())) == checked.KEPT
