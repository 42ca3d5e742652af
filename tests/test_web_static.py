"""The live page's files as they are: light, without anything inline, legible in both themes."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from edge.status import SourceState
from edge.web.static_files import KINDS
from tests.html_page import Page
from tests.web_stand_in import STATIC

PAGES = ("index.html", "login.html")
SCRIPTS = {path.name: path.read_text() for path in sorted(STATIC.glob("*.js"))}
SCRIPT = "\n".join(SCRIPTS.values())
STYLE = (STATIC / "style.css").read_text()
READABLE, VISIBLE = 4.5, 3.0
"""WCAG 2.2, 1.4.3 for text and 1.4.11 for the edges of controls."""
DIMMED = 0.6

Rgb = tuple[float, float, float]


def test_everything_weighs_less_than_100_kb() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) <= 100_000
    assert {path.name for path in STATIC.iterdir()} == set(KINDS)


def test_the_modules_name_each_other_and_take_what_is_given() -> None:
    pages = "".join((STATIC / name).read_text() for name in PAGES)
    named = set(re.findall(r'src="/static/(\w+\.js)"', pages))
    for name, text in SCRIPTS.items():
        for taken, other in re.findall(r'^import \{ (.+) \} from "\./(\w+\.js)";$', text, re.M):
            named.add(other)
            given = set(re.findall(r"^export (?:async )?(?:function|const) (\w+)", SCRIPTS[other], re.M))
            assert set(taken.split(", ")) <= given, (name, other)
            assert all(len(re.findall(rf"\b{one}\b", text)) > 1 for one in taken.split(", ")), (name, other)
    assert named == set(SCRIPTS)


def test_before_the_first_status_the_page_claims_nothing() -> None:
    text = (STATIC / "index.html").read_text()
    assert "data-blank" in text
    for claim in ("Running", "No offload", "no sensor", "Idle"):
        assert claim not in text
    controls = [one for one in Page(text).all("input") if one["id"] != "shortcuts"]
    assert all("disabled" in one for one in controls)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_inline_and_nothing_comes_from_elsewhere(name: str) -> None:
    text = (STATIC / name).read_text()
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [key for key in attributes if key == "style" or key.startswith("on")], (tag, attributes)
        for key in ("src", "href", "action"):
            address = attributes.get(key) or "/"
            assert address[0] in "/#", (tag, address)
            assert not address.startswith("//")
    assert all(script.get("src") for script in page.all("script"))
    assert page.all("html") == [{"lang": "en"}]


def test_what_the_board_says_is_never_taken_for_markup() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|javascript:", SCRIPT)
    assert "http:" not in SCRIPT
    assert "https:" not in SCRIPT
    assert not re.search(r"url\(|@import|https?:", STYLE)


def test_the_script_and_the_page_know_the_same_elements() -> None:
    given = [attributes["id"] for _, attributes in Page((STATIC / "index.html").read_text()).elements if "id" in attributes]
    assert len(given) == len(set(given))
    named = set(re.findall(r'(?:byId|say|show)\("([a-z_-]+)"', SCRIPT)) - {"refused"}
    assert named <= set(given)


@pytest.mark.parametrize("name", PAGES)
def test_each_control_has_a_name(name: str) -> None:
    page = Page((STATIC / name).read_text())
    labelled = {label.get("for") for label in page.all("label")}
    for control in page.all("input"):
        assert control.get("aria-label") or control["id"] in labelled or control["id"] == "shortcuts"
    described = {ids for _, attributes in page.elements for ids in (attributes.get("aria-describedby") or "").split()}
    assert described <= {attributes.get("id") for _, attributes in page.elements}


def test_there_is_a_word_for_each_state() -> None:
    states = re.search(r"const STATES = \{(.*?)\}", SCRIPT, re.S)
    assert states
    assert set(re.findall(r"(\w+):", states[1])) == set(get_args(SourceState))


def test_without_javascript_there_is_a_picture_and_a_word() -> None:
    text = (STATIC / "index.html").read_text()
    without = text[text.index("<noscript>") : text.index("</noscript>")]
    assert "JavaScript" in without
    assert "/stream.mjpg?source=1" in without
    assert "/status.json" in without


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"),
    [
        *((front, back, READABLE) for front in ("text", "muted", "accent", "amber", "red") for back in ("ground", "panel")),
        ("text", "banner", READABLE),
        ("red", "banner", READABLE),
        ("on-accent", "accent", READABLE),
        ("edge", "panel", VISIBLE),
        ("edge", "ground", VISIBLE),
    ],
)
def test_the_contrast_suffices(theme: str, front: str, back: str, least: float) -> None:
    colours = palette(theme)
    assert contrast(colours[front], colours[back]) >= least


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_dimmed_can_still_be_read(theme: str) -> None:
    assert f"{{ opacity: {DIMMED}; }}" in STYLE
    colours = palette(theme)
    assert contrast(over(colours["text"], DIMMED, colours["panel"]), colours["panel"]) >= READABLE


def test_words_on_the_picture_can_be_read_whatever_it_shows() -> None:
    glass, words = re.search(r"--glass: #(\w{6})(\w\w);", STYLE), re.search(r"--on-glass: #(\w{6});", STYLE)
    assert glass
    assert words
    worst = over(rgb(glass[1]), int(glass[2], 16) / 255, (1.0, 1.0, 1.0))
    assert contrast(rgb(words[1]), worst) >= READABLE


def palette(theme: str) -> dict[str, Rgb]:
    """The colours that have no alpha, by name."""
    place = ("light", "dark").index(theme)
    pairs = re.findall(r"--([a-z-]+): light-dark\(#(\w{6}), #(\w{6})\);", STYLE)
    return {name: rgb(pair[place]) for name, *pair in pairs}


def rgb(digits: str) -> Rgb:
    """#rrggbb as fractions."""
    red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


def over(front: Rgb, alpha: float, back: Rgb) -> Rgb:
    """The colour of one that lets another shine through."""
    red, green, blue = (alpha * one + (1 - alpha) * other for one, other in zip(front, back, strict=True))
    return red, green, blue


def contrast(one: Rgb, other: Rgb) -> float:
    """The contrast ratio of WCAG 2.2."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: Rgb) -> float:
    """The relative luminance of WCAG 2.2, of an sRGB colour."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
