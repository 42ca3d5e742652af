"""What the documentation says is what the code does."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import edge
from edge.types import Classes, Detections, Mask
from tests.docs_blocks import REPOSITORY, Block, blocks, commands, ours, pages, parse, runnable, tracked

PAGES = tracked("*.md")
BLOCKS = [block for page in pages() for block in blocks(page) if block.language in ("sh", "text")]
CELLS = re.findall(r"^\| `(edge-[^`]+)` \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
MAKE = {target: page.name for page in pages() for target in re.findall(r"(?<=[`\n])make ([a-z][a-z0-9-]*)", page.read_text())}


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.fixture
def reference_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/reference_pages.py, as docs/generate.py imports it."""
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    return importlib.import_module("reference_pages")


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: lower case, no punctuation, a hyphen for each space. Of two alike, neither counts:
    the site and repository browsers name the second differently.
    """
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.M | re.S)
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.*?)\s*$", text, re.M):
        plain = re.sub(r"\]\([^)]*\)|[`*\[]", "", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(slug)
    return {*(slug for slug in found if found.count(slug) == 1), *re.findall(r'id="([\w-]+)"', text)}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=lambda block: block.name)
def test_a_command_block_is_run_or_says_why_not(block: Block) -> None:
    if block.reason is not None:
        assert len(block.reason.split()) >= 3, f"no reason: {block.reason}"
    else:
        assert block in runnable(block.page)


@pytest.mark.parametrize("block", [block for block in BLOCKS if any(map(ours, commands(block)))], ids=lambda block: block.name)
def test_commands_in_the_documentation_parse(block: Block) -> None:
    for words in commands(block):
        if (command := ours(words)) is not None:
            parse(*command)


@pytest.mark.parametrize("cell", CELLS)
def test_commands_in_the_readmes_table_parse(cell: str) -> None:
    (words,) = commands(Block(REPOSITORY / "README.md", 0, "sh", cell, None))
    command = ours(words)
    assert command is not None
    parse(*command)


def test_a_reason_belongs_to_the_block_below_it() -> None:
    for page in pages():
        said = page.read_text().count("<!-- not run:")
        assert said == sum(block.reason is not None for block in blocks(page)), f"{named(page)}: a reason without its block"


def test_blocks_are_split_into_commands_as_a_shell_does() -> None:
    text = "A=1 sudo /opt/edge-1/bin/edge-run --source demo \\\n  --max-frames 3 > out 2>&1 &  # so\n"
    text += "cat <<E | tee x\nedge-run no\nE\n"
    found = list(commands(Block(REPOSITORY / "README.md", 0, "sh", text, None)))
    assert found == [["/opt/edge-1/bin/edge-run", "--source", "demo", "--max-frames", "3"], ["cat"], ["tee", "x"]]
    assert ours(found[0]) == ("edge-run", ["--source", "demo", "--max-frames", "3"])


def test_a_block_without_a_reason_is_runnable_and_one_with_it_is_not(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\na\n```\n\n<!-- not run: needs a camera here -->\n```sh\nb\n```\n\n```text\n$ c\n```\n")
    assert [(block.line, block.reason) for block in blocks(page)] == [(1, None), (6, "needs a camera here"), (10, None)]
    assert [block.text for block in runnable(page)] == ["a\n"]


@pytest.mark.parametrize("target", sorted(MAKE))
def test_a_make_target_in_the_documentation_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*##", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), f"named in {MAKE[target]}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.M | re.S)
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = page.parent / link if link else page
        assert target.exists(), f"{link} is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}#{anchor}: no such heading"


def test_anchors_are_those_of_repository_browsers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c, d\n## 32-bit\n## 32-bit\n```sh\n# no heading\n```\n## [In a](link.md) line\n")
    assert anchors(page) == {"a-b-c-d", "in-a-line"}


def test_a_schemas_page_tells_types_defaults_and_bounds(reference_pages: ModuleType) -> None:
    schema = json.loads("""{"$ref": "#/$defs/Card", "$defs": {
        "Label": {"description": "One.", "type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        "Card": {"type": "object", "required": ["version"], "properties": {
            "version": {"enum": [1]},
            "share": {"type": "number", "minimum": 0.0, "maximum": 1.0, "default": 0.5},
            "labels": {"type": "array", "items": {"$ref": "#/$defs/Label"}}}}}}""")
    text = reference_pages.page("card", schema)
    assert "| `version` | `1` | required |" in text
    assert "| `share` | number ≥ 0.0 ≤ 1.0 | `0.5` |" in text
    assert "| `labels` | array of [Label](#label) | may be absent |" in text
    assert text.index("## Card") < text.index("## Label")


def test_generated_documentation_is_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_fields_that_are_explained_exist(reference_pages: ModuleType) -> None:
    schemas = [json.loads((REPOSITORY / f"docs/schema/{name}.json").read_text()) for name in ("event", "summary")]
    objects = {name: what for schema in schemas for name, what in schema["$defs"].items()}
    for name, fields in reference_pages.FIELDS.items():
        assert set(fields) <= set(objects[name]["properties"]), name


def test_the_reference_has_the_arguments_of_run_and_every_field_of_a_result() -> None:
    text = (REPOSITORY / "docs/reference/python.md").read_text()
    parameters = inspect.signature(edge.run).parameters.values()
    told = [str(one.replace(annotation=one.empty)) for one in parameters]
    star = next(place for place, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY)
    assert f"edge.run({', '.join([*told[:star], '*', *told[star:]])}) -> Run" in text
    for kind in (Classes, Detections, Mask):
        (table,) = re.findall(rf"^\| `{kind.__name__}`:.*?\n\n", text, re.MULTILINE | re.DOTALL)
        rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        assert {field.name for field in dataclasses.fields(kind)} <= set(rows)
        assert [name for name in rows if not hasattr(kind, name)] == []


def test_every_schema_has_a_page_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    for schema in (REPOSITORY / "docs/schema").glob("*.json"):
        assert f": reference/{schema.stem}.md\n" in navigation
