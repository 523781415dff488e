"""What may appear where: ctypes and pyroute2 in their rooms only, nothing of one machine in a committed file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "xdpctl"

ALLOWED = {
    "ctypes": {"libbpf", "btf", "skeleton"},
    "pyroute2": {"netlink"},
}

FORBIDDEN_TEXT = {
    # the patterns are spelled so that none of them matches its own text here
    "a path of one machine": re.compile(r"(?<![\w.~<>{}*-])/(?:root|work|home)(?![\w.-])"),
    "the host of a package registry": re.compile(
        r"(?:deb|security|snapshot|ftp)[.]debian[.]org|archive[.]ubuntu[.]com|pypi[.]org|pythonhosted[.]org|npmjs[.]org"
    ),
    "how the text came about": re.compile(
        r"(?:[Tt]his|[Pp]revious|[Ee]arlier|[Nn]ext|[Aa]nother) session\b"
        r"|[Ss]ub-?[a]gent|\bA[I]\b|\bLL[M]s?\b|[Cc]o-[Aa]uthored"
    ),
}


def imported_packages(source: str) -> set[str]:
    """Top-level packages that a source imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {str(one.value).split(".")[0] for one in node.args if isinstance(one, ast.Constant)}
    return found


def project_files() -> list[Path]:
    """Files that are, or would be, committed."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_is_imported_only_in_its_rooms(package):
    strangers = [
        str(path.relative_to(ROOT))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in ALLOWED[package]
        and package in imported_packages(path.read_text())
    ]
    assert strangers == [], f"{package} belongs to {sorted(ALLOWED[package])}"


def test_a_hidden_import_is_seen():
    assert imported_packages("def f():\n    from ctypes.util import find_library") == {"ctypes"}
    assert imported_packages("importlib.import_module('pyroute2.netlink')") == {"pyroute2"}


@pytest.mark.parametrize("what", sorted(FORBIDDEN_TEXT))
def test_no_committed_file_names(what):
    pattern = FORBIDDEN_TEXT[what]
    found = []
    for path in project_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a binary file: an object or a capture
            text = path.read_bytes().decode("latin-1")
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a path of one machine", "see /" + "work/plan"),
        ("a path of one machine", "'/" + "root/.venv'"),
        ("the host of a package registry", "https://pypi" + ".org/simple"),
        ("how the text came about", "as the previous" + " session did"),
    ],
)
def test_forbidden_text_is_seen(what, text):
    assert FORBIDDEN_TEXT[what].search(text)


@pytest.mark.parametrize(
    "text", ["bpf/include", "~/work", "$HOME/work", "https://x.test/work/1", "net/root_lock"]
)
def test_harmless_text_is_not_accused(text):
    assert not FORBIDDEN_TEXT["a path of one machine"].search(text)
