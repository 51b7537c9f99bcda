"""What is typed into the page: its limits, what is refused, and files."""

from __future__ import annotations

from pathlib import Path

import httpx2
from selenium.webdriver.common.keys import Keys

from page_browser import LIMITS, TALKER, Page, needs_browser, wait
from serving_app import Make, chat, run, serve
from slowwave.serving.access import ApiKeys, read_api_keys
from slowwave.serving.config import ServeConfig

PASSES = TALKER.sleep.passes


def test_a_client_can_ask_for_the_limits(make: Make, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("ann sesame\n")

    async def ask(keys: ApiKeys, key: str | None) -> httpx2.Response:
        config = ServeConfig(max_tokens=30, default_max_tokens=20, max_body_bytes=1000)
        async with serve(make(config=config, keys=keys), key) as client:
            return await client.get("/v1/limits")

    keys = read_api_keys(tmp_path / "keys")
    assert run(ask(keys, None)).status_code == 401
    told = run(ask(keys, "sesame")).json()
    assert (told["max_tokens"], told["default_max_tokens"], told["max_body_bytes"]) == (
        30,
        20,
        1000,
    )
    assert told["max_prompt_tokens"] == ServeConfig().max_prompt_tokens
    assert told["default_passes"] == PASSES


def test_what_is_at_a_limit_is_taken_and_more_is_refused(make: Make) -> None:
    async def scenario() -> list[int]:
        async with serve(make()) as client:
            limits = (await client.get("/v1/limits")).json()
            statuses = list[int]()
            for over in (0, 1):
                name, most = "n" * (limits["max_name_length"] + over), limits["max_tokens"] + over
                hot, passes = limits["max_temperature"] + over, limits["max_passes"] + over
                for path, body in (
                    ("memories", {"name": name}),
                    ("memories/a/read", {"text": "Hi", "source": name}),
                    ("memories/a/sleep", {"passes": passes}),
                    ("chat/completions", chat("Hi", temperature=hot)),
                    ("chat/completions", chat("Hi", max_tokens=most)),
                ):
                    statuses.append((await client.post(f"/v1/{path}", json=body)).status_code)
            return statuses

    assert run(scenario()) == [201, 200, 200, 200, 200, 422, 422, 422, 422, 400]


@needs_browser
def test_inputs_have_the_limits_of_the_server(page: Page) -> None:
    page.open("limited", ("Ann lives in Lima.", "notes"))
    page.press("Options")
    assert page.one("#longest").get_attribute("placeholder") == str(LIMITS.default_max_tokens)
    assert page.one("#passes").get_attribute("placeholder") == str(PASSES)
    for selector, given, answer in (
        ("#passes", "1.5", "Use a whole number"),
        ("#passes", "65", "Use 64 or less"),
        ("#longest", "1000001", "Use 1,000,000 or less"),
        ("#temperature", "-1", "Use 0 or more"),
        ("#temperature", "1e", "This is no number"),
    ):
        page.fill(selector, given)
        assert page.complaint(selector) == answer
        assert page.one(selector).get_attribute("aria-invalid") == "true"
        described = page.one(selector).get_attribute("aria-describedby") or ""
        assert answer in page.texts(f"#{described.split()[-1]}")
    page.fill("#passes", "65", Keys.ENTER)
    page.press("Options")
    page.fill("#say", "Hello.", Keys.ENTER)
    assert page.one("#temperature").is_displayed(), "what is wrong is hidden"
    assert page.focused() == "temperature"
    assert page.value("#say") == "Hello."
    assert page.get("limited")["num_entries"] == 1 and page.get("limited")["num_sleeps"] == 0
    page.fill("#temperature", "")
    page.fill("#longest", "6")
    assert page.complaint("#longest") == page.complaint("#temperature") == ""
    page.one("#say").send_keys(Keys.ENTER)
    wait(lambda: page.get("limited")["num_entries"] == 3)


@needs_browser
def test_a_long_name_and_a_long_text_are_told_as_they_are_typed(page: Page) -> None:
    page.may_be_refused = True
    page.open("long")
    page.fill("#snapshot-name", "n" * 127)
    assert page.complaint("#snapshot-name") == ""
    page.one("#snapshot-name").send_keys("nnn")
    assert page.value("#snapshot-name") == "n" * 128
    assert page.complaint("#snapshot-name") == "That is the longest it may be: 128 characters."

    def paste(length: int) -> None:
        script = "const say = document.getElementById('say'); say.value = 'x'.repeat(arguments[0]);"
        script += "say.dispatchEvent(new Event('input'))"
        page.browser.execute_script(script, length)

    paste(LIMITS.max_body_bytes + 1)
    assert "20,001 bytes, and the server takes 20,000" in page.complaint("#say")
    for length, answer in (
        (LIMITS.max_body_bytes - 10, "the server takes 20,000"),  # but not the rest of the request
        (LIMITS.max_prompt_tokens + 10, "has more than 4000 new tokens"),
    ):
        paste(length)
        assert page.complaint("#say") == ""
        page.one("#say").send_keys(Keys.ENTER)
        wait(lambda answer=answer: answer in page.complaint("#say"))
        assert len(page.value("#say")) == length
    assert not page.one("#trouble").is_displayed()
    assert page.get("long")["num_entries"] == 0


@needs_browser
def test_a_name_that_is_refused_stays_in_its_input(page: Page) -> None:
    page.may_be_refused = True
    page.open("taken")
    page.press("New")
    page.press("Make it", "dialog")
    assert page.complaint("dialog input") == "Nothing is in it yet"
    for name, answer in (("taken", "is there already"), ("taken@home", "unfit"), ("a/b", "'a/b'")):
        page.fill("dialog input", name, Keys.ENTER)
        wait(lambda answer=answer: answer in page.complaint("dialog input"))
        assert page.value("dialog input") == name
        assert page.focused() == page.one("dialog input").get_attribute("id")
    page.fill("dialog input", "free", Keys.ENTER)
    wait(lambda: page.browser.title.startswith("free"))
    page.press("Fork")
    assert page.value("dialog input") == "free 2"
    page.fill("dialog input", "taken", Keys.ENTER)
    wait(lambda: "is there already" in page.complaint("dialog input"))
    assert page.value("dialog input") == "taken"
    page.press("Cancel", "dialog")
    page.fill("#snapshot-name", "here", Keys.ENTER)
    wait(lambda: page.texts("#snapshots strong") == ["here"])
    page.fill("#snapshot-name", "here", Keys.ENTER)
    wait(lambda: "is there already" in page.complaint("#snapshot-name"))
    assert page.value("#snapshot-name") == "here"
    assert not page.one("#trouble").is_displayed()


@needs_browser
def test_a_file_is_read_under_its_name(page: Page, tmp_path: Path) -> None:
    page.open("reader")
    (tmp_path / "<b>Ann's notes.txt").write_text("  Ann lives in Lima.\nBob too: é.\n", "utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\xff")
    (tmp_path / "zeros.txt").write_bytes(b"a\x00b")
    (tmp_path / "large.txt").write_text("x" * (LIMITS.max_body_bytes + 1))
    (tmp_path / "empty.txt").touch()
    page.press("Give it a text to read")
    picker, text, source = "dialog [type=file]", "dialog textarea", "dialog [name=source]"
    page.fill(text, "typed")
    for file, answer in (
        ("picture.png", "It is no text in UTF-8"),
        ("zeros.txt", "It is no text in UTF-8"),
        ("large.txt", "It has 20.0 kB, and the server takes 20.0 kB"),
    ):
        page.one(picker).send_keys(str(tmp_path / file))
        wait(lambda answer=answer: page.complaint(picker).startswith(answer))
        assert page.value(text) == "typed"
    page.one(picker).send_keys(str(tmp_path / "empty.txt"))
    wait(lambda: page.complaint(text) == "Nothing is in it yet")
    page.one(picker).send_keys(str(tmp_path / "<b>Ann's notes.txt"))
    wait(lambda: page.value(source) == "<b>Ann's notes.txt")
    assert page.complaint(picker) == page.complaint(text) == ""
    page.press("Let it read", "dialog")
    wait(lambda: page.texts("#sources .chip") == ["<b>Ann's notes.txt"])
    assert page.texts(".bubble .chip") == ["read from <b>Ann's notes.txt"]
    told = page.get("reader/ledger")["data"]
    assert [entry["text"] for entry in told] == ["  Ann lives in Lima.\nBob too: é.\n"]


@needs_browser
def test_a_long_file_is_not_laid_out(lone_page: Page, tmp_path: Path) -> None:
    page, text = lone_page, "dialog textarea"
    page.open("reader")
    (tmp_path / "long.txt").write_text("x" * 150_000, "utf-8")
    (tmp_path / "short.txt").write_text("x", "utf-8")
    page.press("Give it a text to read")
    for file, length, note in (
        ("long.txt", 150_000, "150.0 kB of text, too long to show here."),
        ("short.txt", 1, ""),
    ):
        page.one("dialog [type=file]").send_keys(str(tmp_path / file))
        wait(lambda file=file: page.value("dialog [name=source]") == file)
        assert page.complaint("dialog [type=file]") == note
        assert len(page.value(text)) == length
        assert page.one(text).is_displayed() == (not note)


@needs_browser
def test_names_are_cut_between_characters_and_lead_nowhere_else(page: Page) -> None:
    page.open("names")
    script = """
        const done = arguments[0];
        Promise.all([import("/dom.js"), import("/api.js")]).then(([{ cut, findFree }, { at }]) => {
            let lost = "";
            try { at("x", "snapshots", ".."); } catch (error) { lost = error.message; }
            done([
                cut("ab🌙", 3), cut("ab🌙", 4), cut("ab", 9), findFree("ab🌙", ["ab🌙"], 5),
                findFree("a", ["a", "a 2"], 9), at("a/b", "ä"), lost,
            ]);
        });
    """
    *found, lost = page.browser.execute_async_script(script)
    assert found == ["ab", "ab🌙", "ab", "ab 2", "a 3", "/v1/memories/a%2Fb/%C3%A4"]
    assert "cannot stand in an address" in lost
