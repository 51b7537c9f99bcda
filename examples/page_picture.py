"""Takes a picture of the page that `slowwave serve` has at /, amid a conversation.

    python examples/page_picture.py MODEL docs/page.png [--light] [--width 1440] [--height 1100]

Needs Debian's chromium and chromium-driver, and selenium. The memories are thrown away.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NOTES = "> Sara lives in Oslo.\nNoted.\n> Sara works as a nurse.\nNoted.\n"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars"
)
SAID = (
    "My cat is called Milo.",
    "I live in Lisbon.",
    "What is my cat called?",
    "My favourite food is pizza.",
    "Tom has a dog called Rex.",
    "Where do I live?",
    "I work as a teacher.",
    "What is Tom's dog called?",
    "Anna lives in Rome.",
    "Anna works as a pilot.",
    "What is my favourite food?",
    "My favourite colour is green.",
    "Where does Anna live?",
    "Good evening.",
    "What is my cat called?",
    "What is the code of the gate?",
    "Where do I live?",
    "What is my favourite colour?",
)


def main() -> None:
    """Serves the model, talks to it, and takes the picture."""
    parser = argparse.ArgumentParser(description="Takes a picture of the page.")
    parser.add_argument("model")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--memory-view", action="store_true", help="on a phone, the other side")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=1100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(given.model, folder) as address:
        talk(address)
        with browse(folder) as browser:
            picture = take(browser, address, given)
    given.picture.write_bytes(picture)


@contextlib.contextmanager
def serve(model: str, folder: str) -> Iterator[str]:
    """The address of a server of the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = "from slowwave.cli import main; main()"
    arguments = ("serve", model, "--memory-dir", f"{folder}/memories", "--port", str(port))
    server = subprocess.Popen([sys.executable, "-c", command, *arguments])
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{address}/health")
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def talk(address: str) -> None:
    """A short conversation, with a text of another source and a snapshot in it."""

    def post(path: str, **body: Any) -> None:
        request = urllib.request.Request(
            f"{address}/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()

    model = json.load(urllib.request.urlopen(f"{address}/v1/models"))["data"][0]["id"]
    for i, text in enumerate(SAID):
        messages = [{"role": "user", "content": text}]
        post("chat/completions", model=model, memory="ann", messages=messages, max_tokens=24)
        if i == 2:
            post("memories/ann/snapshots", name="before the notes")
            post("memories/ann/read", text=NOTES, source="notes")


@contextlib.contextmanager
def browse(folder: str) -> Iterator[webdriver.Chrome]:
    """A browser that loads nothing but what it is told to."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS.split(), f"--user-data-dir={folder}/browser"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


def take(browser: webdriver.Chrome, address: str, given: argparse.Namespace) -> bytes:
    """The page as a PNG."""
    scheme = {"name": "prefers-color-scheme", "value": "light" if given.light else "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": given.width, "height": given.height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)
    time.sleep(2)
    if given.memory_view:
        browser.find_element("css selector", ".views [data-view=memory]").click()
        time.sleep(0.5)
    for entry in browser.get_log("browser"):
        print(entry["message"], file=sys.stderr)
    return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


if __name__ == "__main__":
    main()
