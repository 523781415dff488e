"""docs/findings.md is what the registry says."""

from pathlib import Path

from xdpctl.doctor.findings_page import page
from xdpctl.doctor.rules import mistakes

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_current():
    assert (ROOT / "docs" / "findings.md").read_text() == page(), (
        "python -m xdpctl.doctor.findings_page > docs/findings.md"
    )


def test_the_page_lists_every_finding():
    text = page()
    for one in mistakes():
        assert f"`{one.id}`" in text
