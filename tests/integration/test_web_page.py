"""The live page in a real browser: what a person sees of a board that is well, in trouble, gone, and back.

Chromium comes from apt, and is spoken to by playwright; tests/web_stand_in.py plays the board, once the real one does.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from edge.status import ControlsStatus, GovernorStatus, History
from tests.web_stand_in import StandIn, answered, board, moment, offload, source, status

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
expect = sync_api.expect

pytestmark = pytest.mark.integration
CHROMIUM = shutil.which("chromium")
EDGE_RUN = Path(sys.executable).with_name("edge-run")
DESKTOP, PHONE = (1280, 800), (360, 740)
PATIENCE_MS = 8000
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
GONE = "net::ERR_"


class Watched:
    """A tab on a board, with all that it does wrong; `forgiven` are the console's lines that a test expects."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.forgiven = ""
        self.wrong: list[str] = []
        self.origins: set[str] = set()
        page.on("console", lambda message: message.type in ("error", "warning") and self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.origins.add("{0.scheme}://{0.netloc}".format(urlsplit(request.url))))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => console.error(`CSP: ${event.violatedDirective}`))"
        )

    def open(self, path: str = "/") -> Any:
        """Go there, and wait for the board's first words."""
        self.page.goto(self.url + path)
        expect(self.page.locator("#link")).to_have_text("Live", timeout=PATIENCE_MS)
        return self.page

    def text(self, name: str) -> str:
        return str(self.page.locator(f"#{name}").inner_text())

    def sees(self, name: str, text: str | re.Pattern[str]) -> None:
        """Wait until an element says so."""
        expect(self.page.locator(f"#{name}")).to_have_text(text, timeout=PATIENCE_MS)

    def sees_picture(self, state: str = "live") -> None:
        expect(self.page.locator("#stage")).to_have_attribute("data-picture", state, timeout=PATIENCE_MS)

    def check(self) -> None:
        """It asked nobody else, and nothing went wrong that was not to be expected."""
        assert self.origins <= {self.url, "null"}
        assert [line for line in self.wrong if not self.forgiven or not re.search(self.forgiven, line)] == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium; apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    served = StandIn()
    yield served
    served.stop()


Look = Callable[..., Watched]


@pytest.fixture
def look(chromium: Any, stand_in: StandIn) -> Iterator[Look]:
    """Opens tabs; each must have behaved in the end."""
    tabs: list[tuple[Any, Watched]] = []

    def opened(size: tuple[int, int] = DESKTOP, url: str | None = None, **options: Any) -> Watched:
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(PATIENCE_MS)
        tab = Watched(context.new_page(), url or stand_in.url)
        tabs.append((context, tab))
        return tab

    yield opened
    for context, tab in tabs:
        context.close()
        tab.check()


def test_the_picture_and_the_numbers_come_at_once(look: Look, stand_in: StandIn) -> None:
    tab = look()
    begun_s = time.monotonic()
    page = tab.open()
    tab.sees_picture()
    print(f"\ntime to first picture: {1000 * (time.monotonic() - begun_s):.0f} ms")
    assert page.evaluate("document.getElementById('picture').width") == 640
    tab.sees("caption", "1 cat, 1 chair")
    tab.sees("confidence", "87")
    tab.sees("fps", "14.8")
    tab.sees("age", "71")
    tab.sees("temperature", "61.2")
    tab.sees("temperature-limit", "limit 80 °C")
    tab.sees("stages", re.compile(r"capture8.1 ms.*prepare3.2 ms.*infer42 ms.*decode2.0 ms", re.S))
    tab.sees("dropped", "31")
    tab.sees("camera", "open, 14.8 fps")
    tab.sees("memory", "184 MB")
    tab.sees("governor", "all frames")
    assert page.locator("#confidence-graph .line").get_attribute("d").count("L") == 119


def test_the_history_has_no_gaps_where_messages_and_seconds_are_out_of_step(look: Look, stand_in: StandIn) -> None:
    stand_in.haste = 1.7
    page = look().open()
    page.wait_for_timeout(4500)
    for name in ("confidence-graph", "fps-graph"):
        line = page.locator(f"#{name} .line").get_attribute("d")
        assert (line.count("M"), line.count("L")) == (1, 119)


def test_before_the_first_word_nothing_looks_like_a_state(look: Look, stand_in: StandIn) -> None:
    stand_in.mute = True
    tab = look()
    page = tab.page
    page.goto(stand_in.url)
    tab.sees("note-title", "Connecting …")
    tab.sees("link", "Connecting")
    for name in ("pause-state", "light", "caption", "confidence", "temperature", "governor"):
        assert tab.text(name).strip() in ("", "–")
    for control in page.locator(".controls :is(button, input)").all():
        expect(control).to_be_disabled()
    expect(page.locator("#threshold-slider")).to_be_hidden()
    expect(page.locator("#no-moments")).to_be_hidden()
    stand_in.mute = False
    tab.sees_picture()
    tab.sees("pause-state", "Running")
    expect(page.locator("#threshold-slider")).to_be_visible()
    expect(page.locator("#no-moments")).to_be_visible()


@pytest.mark.parametrize("size", [PHONE, (820, 1100), DESKTOP, (1280, 600)])
@pytest.mark.parametrize("picture_wh", [(640, 480), (640, 400), (960, 540), (360, 640)])
def test_the_box_has_the_pictures_shape_and_moves_nothing(
    size: tuple[int, int], picture_wh: tuple[int, int], look: Look, stand_in: StandIn
) -> None:
    stand_in.picture_size_wh = None
    tab = look(size)
    page = tab.open()
    page.evaluate("window.top0 = document.getElementById('verdict').getBoundingClientRect().top")
    stand_in.picture_size_wh = picture_wh
    tab.sees_picture()
    box = page.locator("#stage").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(picture_wh[0] / picture_wh[1], rel=0.01)
    assert box["width"] <= size[0]
    top = "document.getElementById('verdict').getBoundingClientRect().top"
    if size[0] > 860:
        assert page.evaluate(f"{top} - top0") == 0
    shown = page.evaluate(top)
    stand_in.picture_size_wh = None
    page.reload()  # on a narrow screen the box follows the picture, from the second time on before it comes
    tab.sees("link", "Live")
    assert page.evaluate(top) == shown


def test_the_next_picture_is_asked_for_when_the_last_one_was_shown(look: Look, stand_in: StandIn) -> None:
    stand_in.fps = 20
    tab = look()
    page = tab.open()
    tab.sees_picture()
    page.wait_for_timeout(1000)
    after = [int(asked.query["after"][0]) for asked in stand_in.asked if asked.path == "/frame.jpg"]
    assert after[0] == -1
    assert len(after) >= 4
    assert after == sorted(set(after))


def test_a_tab_that_nobody_looks_at_asks_for_nothing(look: Look, stand_in: StandIn) -> None:
    tab = look()
    page = tab.open()
    tab.sees_picture()
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    asked = len(stand_in.asked)
    page.wait_for_timeout(1500)
    assert len(stand_in.asked) == asked
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    tab.sees_picture()
    tab.sees("link", "Live")
    assert len(stand_in.asked) > asked


def test_a_board_that_is_gone_is_told_and_found_again(look: Look, stand_in: StandIn) -> None:
    stand_in.first_sequence = 5000
    tab = look()
    tab.forgiven = GONE
    page = tab.open()
    tab.sees_picture()
    stand_in.stop()
    tab.sees("banner", re.compile(r"Disconnected: last heard \d\d:\d\d:\d\d, \d+\ss ago. Trying again"))
    tab.sees("link", "Disconnected")
    tab.sees_picture("old")
    tab.sees("note-title", "Old picture")
    assert "grayscale" in page.evaluate("getComputedStyle(document.getElementById('picture')).filter")
    expect(page.locator(".side")).to_have_css("opacity", "0.6")
    tab.sees("light", "Not known")
    expect(page.locator("#pause")).to_be_disabled()
    tab.sees("announce", re.compile("Disconnected"))
    stand_in.first_sequence = 0  # it was started again, and counts anew
    stand_in.start()
    page.locator("#retry").click()
    tab.sees("link", "Live")
    expect(page.locator("#banner")).to_be_hidden()
    tab.sees_picture()
    tab.sees("announce", "Connected again.")


def test_it_comes_back_by_itself(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.forgiven = GONE
    page = tab.open()
    stand_in.stop()
    page.wait_for_timeout(300)
    asked = len(stand_in.asked)
    stand_in.start()
    for _ in range(50):
        page.wait_for_timeout(100)
        if "/updates" in [one.path for one in stand_in.asked[asked:]]:
            break
    else:
        pytest.fail("it did not come back")
    tab.sees("link", "Live")


def test_a_tab_that_is_hidden_while_it_tries_gives_up(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.forgiven = GONE
    page = tab.open()
    tries: list[Any] = []
    page.route("**/status.json", lambda route: tries.append(route))  # which are never answered
    stand_in.stop()
    for _ in range(50):
        page.wait_for_timeout(100)
        if tries:
            break
    page.evaluate("Object.defineProperty(document, 'hidden', { configurable: true, get: () => true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(5000)
    assert len(tries) == 1


def test_a_clock_that_is_set_makes_nothing_look_new(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.forgiven = GONE
    page = tab.open()
    tab.sees_picture()
    stand_in.stop()
    page.evaluate("window.wall = Date.now; Date.now = () => wall() - 3600e3;")
    tab.sees("banner", re.compile(r"Disconnected: last heard \d\d:\d\d:\d\d, [3-9]\ss ago"))
    tab.sees_picture("old")
    page.evaluate("Date.now = () => wall() + 3600e3;")  # as after a sleep through which the steady clock stood still
    tab.sees("banner", re.compile(r"2\sh ago"))


def test_a_board_that_comes_back_with_less(look: Look, stand_in: StandIn) -> None:
    stand_in.status = status(sources=[source(1, "front"), source(2, "yard"), source(3, "garage")], offload=offload())
    tab = look()
    tab.forgiven = f"{GONE}|404"
    page = tab.open("/#3")
    expect(page.get_by_role("tab", name="garage")).to_have_attribute("aria-selected", "true")
    stand_in.status = msgspec.structs.replace(status(sources=[source(1, "front"), source(2, "yard")]), offload=None)
    expect(page.get_by_role("tab")).to_have_count(2)
    expect(page.get_by_role("tab", name="front")).to_have_attribute("aria-selected", "true")
    tab.sees("light", "No offload")
    tab.sees_picture()


def test_a_board_that_only_falls_silent_is_told(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.open()
    tab.sees_picture()
    stand_in.mute = True
    tab.sees("banner", re.compile(r"Disconnected: last heard .*, [3-6]\ss ago"))
    tab.sees_picture("old")


def test_a_board_with_too_many_viewers_says_so(look: Look, stand_in: StandIn) -> None:
    stand_in.full = True
    tab = look()
    tab.forgiven = "503|MIME type"
    tab.page.goto(stand_in.url)
    tab.sees("banner", re.compile("the board has too many viewers"))


def test_a_picture_that_stands_still_says_why(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.open()
    tab.sees_picture()
    stand_in.picture_size_wh = None
    running, paused = ControlsStatus(False, 0.6, None, None), ControlsStatus(True, 0.6, None, None, "mqtt")
    for state, trouble, controls, says in (
        ("lost", "USB device is gone", running, "Camera lost: USB device is gone"),
        ("stalled", "no frame for 3 s", running, "The camera stands still: no frame for 3 s"),
        ("ended", "", running, "The source has ended."),
        ("open", "", paused, "Paused over MQTT."),
    ):
        stand_in.status = status(controls=controls, sources=[source(state=state, trouble=trouble, quiet_s=9.0, fps=0.0)])
        tab.sees("note-text", says)
        tab.sees("note-title", re.compile("^Paused$" if controls.paused else r"^No new picture for \d+\ss$"))
        tab.sees("decided", re.compile(r"^Last result (9|1\d)\ss ago$"))
    tab.sees_picture("old")


def test_a_control_posts_what_it_says(look: Look, stand_in: StandIn) -> None:
    tab = look()
    page = tab.open()
    page.locator("#threshold").fill("0.75")
    page.locator("#threshold").press("Enter")
    tab.sees("threshold-said", "Set.")
    assert page.locator("#threshold-slider").input_value() == "0.75"
    page.locator("#score_threshold-slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    tab.sees("score_threshold-said", "Set.")
    page.locator("#gate").click()
    tab.sees("gate-said", "Set.")
    page.locator("#pause").click()
    tab.sees("pause-state", "Paused")
    tab.sees("pause-text", "Go on")
    assert stand_in.posts() == [{"threshold": 0.75}, {"score_threshold": 0.33}, {"gate": False}, {"paused": True}]
    stand_in.status = msgspec.structs.replace(stand_in.status, controls=ControlsStatus(False, 0.5, 0.2, True))
    expect(page.locator("#threshold")).to_have_value("0.50")  # somebody else has turned it
    expect(page.locator("#gate")).to_be_checked()


def test_a_refusal_stands_beside_its_control(look: Look, stand_in: StandIn) -> None:
    stand_in.refusal = (409, "nothing is offloaded by a threshold here")
    tab = look()
    tab.forgiven = "409"
    page = tab.open()
    page.locator("#threshold").fill("0.2")
    page.locator("#threshold").press("Enter")
    tab.sees("threshold-said", "nothing is offloaded by a threshold here")
    expect(page.locator("#threshold")).to_have_value("0.60")
    page.locator("#score_threshold").fill("7")
    page.locator("#score_threshold").press("Enter")
    tab.sees("score_threshold-said", "A number from 0 to 1, please.")
    expect(page.locator("#score_threshold")).to_have_value("0.30")
    page.wait_for_timeout(1200)  # a status later they are still there
    tab.sees("threshold-said", "nothing is offloaded by a threshold here")
    assert len(stand_in.posts()) == 1


def test_what_cannot_be_set_says_why(look: Look, stand_in: StandIn) -> None:
    nothing = ControlsStatus(False, None, None, None)
    empty = History(0, [], [], [], [], [])
    stand_in.status = status(
        controls=nothing, offload=None, governor=None, stages_ms=None, history=empty, board=board(temperature_c=None)
    )
    tab = look()
    page = tab.open()
    for name in ("threshold", "threshold-slider", "score_threshold", "gate"):
        expect(page.locator(f"#{name}")).to_be_disabled()
    tab.sees("threshold-said", "No threshold decides here.")
    tab.sees("score_threshold-said", "This model has no such score.")
    tab.sees("gate-said", re.compile("--motion-gate"))
    tab.sees("light", "No offload")
    tab.sees("temperature-limit", "no sensor")
    tab.sees("governor", "off")


def test_the_offload_light(look: Look, stand_in: StandIn) -> None:
    tab = look()
    tab.open()
    tab.sees("light", "Idle")
    stand_in.status = status(offload=offload(asking=2))
    tab.sees("light", "Asking")
    stand_in.status = status(offload=offload(revised=210), sources=[source(cloud=answered("tabby 97%", "tabby", 0.97))])
    tab.sees("light", "Answered")
    tab.sees("cloud", "Endpoint on frame 812: tabby 97%")
    stand_in.status = status(offload=offload(breaker="open", failed=4), governor=GovernorStatus(2, 5, "every second frame"))
    tab.sees("light", "Endpoint away")
    tab.sees("offload-counts", "209 answered · 6 failed")
    tab.sees("governor", "every second frame (step 2 of 5)")


def test_moments_appear_as_they_happen(look: Look, stand_in: StandIn) -> None:
    stand_in.moments = [moment(1, "enter", "cat came"), moment(2, "notice", "web: paused", picture=False, source=None)]
    tab = look()
    page = tab.open()
    expect(page.locator("#moments li")).to_have_count(2)
    expect(page.locator("#moments li").first).to_contain_text("web: paused")
    stand_in.moments = [*stand_in.moments, *(moment(number, "leave", f"cat {number} left") for number in range(3, 41))]
    expect(page.locator("#moments li")).to_have_count(30)
    expect(page.locator("#moments li").first).to_contain_text("cat 40 left")
    long = "the cloud says a_label_that_nobody_has_thought_of 89%, here it was another_such_label 29%, and more of it " * 2
    stand_in.moments = [*stand_in.moments, moment(41, "answer", long, more=12)]
    text = page.locator("#moments li").first.locator(".text")
    expect(text).to_contain_text("the cloud says")
    assert text.bounding_box()["height"] == 3 * 18
    expect(page.locator("#moments li").first.locator(".fine")).to_contain_text("12 more before")
    expect(page.locator("#moments img").first).to_have_js_property("naturalWidth", 160)


def test_labels_are_only_ever_text(look: Look, stand_in: StandIn) -> None:
    hostile = answered(HOSTILE, HOSTILE, 0.5)
    stand_in.status = status(
        sources=[source(1, HOSTILE, trouble=HOSTILE, result=hostile, cloud=hostile), source(2, HOSTILE)],
        board=board(title=HOSTILE, throttled=[HOSTILE]),
        offload=offload(endpoint=HOSTILE),
        governor=GovernorStatus(1, 5, HOSTILE),
    )
    stand_in.moments = [moment(1, "enter", HOSTILE)]
    tab = look()
    page = tab.open()
    tab.sees("caption", HOSTILE)
    expect(page.locator("#moments .text")).to_have_text(HOSTILE)
    assert page.title() == "edge-run"
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("main b").count() == 0


def test_by_keyboard_alone(look: Look, stand_in: StandIn) -> None:
    stand_in.status = status(sources=[source(1, "front"), source(2, "back"), source(3, "garage")])
    tab = look()
    page = tab.open()
    order = []
    for _ in range(14):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "[document.activeElement.id || document.activeElement.className || document.activeElement.tagName,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert focus[1] != "none" or focus[0] == "BODY"
        order.append(focus[0])
    assert order[:4] == ["skip", "theme", "help", "BUTTON"]
    assert order[4:11] == [
        "full",
        "pause",
        "threshold",
        "threshold-slider",
        "score_threshold",
        "score_threshold-slider",
        "gate",
    ]
    assert "BODY" in order[11:] or "skip" in order[11:]  # it is no trap
    page.keyboard.press("3")
    expect(page.get_by_role("tab", name="garage")).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("#3")
    page.get_by_role("tab", name="garage").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="front")).to_be_focused()
    tab.sees_picture()
    assert {asked.query["source"][0] for asked in stand_in.asked if asked.path == "/frame.jpg"} == {"1", "3"}
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("p")  # not behind a dialog
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    assert stand_in.posts() == []
    page.keyboard.press("p")
    tab.sees("pause-state", "Paused")
    assert stand_in.posts() == [{"paused": True}]


def test_single_keys_can_be_switched_off(look: Look, stand_in: StandIn) -> None:
    tab = look()
    page = tab.open()
    page.locator("#help").click()
    page.locator("#shortcuts").uncheck()
    page.get_by_role("button", name="Close").click()
    page.reload()
    tab.sees("link", "Live")
    page.keyboard.press("p")
    page.wait_for_timeout(300)
    assert stand_in.posts() == []


@pytest.mark.parametrize("size", [PHONE, (820, 1100), DESKTOP])
def test_nothing_sticks_out(size: tuple[int, int], look: Look, stand_in: StandIn) -> None:
    long = "a_label_that_nobody_has_thought_of_" * 4
    stand_in.status = status(
        sources=[source(n, f"{n} {long}", trouble=long, result=answered(long, None, 1.0)) for n in range(1, 5)],
        offload=offload(endpoint=f"{long}:8000", submitted=10**7, revised=10**7, failed=10**6, sent_bytes=10**12),
        governor=GovernorStatus(4, 5, long),
        board=board(title=long, throttled=[long], watts=12.3, battery=0.5),
        fps=240.0,
    )
    stand_in.moments = [moment(1, "enter", long), moment(2, "notice", long, picture=False)]
    tab = look(size)
    page = tab.open()
    tab.sees_picture()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    wide = "[...document.querySelectorAll('main *')].filter((one) => !one.closest('svg, .tabs') &&"
    wide += " one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.id || one.className)"
    assert page.evaluate(wide) == []
    picture = page.locator("#stage").bounding_box()
    panels = [panel.bounding_box() for panel in page.locator(".panel").all()]
    assert all(picture["width"] * picture["height"] > panel["width"] * panel["height"] for panel in panels) or size[0] < 900


def test_numbers_that_change_move_nothing(look: Look, stand_in: StandIn) -> None:
    places = "[...document.querySelectorAll('main section, main p.mid, dd, #pause')].map((one) => {"
    places += " const { top, right, bottom } = one.getBoundingClientRect(); return [top, right, bottom].map(Math.round); })"
    tab = look()
    page = tab.open()
    tab.sees_picture()
    before = page.evaluate(places)
    stand_in.status = status(
        fps=3.2,
        sources=[source(frames=9, dropped=123456, result=answered("nothing", None, 0.04, action="skip"))],
        offload=offload(asking=3, revised=100000),
        board=board(temperature_c=7.0, memory_bytes=9_900_000),
    )
    tab.sees("fps", "3.2")
    assert page.evaluate(places) == before


def test_the_theme_follows_the_system_until_one_is_chosen(look: Look, stand_in: StandIn) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    tab = look(color_scheme="light")
    page = tab.open()
    assert page.evaluate(ground) == "rgb(245, 246, 247)"
    page.locator("#theme").click()
    assert page.evaluate(ground) == "rgb(14, 16, 19)"
    page.reload()
    assert page.evaluate(ground) == "rgb(14, 16, 19)"
    dark = look(color_scheme="dark").open()
    assert dark.evaluate(ground) == "rgb(14, 16, 19)"


def test_nothing_moves_for_those_who_want_it_so(look: Look, stand_in: StandIn) -> None:
    stand_in.status = status(offload=offload(asking=1))
    tab = look(reduced_motion="reduce")
    page = tab.open()
    tab.sees("light", "Asking")
    assert page.evaluate("getComputedStyle(document.querySelector('.lamp')).animationName") == "none"


def test_without_javascript_the_picture_still_comes(look: Look, stand_in: StandIn) -> None:
    tab = look(java_script_enabled=False)
    tab.page.goto(stand_in.url)
    assert "needs JavaScript" in tab.page.locator("main").inner_text()
    assert "/stream.mjpg" in [asked.path for asked in stand_in.asked]


def test_signing_in(look: Look, stand_in: StandIn) -> None:
    stand_in.token = "open sesame"
    tab = look(PHONE)
    tab.forgiven = "401"
    page = tab.page
    page.goto(stand_in.url)
    expect(page.locator("#refused")).to_be_hidden()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    tab.sees("refused", "That is not the token of this board.")
    expect(page.locator("#refused")).to_be_visible()
    page.locator("#token").fill("open sesame")
    page.get_by_role("button", name="Sign in").click()
    tab.sees_picture()
    tab.forgiven = f"401|{GONE}"
    stand_in.stop()
    stand_in.token = "another one"
    stand_in.start()
    expect(page.locator("#token")).to_be_visible(timeout=PATIENCE_MS)  # the board knows us no more


def test_a_link_from_another_site_finds_who_has_signed_in(look: Look, stand_in: StandIn, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-guesses")
    token.chmod(0o600)
    with running("--source", "demo", "--web-token-file", str(token)) as url:
        tab = look(url=url)
        tab.forgiven = f"401|{GONE}"
        page = tab.page
        elsewhere = stand_in.url.replace("127.0.0.1", "localhost")  # another site to a browser
        tab.origins.discard(elsewhere)
        for path in ("/?token=a-token-that-nobody-guesses", "/"):
            page.goto(elsewhere)
            page.evaluate(
                "to => { const link = document.createElement('a'); link.href = to; document.body.append(link); link.click(); }",
                url + path,
            )
            expect(page.locator("#link")).to_have_text("Live", timeout=PATIENCE_MS)
            assert page.url == f"{url}/"
        page.locator("#logout button").click()
        expect(page.locator("#token")).to_be_visible()
        page.locator("#token").fill("a-token-that-nobody-guesses")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#link")).to_have_text("Live", timeout=PATIENCE_MS)
        tab.origins.discard(elsewhere)


def test_the_real_board(look: Look) -> None:
    with running("--source", "demo", "--motion-gate") as url:
        tab = look(url=url)
        tab.forgiven = GONE  # in the end it goes before its viewer
        begun_s = time.monotonic()
        page = tab.open()
        tab.sees_picture()
        print(f"\ntime to first picture: {1000 * (time.monotonic() - begun_s):.0f} ms")
        page.locator("#pause").click()
        tab.sees("pause-said", "Paused from a live page.")
        expect(page.locator("#moments li").first).to_contain_text("paused")
        page.locator("#gate").click()
        tab.sees("gate-said", "Set.")


@contextmanager
def running(*options: str) -> Iterator[str]:
    """edge-run with a live page, whose address this is."""
    command = [EDGE_RUN, *options, "--web", "127.0.0.1:0", "--events", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr
            said = iter(process.stderr.readline, "")
            yield next(line.split("web: ")[1].strip().rstrip("/") for line in said if "web: http" in line)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_a_status_is_what_the_page_reads() -> None:
    """The stand-in tells what the real server does: its structs, encoded."""
    served = StandIn()
    try:
        assert json.loads(msgspec.json.encode(served.status)).keys() == served.told()["status"].keys()
    finally:
        served.stop()
