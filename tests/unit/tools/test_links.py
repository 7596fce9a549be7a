"""The link checker follows links to files and headings, and finds those that lead nowhere."""

from pathlib import Path

import pytest

from tools import links


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(links, "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One heading, of `code`\n\n## Twice\n\n## Twice\n\n## Own {#own}\n")
    return tmp_path / "page.md"


def problems(page: Path, text: str) -> list[str]:
    page.write_text(text, encoding="utf-8")
    return [problem for link in links.links(page) for problem in links.wrong(link)]


@pytest.mark.parametrize(
    "target",
    ["other.md", "other.md#one-heading-of-code", "other.md#twice_1", "other.md#own", "#here", "https://example.com/#x"],
)
def test_a_link_that_leads_somewhere_passes(page: Path, target: str) -> None:
    assert not problems(page, f"# Here\n\n[text]({target})\n")


@pytest.mark.parametrize("target", ["none.md", "other.md#none", "#none", "../outside.md", "other.md#twice_2"])
def test_a_link_that_leads_nowhere_is_found(page: Path, target: str) -> None:
    (page.parent.parent / "outside.md").touch()
    assert len(problems(page, f"# Here\n\n[text]({target})\n")) == 1


def test_a_link_in_code_is_not_one(page: Path) -> None:
    assert not problems(page, "`[a](none.md)`\n\n```\n[b](none.md)\n```\n")


def test_every_link_of_the_project_leads_somewhere() -> None:
    assert [problem for page in links.pages() for link in links.links(page) for problem in links.wrong(link)] == []
