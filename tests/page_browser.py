"""A browser that nobody sees, and the page of a server in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx2
import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from serving_app import MODEL, listen
from slowwave.memory.talker import Talker
from slowwave.runtime.config import ChatFormat
from slowwave.serving.app import create_app
from slowwave.serving.config import ServeConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1300,900"
)
LIMITS = ServeConfig(max_tokens=10**6, max_body_bytes=20_000, max_prompt_tokens=4000)
PATIENCE = 60.0  # the machine may be busy
Result = TypeVar("Result")


class EndlessChat(ChatFormat):
    """Its lines end in what no random model says, so that replies are as long as they may be."""

    end: ClassVar[str] = "\n~\n"


TALKER = Talker(MODEL, ByteTokenizer(), SleepConfig(window=40, passes=3), EndlessChat())

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="there is no browser; install Debian's chromium and chromium-driver",
)


def wait(look: Callable[[], Result | None]) -> Result:
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := look():
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            pass  # it is not there yet, or was drawn anew meanwhile
        assert time.monotonic() < end, "it does not appear"
        time.sleep(0.03)


class Page:
    """The page of a server, as somebody uses it."""

    may_be_refused = False
    """Whether requests may come to nothing; browsers log that."""

    def __init__(self, browser: webdriver.Chrome, address: str, key: str = "") -> None:
        self.browser, self.address = browser, address
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx2.Client(base_url=f"{address}/v1", headers=headers)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What elements say, seen or not."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return self.browser.execute_script(script, selector)

    def button(self, text: str, within: str = "body") -> WebElement:
        """The button that shows this text, or says it to those who cannot see it."""
        script = (
            "return [...document.querySelectorAll(arguments[0] + ' button')].find((b) => "
            "b.offsetParent && [b.textContent, b.ariaLabel].includes(arguments[1]))"
        )
        return wait(lambda: self.browser.execute_script(script, within, text))

    def press(self, text: str, within: str = "body") -> None:
        """Clicks a button, as `button` finds it; it may be drawn anew meanwhile."""
        wait(lambda: self.button(text, within).click() is None)

    def open(self, name: str, *told: tuple[str, str]) -> None:
        """A new memory that was told texts of sources, looked at."""
        self.client.post("/memories", json={"name": name}).raise_for_status()
        for text, source in told:
            body = {"text": text, "source": source}
            self.client.post(f"/memories/{name}/read", json=body).raise_for_status()
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}/#{name}")
        wait(lambda: self.one("#say").is_enabled())
        self.browser.execute_script("document.getElementById('longest').value = 6")

    def fill(self, selector: str, text: str, *keys: str) -> None:
        """Types a text in the place of what an input holds, and then keys."""
        self.one(selector).send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE, text, *keys)

    def value(self, selector: str) -> str:
        """What an input holds."""
        return str(self.one(selector).get_property("value"))

    def choose(self, name: str) -> None:
        """Looks at another memory."""
        Select(self.one("#memories")).select_by_visible_text(name)

    def say(self, text: str) -> None:
        """Says something, and waits for the end of the turn."""
        before = len(self.texts(".bubble"))
        self.one("#say").send_keys(text, Keys.ENTER)
        wait(lambda: len(self.texts(".bubble")) >= before + 2 and self.one("#send").is_displayed())

    def get(self, path: str) -> Any:
        """What the server says of memories."""
        return self.client.get(f"/memories/{path}").json()

    def is_awake(self) -> bool:
        return not self.all("body.asleep")

    def focused(self) -> str:
        """What has the focus: its id, or else what it says."""
        element = self.browser.switch_to.active_element
        return element.get_attribute("id") or element.accessible_name

    def complaint(self, selector: str) -> str:
        """What a field says of its input."""
        script = "return document.querySelector(arguments[0]).closest('.field').querySelector('.complaint').textContent"  # noqa: E501
        return self.browser.execute_script(script, selector)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("memories")
    app = create_app(TALKER, model_name="tiny", memory_dir=folder, config=LIMITS)
    with listen(app) as address:
        yield address


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Iterator[Page]:
    """Whatever is done with it, nothing fails and nothing leaves the server."""
    with Page(browser, address) as page:
        yield page
    _look_back(page)


@pytest.fixture
def lone_page(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """As `page`, of a server of its own, whose memories lie in `tmp_path`."""
    app = create_app(TALKER, model_name="tiny", memory_dir=tmp_path)
    browser.get("about:blank")
    list(requested(browser))  # by the page before, which still listens to another server
    with listen(app) as address, Page(browser, address) as page:
        yield page
        browser.get("about:blank")
    _look_back(page)


def _look_back(page: Page) -> None:
    told = messages(page.browser)
    if page.may_be_refused:
        told = [each for each in told if "Failed to load resource" not in each]
    assert told == []
    assert {url for url in requested(page.browser) if not url.startswith(page.address)} == set()


def messages(browser: webdriver.Chrome) -> list[str]:
    """What the console was told since the last look."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requested(browser: webdriver.Chrome) -> Iterator[str]:
    """All that was asked for, wherever it is."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if url.startswith(("http", "ws", "ftp")):
                yield url
