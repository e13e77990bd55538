"""Pictures of the three pages for the README, from real label files.

    python tests/annotate/take_screenshots.py FOLDER REPORTS NAME=FILE NAME=FILE

Needs what the browser tests need. Twelve PNG files: compare, review and label at 1280 and 390 px, light and dark.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from annotation_samples import Server
from page_checks import look
from PIL import Image
from playwright.sync_api import sync_playwright
from test_annotate_browser import ARGUMENTS, CHROMIUM, Person

KEYS = {"compare": ["d", "d"], "review": ["ArrowDown", "ArrowDown", " "], "label": ["ArrowDown"]}


def main(folder: str, reports: str, *versions: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.environ["LITECHEX_SCREENSHOTS"] = folder
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for task, keys in KEYS.items():
            given = versions[-1:] if task == "label" else versions
            chosen = [argument for spec in given for argument in ("--pred", spec)]
            store = str(Path(scratch) / "judgements.sqlite")
            server = Server([task, "--reports", reports, *chosen, "--store", store, "--port", "0", "--limit", "20"])
            server.start()
            try:
                look(server.url, task, keys, lambda url, name: Person(browser, url, name))
            finally:
                server.kill()
        browser.close()
    for picture in Path(folder).glob("annotate-*.png"):
        Image.open(picture).convert("RGB").quantize(96).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
