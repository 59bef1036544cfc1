"""The site: builds without a warning, all its links lead somewhere, nothing is fetched.

Links of files that are read in the repository too (README, docs) are checked there as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown.extensions.toc import slugify

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "medgen").rglob("MODEL_CARD.md")),
]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", flags=re.MULTILINE | re.DOTALL)
FETCHED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}


@lru_cache
def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file."""
    text = CODE.sub(
        lambda match: match[0].strip("`") if "\n" not in match[0] else "", path.read_text()
    )
    return {slugify(line, "-") for line in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}


def broken_links(path: Path) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", path.read_text(encoding="utf-8"))):
        parts = urlsplit(target)
        if parts.scheme:
            if parts.scheme != "https":
                broken.append(target)
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        known = not parts.fragment or (file.suffix == ".md" and parts.fragment in headings(file))
        if not (file.exists() and file.is_relative_to(ROOT) and known):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_file_lead_somewhere_in_the_repository(path: Path) -> None:
    assert broken_links(path) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A head\n[a](#a-head) [b](#none) [c](missing.md) [d](http://insecure.org)\n")
    assert broken_links(page)[-3:] == ["#none", "missing.md", "http://insecure.org"]


class Links(HTMLParser):
    """Ids of a page, where it links to, and what it fetches to be shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.leads: list[str] = []
        self.fetches: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[key] for key in ("id", "name") if key in given)
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        if tag in FETCHED and given.get(FETCHED[tag]):
            self.fetches.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pages(site: tuple[Path, str]) -> dict[Path, Links]:
    found = {path: Links(path.read_text(encoding="utf-8")) for path in site[0].rglob("*.html")}
    # A report of `medgen evaluate` and the page for missing pages are no part of the navigation.
    return {
        path: links for path, links in found.items() if path.name not in ("404.html", "report.html")
    }


def test_site_builds_without_warnings(site: tuple[Path, str]) -> None:
    assert "WARNING" not in site[1] and "ERROR" not in site[1]


def test_every_internal_link_of_the_site_leads_to_a_page_and_an_anchor(
    pages: dict[Path, Links],
) -> None:
    assert len(pages) > 30
    broken = []
    for path, links in pages.items():
        for target in [*links.leads, *links.fetches]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = {"", "__top", *(pages[file].ids if file in pages else ())}
            if not file.is_file() or unquote(parts.fragment) not in known:
                broken.append((path.name, target))
    assert broken == []


def test_the_site_fetches_nothing_from_elsewhere(
    site: tuple[Path, str], pages: dict[Path, Links]
) -> None:
    for path, links in pages.items():
        outside = [one for one in links.fetches if urlsplit(one).netloc]
        assert outside == [], path.name
    for sheet in site[0].rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text()), sheet.name
    assert not [path for path in pages if 'class="mermaid"' in path.read_text()]


def test_the_site_has_the_model_cards_the_settings_and_the_commands(site: tuple[Path, str]) -> None:
    from medgen.settings import Settings

    cards = list((ROOT / "medgen").rglob("MODEL_CARD.md"))
    index = (site[0] / "models" / "index.html").read_text()
    for card in cards:
        title = card.read_text().splitlines()[0].lstrip("# ")
        assert title in index, card
    table = (site[0] / "reference" / "settings.html").read_text()
    assert [name for name in Settings.model_fields if f"MEDGEN_{name.upper()}" not in table] == []
    commands = (site[0] / "reference" / "commands.html").read_text()
    for words in ("medgen trace fork", "medgen knowledge import radlex", "--candidates"):
        assert words in commands, words
    python = (site[0] / "reference" / "python.html").read_text()
    for words in ("Draw <code>images</code> images of a prompt", "accepted", "ModalityCard"):
        assert words in python, words
