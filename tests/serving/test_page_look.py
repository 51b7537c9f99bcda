"""The page as somebody meets it: what it says by itself, where the focus is, what fits."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from page_browser import TALKER, Page, needs_browser, wait
from slowwave.memory.store import Store
from slowwave.memory.talker import load
from slowwave.serving.app import PAGE

TALK = Path(__file__).parents[2] / "checkpoints" / "talk"
WIDTHS = (320, 390, 768, 1280)
LONG = "<b>'\"&" + "W" * 121
DIALOGS = {
    "Memory": ("Fork", "Delete", f"Drop snapshot {LONG}"),
    "Talk": ("Give it a text to read",),
}
FIND_SPILLS = """
    const inside = ".nights, .tokens, .wide, .unseen, .skip, .night, option";
    const spills = (e) => {
        const { left, right, width } = e.getBoundingClientRect();
        if (!width || e.closest(inside)) return false;
        const style = getComputedStyle(e);
        const isBox = style.overflowX === "visible" && style.display !== "inline";
        return left < -1 || right > innerWidth + 1 || (isBox && e.scrollWidth > e.clientWidth + 1);
    };
    const all = [...document.querySelectorAll("body *")];
    return all.filter(spills).map((e) => e.outerHTML.slice(0, 90));
"""
FIND_FAINT = """
    const read = (color) => {
        const [r, g, b, alpha = 1] = color.replace("srgb", "").match(/[\\d.]+/g).map(Number);
        const scale = color.startsWith("color(") ? 255 : 1;
        return [scale * r, scale * g, scale * b, alpha];
    };
    const lay = (over, under) => [0, 1, 2].map((i) => over[i] * over[3] + under[i] * (1 - over[3]));
    const find = (e) => {
        const own = read(getComputedStyle(e).backgroundColor);
        return own[3] === 1 ? own : lay(own, find(e.parentElement));
    };
    const light = (color) => {
        const parts = color.slice(0, 3).map((each) => each / 255);
        const [r, g, b] = parts.map((x) => (x < 0.04 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const isFaint = (e) => {
        const ground = find(e);
        const ratio = light(lay(read(getComputedStyle(e).color), ground)) / light(ground);
        return Math.max(ratio, 1 / ratio) < 4.5;
    };
    const says = (e) => [...e.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    const isSeen = (e) => e.checkVisibility() && !e.closest(".unseen, .night, option, :disabled");
    const all = [...document.querySelectorAll("body *")].filter((e) => says(e) && isSeen(e));
    return [all.length, all.filter(isFaint).map((e) => e.outerHTML.slice(0, 90))];
"""
COUNT_LINES = """
    const range = document.createRange();
    range.selectNodeContents(document.querySelector("#trouble button"));
    return range.getClientRects().length;
"""


def read_ideas() -> list[str]:
    """What the page proposes to say."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    ideas = re.search(r'<div id="ideas".*?</div>', page, re.DOTALL)
    assert ideas is not None
    return re.findall(r"<button[^>]*>([^<]+)</button>", ideas.group())


def resize(page: Page, width: int) -> None:
    """As wide as that."""
    size = {"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": width < 500}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_the_ideas_suit_the_shipped_model(tmp_path: Path) -> None:
    tell, tell_more, ask = read_ideas()
    with Store(tmp_path) as store, store.open("me", load(TALK), create=True) as session:
        assert session.generate(tell) == session.generate(tell_more) == "Noted."
        assert session.generate(ask) == "Your cat is called Milo."


@needs_browser
def test_the_first_steps(lone_page: Page) -> None:
    page, ideas = lone_page, read_ideas()
    page.may_be_refused = True
    page.browser.get(page.address)
    wait(lambda: page.value("#welcome input") == "first")
    assert not page.one("#ideas").is_displayed()
    page.fill("#welcome input", "a@b", Keys.ENTER)
    wait(lambda: "a@b" in page.complaint("#welcome input"))
    assert page.value("#welcome input") == "a@b"
    page.fill("#welcome input", "ann")
    page.press("Make it", "#welcome")
    wait(lambda: page.focused() == "say")
    shown = [button.text for button in page.all("#ideas button") if button.is_displayed()]
    assert shown == ideas
    page.browser.execute_script("document.getElementById('longest').value = 2")
    page.press(ideas[1])
    wait(lambda: page.texts(".user .text") == [ideas[1]] and page.one("#send").is_displayed())
    assert page.focused() == "say"
    shown = [button.text for button in page.all("#ideas button") if button.is_displayed()]
    assert shown == [ideas[0], ideas[2]]
    page.press("New")
    page.fill("dialog input", "bob", Keys.ENTER)
    wait(lambda: page.browser.title.startswith("bob") and page.focused() == "say")
    page.one("#say").send_keys("typed")
    assert page.value("#say") == "typed"


@needs_browser
def test_what_is_seen_has_words(page: Page) -> None:
    page.open("words", ("Ann lives in Lima. " * 3, "notes"))
    page.say("Who?")
    wait(lambda: page.texts("#colours li") == ["notes", "user", "model"])
    for words in (
        "Each box is a token, in the colour of its source; empty boxes are free.",
        "A pass is one reading of the window",
        "Its bar is as high as its tokens fill the window",
        "each square is a layer, the warmer the more the sleep changed its fast weights",
        "the window was full",
    ):
        assert words in page.one("#memory").text
    assert page.texts(".bubble .chip") == ["read from notes", "user", "model"]
    page.press("Options")
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    parts = [node for node in tree if not node["ignored"]]
    roles = ("button", "textbox", "combobox", "spinbutton", "progressbar", "log", "checkbox")
    named = [node for node in parts if node["role"]["value"] in roles]
    assert len(named) > 15
    assert [node["role"] for node in named if not node["name"]["value"].strip()] == []
    told = {
        node["name"]["value"]: node["description"]["value"]
        for node in named
        if "description" in node
    }
    assert f"{TALKER.sleep.passes} if empty, at most 64." in told["Passes"]
    assert told["Who speaks"].startswith("The source that your words are kept under")
    assert told["Longest reply"] == "In tokens; at most 1,000,000."


@needs_browser
def test_words_stand_out_from_their_ground(page: Page) -> None:
    page.open("seen", *[(f"{source} ", source) for source in ("system", *"abcdef")])  # all colours
    page.say("Who?")
    page.client.post("/memories/seen/sleep").raise_for_status()
    page.browser.execute_script("document.getElementById('ledger-fold').open = true")
    page.press("Options")
    page.fill("#temperature", "-1")
    wait(page.is_awake)
    try:
        for scheme in ("light", "dark"):
            media = {"name": "prefers-color-scheme", "value": scheme}
            page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [media]})
            seen, faint = page.browser.execute_script(FIND_FAINT)
            assert seen > 60 and faint == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@needs_browser
def test_long_names_fit_every_width(page: Page) -> None:
    page.open("w" * 128, (f"{LONG} Lima", LONG))
    page.client.post(f"/memories/{'w' * 128}/snapshots", json={"name": LONG}).raise_for_status()
    page.client.post(f"/memories/{'w' * 128}/sleep", json={"passes": 64}).raise_for_status()
    wait(lambda: "in 64 passes" in page.one("#report").text)
    wait(lambda: LONG in page.texts("#snapshots strong"))
    page.press("Options")
    page.fill("#temperature", "-1")
    page.one("#ledger-fold summary").click()
    wait(page.is_awake)
    try:
        for width in WIDTHS:
            resize(page, width)
            assert page.browser.execute_script("return document.body.scrollWidth") <= width
            for view in ("Memory", "Talk") if width < 800 else ("",):
                if view:
                    page.press(view, ".views")
                assert page.one("#memory").is_displayed() == (view != "Talk")
                assert page.browser.execute_script(FIND_SPILLS) == []
                if width == min(WIDTHS):
                    for name in DIALOGS[view]:
                        page.press(name)
                        assert page.browser.execute_script(FIND_SPILLS) == []
                        page.press("Cancel", "dialog")
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_a_memory_that_another_deleted(page: Page) -> None:
    page.open("left")
    page.open("w" * 90)
    page.one("#say").send_keys("typed")
    page.client.delete(f"/memories/{'w' * 90}").raise_for_status()
    wait(lambda: "There is no memory" in page.one("#trouble").text)
    assert not page.browser.title.startswith("w")
    assert page.value("#say") == "typed"
    try:
        for width in WIDTHS:
            resize(page, width)
            assert page.browser.execute_script(COUNT_LINES) == 1
            assert page.browser.execute_script(FIND_SPILLS) == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.press("Close")
    wait(lambda: page.focused() == "say")
    page.choose("left")
    wait(lambda: page.browser.title.startswith("left") and page.one("#say").is_enabled())
    page.press("Delete")
    page.press("Delete", "dialog")
    wait(lambda: not page.browser.title.startswith("left"))
    assert not page.one("#trouble").is_displayed()  # nobody is told what they did themselves


@needs_browser
def test_a_server_that_comes_back(page: Page) -> None:
    page.may_be_refused = True
    page.open("elsewhere")
    page.open("patient")
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}

    def be_offline(is_offline: bool) -> None:
        given = {**conditions, "offline": is_offline}
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", given)

    page.browser.execute_cdp_cmd("Network.enable", {})
    be_offline(True)
    watch_anew = "document.dispatchEvent(new Event('visibilitychange'))"
    page.browser.execute_script(watch_anew)  # what is open already stays
    try:
        wait(lambda: "does not answer" in page.one("#connection").text)
        page.one("#say").send_keys("Hello?", Keys.ENTER)
        wait(lambda: "does not answer" in page.one("#trouble").text)
        wait(lambda: page.value("#say") == "Hello?")
        page.choose("elsewhere")
        wait(lambda: page.value("#memories") == "patient")
        page.press("New")
        page.fill("dialog input", "other", Keys.ENTER)
        wait(lambda: "does not answer" in page.complaint("dialog input"))
    finally:
        be_offline(False)
    wait(lambda: not page.one("#connection").text and not page.one("#trouble").is_displayed())
    page.one("dialog input").send_keys(Keys.ENTER)
    wait(lambda: page.browser.title.startswith("other") and page.value("#say") == "Hello?")


@needs_browser
def test_names_that_no_address_can_hold_are_not_asked_for(lone_page: Page, tmp_path: Path) -> None:
    page = lone_page
    for name in ("plain", "odd"):
        page.client.post("/memories", json={"name": name}).raise_for_status()
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.execute("UPDATE sessions SET name = 'a/b' WHERE name = 'odd'")
    catalogue.close()
    page.browser.get(f"{page.address}/#a/b")  # it is the newest, too
    wait(lambda: page.browser.title.startswith("plain"))
    assert "There is no memory “a/b”" in page.one("#trouble").text
    options = {option.text: option.is_enabled() for option in page.all("#memories option")}
    assert options == {"a/b (by the command line only)": False, "plain": True}


@needs_browser
def test_rows_that_go_hand_on_the_focus(page: Page) -> None:
    page.open("rows")
    for name in ("one", "two"):
        page.client.post("/memories/rows/snapshots", json={"name": name}).raise_for_status()
    wait(lambda: page.texts("#snapshots strong") == ["two", "one"])
    for name, heir in (("two", "Drop snapshot one"), ("one", "snapshots")):
        page.press(f"Drop snapshot {name}")
        page.press("Drop", "dialog")
        wait(lambda heir=heir: page.focused() == heir)


@needs_browser
def test_the_present_is_kept_at_every_rollback(page: Page) -> None:
    page.open("returner")
    page.client.post("/memories/returner/snapshots", json={"name": "here"}).raise_for_status()
    kept = list[str]()
    for number in ("", " 2"):
        page.press("Roll back to here")
        page.one("dialog input").click()
        page.press("Roll back", "dialog")
        kept.insert(0, f"before rollback to here{number}")
        wait(lambda: page.texts("#snapshots strong") == [*kept, "here"])
