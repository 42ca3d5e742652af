"""What the site needs beside Markdown: files outside docs/ as pages, so that every link works in a repository browser, too.

A link such as ../edge/loop.py leads out of docs/. Each file that a page names so becomes a page below source/ (the README
and its neighbours below project/), and the link is pointed at that. Diagrams are put into the page as SVG, where they take
its colours. mkdocs.yml names this module.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
PROJECT = {name: f"project/{name.lower()}" for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")}
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".sh": "bash", ".service": "ini"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")
DIAGRAM = re.compile(r'<p><img alt="([^"]*)" src="[^"]*?images/([\w-]+\.svg)"\s*/?></p>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation, the list of them first."""
    names = sorted(path.name for path in (ROOT / DOCS / "decisions").glob("[0-9]*.md"))
    for entry in config.nav or []:
        if entry == {"Decisions": "decisions/*"}:
            entry["Decisions"] = ["decisions/README.md", *(f"decisions/{name}" for name in names)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand for files outside docs/."""
    wanted = set(PROJECT)
    for file in files.documentation_pages():
        wanted |= _outside(f"{DOCS}/{file.src_uri}", file.content_string)
    for name in PROJECT:
        wanted |= _outside(name, (ROOT / name).read_text())
    for name in sorted(wanted):
        files.append(File.generated(config, _page_of(name), content=_shown(name)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point the links of a page that lead to files outside docs/ at their pages."""
    here = page.file.src_uri
    place = {uri: name for name, uri in PROJECT.items()}.get(here, f"{DOCS}/{here}")

    def pointed(match: re.Match[str]) -> str:
        target = _resolved(place, match[1])
        if target == DOCS:
            target = f"{DOCS}/README.md"
        inside = target.startswith(f"{DOCS}/")
        if (place.startswith(DOCS) and inside) or not (inside or (ROOT / target).is_file()):
            return match[0]
        uri = target.removeprefix(f"{DOCS}/") if inside else _page_of(target)
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(pointed, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Put diagrams into the page."""
    return DIAGRAM.sub(lambda match: _inline(match[2]), html)


def _outside(place: str, markdown: str) -> set[str]:
    """The files outside docs/ that a file of the repository links to."""
    targets = {_resolved(place, match[1]) for match in LINK.finditer(markdown)}
    return {target for target in targets if not target.startswith(DOCS) and (ROOT / target).is_file()}


def _resolved(place: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def _page_of(name: str) -> str:
    return PROJECT.get(name) or f"source/{name.removesuffix('.md')}.md"


def _shown(name: str) -> str:
    """A file as Markdown: itself, or fenced."""
    text = (ROOT / name).read_text()
    if name in PROJECT:
        return text
    hidden = "---\nsearch:\n  exclude: true\n---\n"
    if name.endswith(".md"):
        return hidden + text
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or [""]))
    return f"{hidden}# {name}\n\n{fence}{LANGUAGES.get(Path(name).suffix, 'text')}\n{text}{fence}\n"


def _inline(name: str) -> str:
    svg = (ROOT / DOCS / "images" / name).read_text()
    return f'<figure class="diagram">{svg[svg.index("<svg") :]}</figure>'
