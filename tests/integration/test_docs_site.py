"""The documentation site: built without a warning, and read without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data", "embed": "src"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest", "modulepreload"}
STYLE_URL = re.compile(r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)|@import\s+[\"']((?:https?:)?//[^\"']+)")


class Page(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names.update(given[name] for name in ("id", "name") if name in given)
        if tag in LOADING and given.get(LOADING[tag]):
            self.loads.append(given[LOADING[tag]])
        if tag == "link" and LOADED_LINKS & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs-material and mkdocstrings are not installed; make .venv/dev")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ran = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = [line for line in ran.stderr.splitlines() if not line.startswith("INFO")]
    assert (said, ran.stdout) == ([], ""), "mkdocs has something to say"
    return folder


def pages_of(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_nothing_is_fetched_from_anywhere_else(site: Path) -> None:
    for path, page in pages_of(site).items():
        elsewhere = [url for url in page.loads if urlsplit(url).scheme or urlsplit(url).netloc]
        assert [url for url in elsewhere if not url.startswith("data:")] == [], path.relative_to(site)
        assert "mermaid" not in page.names, path.relative_to(site)
    for path in site.rglob("*.css"):
        assert STYLE_URL.findall(path.read_text()) == [], path.relative_to(site)


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    pages = pages_of(site)
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_diagrams_are_part_of_the_page(site: Path) -> None:
    text = (site / "explanation/loop.html").read_text()
    assert '<figure class="diagram"><svg' in text
    assert "<p>&lt;svg" not in text


def test_search_works_for_a_site_that_is_a_folder(site: Path, tmp_path: Path) -> None:
    """Chromium, no server: the page is opened as a file, and the search box finds a page by a word of it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed; apt install chromium")
    index = json.loads((site / "search/search_index.json").read_text())
    assert any(entry["location"].startswith("how-to/rtsp.html") for entry in index["docs"])
    home = (site / "index.html").as_uri()
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom", f"{home}?q=letterbox"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert re.search(r'class="md-search-result__link"|md-search-result__item', ran.stdout), ran.stderr[-500:]
