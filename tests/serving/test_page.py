"""The page at /, in a headless browser."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import httpx2
import pytest
from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.keys import Keys

from page_browser import TALKER, Page, messages, needs_browser, requested, wait
from serving_app import Make, listen, run, serve
from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.store import Store
from slowwave.serving.access import read_api_keys
from slowwave.serving.app import PAGE, create_app
from slowwave.storage.tokenizer import TextStream

NOTE_NIGHTS = """
    new MutationObserver(() => {
        if (document.body.classList.contains("asleep")) document.body.dataset.nights = "seen";
    }).observe(document.body, { attributeFilter: ["class"] });
"""
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@needs_browser
def test_a_conversation_fills_the_window_and_is_slept_on(lone_page: Page) -> None:
    page = lone_page
    page.browser.get(page.address)
    page.press("Make it", "#welcome")
    wait(lambda: "Nothing is remembered yet" in page.one("#welcome").text)
    page.browser.execute_script("document.getElementById('longest').value = 6")
    page.say("Hello, I am Ann.")
    told = page.get("first")
    assert 0 < told["window_fill"] < told["window"]
    gauge = page.one("#gauge")
    wait(lambda: gauge.get_attribute("aria-valuenow") == str(told["window_fill"]))
    said = "".join(entry["text"] for entry in page.get("first/ledger")["data"])
    wait(lambda: len(page.texts(".token:not(.free)")) == told["window_fill"])
    shown = wait(lambda: "".join(page.texts(".token")))
    assert shown.replace("\N{NO-BREAK SPACE}", " ").replace("↵", "\n").startswith("> Hello")
    assert len(page.texts(".token")) == told["window"] and said.startswith("> Hello")
    assert page.texts(".nights li") == []
    page.browser.execute_script(NOTE_NIGHTS)
    page.say("And this is more than fits into it.")
    assert page.all("body[data-nights=seen]"), "nobody sees it sleep"
    sleeps = page.get("first/sleeps")["data"]
    assert sleeps
    wait(lambda: len(page.texts(".nights li")) == len(sleeps))
    wait(lambda: f"{sleeps[-1]['tokens']} tokens in 3 passes" in page.one("#report").text)
    wait(page.is_awake)
    assert page.one("#doing").text == "Awake"


@needs_browser
def test_sleep_now_takes_as_many_passes_as_asked(page: Page) -> None:
    page.open("sleeper", ("Ann lives in Lima.", "notes"))
    page.one("#passes").send_keys("2")
    page.press("Sleep now")
    wait(lambda: "in 2 passes" in page.one("#report").text)
    assert "asked to" in page.one("#report").text
    wait(lambda: page.one("#gauge").get_attribute("aria-valuenow") == "0")
    wait(page.is_awake)
    assert not page.button("Sleep now").is_enabled()  # there is nothing to sleep on
    assert page.texts("#report .taken li") == ["notesAnn lives in Lima."]


@needs_browser
def test_a_snapshot_is_a_way_back(page: Page) -> None:
    page.open("traveller")  # no sleep comes in between
    page.say("One.")
    before, shown = page.get("traveller/ledger"), page.texts(".bubble .text")
    page.one("#snapshot-name").send_keys("here")
    page.press("Take a snapshot")
    back = page.button("Roll back to here")
    page.say("Two.")
    assert len(page.texts(".bubble .text")) == len(shown) + 2
    back.click()
    assert "2 entries came since" in page.one("dialog").text
    page.press("Roll back", "dialog")
    wait(lambda: page.texts(".bubble .text") == shown)
    assert page.get("traveller/ledger") == before
    page.press("Fork from here")
    page.press("Fork", "dialog")
    wait(lambda: page.browser.title.startswith("traveller 2"))
    wait(lambda: page.texts(".bubble .text") == shown)


@needs_browser
def test_a_load_that_is_overtaken_waits_for_the_newer(page: Page) -> None:
    page.open("awaited")
    script = """
        const done = arguments[0];
        import("/memory.js").then(async ({ Memory }) => {
            const memory = new Memory();
            memory.name = "awaited";
            const first = memory.load();
            memory.load();
            await first;
            done(memory.info?.name);
        });
    """
    assert page.browser.execute_async_script(script) == "awaited"


@needs_browser
def test_forgetting_is_shown_before_it_happens(page: Page) -> None:
    page.open("forgetful", ("Bob owes me money.", "gossip"), ("Rain.", "weather"))
    page.say("One.")
    page.say("Two.")
    before = page.get("forgetful/ledger")["data"]
    kept = before[3]["place"]
    page.press("Forget source gossip…")
    preview = wait(lambda: page.one("dialog .preview"))
    assert "Bob owes me money." in preview.text and "Rain." not in preview.text
    assert "2 replies" in preview.text
    page.press("Cancel", "dialog")
    wait(lambda: not page.all("dialog"))
    assert page.get("forgetful/ledger")["data"] == before
    page.press("Forget source gossip…")
    wait(lambda: page.all("dialog .tick input"))[0].click()
    wait(lambda: "4 entries" in page.one("dialog [role=status]").text)
    page.press("Forget", "dialog")
    wait(lambda: page.texts("#sources .chip") == ["weather", "user", "model"])
    texts = [entry["text"] for entry in page.get("forgetful/ledger")["data"]]
    assert texts == [before[place]["text"] for place in (1, 2, kept, 4)]
    assert not any("Bob" in text for text in page.texts(".bubble, .token, .taken, .ledger"))


@needs_browser
def test_two_memories_do_not_mix(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    push = TextStream.push

    def push_calmly(self: TextStream, token: int) -> str:
        time.sleep(0.02)  # as a model of some size; a tiny one drowns the browser
        return push(self, token)

    monkeypatch.setattr(TextStream, "push", push_calmly)
    page.open("bea", ("Bea's secret.", "bea"))
    page.open("abe", ("Abe's secret.", "abe"))
    page.browser.execute_script("document.getElementById('longest').value = 1e6")
    page.one("#say").send_keys("Said to Abe.", Keys.ENTER)
    wait(lambda: any(page.texts(".assistant .text")))  # the reply has begun
    page.choose("bea")
    wait(lambda: page.texts(".bubble .text") == ["Bea's secret."])
    wait(lambda: page.texts("#sources .chip") == ["bea"])
    wait(lambda: page.one("#say").is_enabled())
    page.choose("abe")
    wait(lambda: "Said to Abe." in page.texts(".user .text"))
    page.press("Stop")
    wait(lambda: page.one("#send").is_displayed())
    wait(lambda: page.texts(".bubble .text")[:2] == ["Abe's secret.", "Said to Abe."])
    assert [entry["text"] for entry in page.get("bea/ledger")["data"]] == ["Bea's secret."]
    abe = page.get("abe/ledger")["data"]
    assert [entry["source"] for entry in abe] == ["abe", "user", "model"]
    assert 0 < abe[-1]["num_tokens"] < 10**6


@needs_browser
def test_a_script_in_a_message_stays_text(page: Page) -> None:
    page.open("prey", (HOSTILE, HOSTILE[:60]))
    page.client.post("/memories/prey/snapshots", json={"name": HOSTILE[:60]}).raise_for_status()
    page.browser.execute_script("document.getElementById('longest').value = 2")
    page.say(HOSTILE)
    wait(lambda: HOSTILE in page.texts(".user .text"))
    wait(lambda: HOSTILE[:60] in page.texts("#snapshots strong"))
    wait(lambda: HOSTILE[:60] in page.texts("#sources .chip"))
    page.one("#ledger-fold summary").click()
    page.press(f"Forget source {HOSTILE[:60]}…")
    wait(lambda: HOSTILE[:60] in page.one("dialog h2").text)
    page.press("Cancel", "dialog")
    assert page.browser.title.startswith("prey")
    assert page.all("main script, .said img, .memory li img, dialog img") == []


@needs_browser
def test_markup_and_foreign_scripts_are_refused_by_the_browser(page: Page) -> None:
    page.open("fenced")
    for attack in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').textContent = '1'",
        "setTimeout('document.title = 1')",
    ):
        with pytest.raises(JavascriptException, match="requires 'Trusted"):
            page.browser.execute_script(attack)
    answer = page.browser.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('refused'))"
    )
    assert answer == "refused"
    refusals = list[str]()

    def is_told_of_all() -> bool:
        refusals.extend(messages(page.browser))
        return len(refusals) == 5

    wait(is_told_of_all)
    told = " ".join(refusals)
    assert told.count("'Trusted") == 3
    assert "Content Security Policy" in told and "connect-src" in told


@needs_browser
def test_the_time_line_shows_passes_and_verdicts(page: Page) -> None:
    page.open("judged", ("a" * 100, "notes"))
    wait(lambda: len(page.all(".nights button")) == 2)
    page.all(".nights button")[1].send_keys(Keys.ARROW_LEFT)
    wait(lambda: page.one("#report h3").text == "Sleep 1")
    assert page.browser.switch_to.active_element.accessible_name.startswith("Sleep 1, ")
    report = {
        **page.get("judged/sleeps")["data"][0],
        "changes": [0.5],
        "pass_changes": [[0.25], [0.125]],
        "verdict": {"outcome": "rejected", "reasons": ["median_nll rose"]},
    }
    found = page.browser.execute_async_script(
        "const [report, done] = arguments;"
        "import('/sleeps.js').then(({ describe }) => {"
        "  const box = document.createElement('div'); box.append(...describe(report, []));"
        "  const texts = (what) => [...box.querySelectorAll(what)].map((e) => e.textContent);"
        "  const heats = [...box.querySelectorAll('td')].map((e) => +e.style.getPropertyValue('--heat'));"  # noqa: E501
        "  done([texts('thead th'), texts('td'), heats, texts('p').join(' ')]); })",
        report,
    )
    heads, cells, heats, text = found
    assert heads == ["layer", "pass 2", "pass 3", "whole sleep"]
    assert cells == ["25 %", "13 %", "50 %"]
    assert heats == [0.707, 0.5, 1]
    assert "rejected; median_nll rose" in text


@needs_browser
def test_a_rejected_sleep_is_told_from_the_one_that_took_its_number(
    lone_page: Page, tmp_path: Path
) -> None:
    canary = Canary(question="Who?", answer="Ann.")
    gate = GateConfig(canaries=(canary,), max_canary_nll_rise=-1000.0)
    with Store(tmp_path) as store, store.open("judged", TALKER, create=True, gate=gate) as kept:
        kept.read("Bob.")
        kept.sleep()
        kept.sleep(passes=1)
    page = lone_page
    page.browser.get(f"{page.address}/#judged")
    wait(lambda: len(page.all(".nights button")) == 2)
    rejected, accepted = page.all(".nights button")
    assert accepted.get_attribute("aria-current") == "true"
    assert "It took in 1 entry" in page.one("#report").text
    rejected.click()
    wait(lambda: "The gate: rejected" in page.one("#report").text)
    current = [each.get_attribute("aria-current") for each in page.all(".nights button")]
    assert current == ["true", "false"]
    assert "It took in" not in page.one("#report").text
    assert page.texts("#kinds li") == ["it was asked to", "the gate rejected it"]


@needs_browser
def test_an_export_is_a_memory(page: Page, tmp_path: Path) -> None:
    page.open("leaver", ("Ann lives in Lima.", "notes"))
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.press("Export")
    file = wait(lambda: next(tmp_path.glob("*.memory"), None))
    wait(lambda: not [*tmp_path.glob("*.crdownload")])
    with Store(tmp_path / "elsewhere") as store:
        assert store.import_session(file).tokens_seen == 18


@needs_browser
def test_a_key_is_asked_for_and_a_lost_server_told(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("ann sesame\n")
    keys = read_api_keys(tmp_path / "keys")
    app = create_app(TALKER, model_name="tiny", memory_dir=tmp_path / "memories", keys=keys)
    with contextlib.ExitStack() as lives:
        address = lives.enter_context(listen(app))
        page = lives.enter_context(Page(browser, address, "sesame"))
        page.client.post("/memories", json={"name": "mine"}).raise_for_status()
        browser.get(address)
        for key, answer in (("wr€ng", "No API key has"), ("wrong", "The API key is wrong")):
            field = wait(lambda: page.one("dialog input"))
            assert field.get_attribute("type") == "password"
            page.fill("dialog input", key, Keys.ENTER)
            wait(lambda answer=answer: answer in page.complaint("dialog input"))
            assert page.value("dialog input") == key
            assert browser.execute_script("return sessionStorage.length") == 0
        page.one("dialog input").send_keys("sesame", Keys.ENTER)  # what was wrong is selected
        wait(lambda: page.one("#memories").text == "mine")
        stores = "return [{...sessionStorage}, localStorage.length, document.cookie]"
        assert browser.execute_script(stores) == [{"slowwave.key": "sesame"}, 0, ""]
        wait(lambda: page.one("#say").is_enabled())
        lives.close()
        wait(lambda: "does not answer" in page.one("#connection").text)
        page.one("#say").send_keys("Hello?", Keys.ENTER)
        wait(lambda: "does not answer" in page.one("#trouble").text)
        assert page.one("#say").get_attribute("value") == "Hello?"  # to be said again
    browser.get("about:blank")
    assert all("Failed to load resource" in message for message in messages(browser))
    assert {url for url in requested(browser) if not url.startswith(address)} == set()


def test_the_page_keeps_to_itself(make: Make) -> None:
    async def scenario() -> list[httpx2.Response]:
        async with serve(make(keys=None)) as client:
            found = await client.get("/")
            etag = {"If-None-Match": found.headers["etag"]}
            paths = [f"/{file.name}" for file in PAGE.iterdir()]
            same = await client.get("/", headers=etag)
            return [found, same, *[await client.get(path) for path in paths]]

    page, same, *files = run(scenario())
    assert same.status_code == 304
    for response in (page, same, *files):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy and "*" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text and "innerHTML" not in text and " style=" not in text
    kinds = {r.headers["content-type"].partition(";")[0] for r in files}
    assert kinds == {"text/html", "text/css", "text/javascript", "image/svg+xml"}
