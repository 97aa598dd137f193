"""The site is built without a warning, and looked at in a real browser."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support import browser, commands

pytestmark = pytest.mark.slow
LOOKS = [(1400, 1000, False), (390, 844, True)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=commands.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize(("width", "height", "dark"), LOOKS)
def test_pages_in_a_browser(site, address, tmp_path, width, height, dark):
    browser.need_browser()
    with browser.browsing(width, height, dark) as driver:
        for page in ["", *sorted(f"{path.parent.name}/" for path in site.glob("*/index.html"))]:
            driver.get(address + page)
            browser.wait_for(driver, lambda driver: driver.find_elements("css selector", "article h1"), page)
            browser.whole_page(driver, tmp_path / f"{page.strip('/') or 'index'}.png")
            assert browser.sideways_px(driver) <= 0, page
            assert not browser.violations(driver), page
            body = driver.find_element("css selector", "body")
            assert (body.get_attribute("data-md-color-scheme") == "slate") == dark


def test_the_diagram_is_drawn(address):
    browser.need_browser()
    if not (commands.ROOT / "node_modules/mermaid").exists():
        pytest.skip("needs mermaid: npm install --no-save mermaid")
    with browser.browsing() as driver:
        driver.get(address + "concepts/")
        drawn = "div.mermaid"  # the theme puts the drawing into a closed shadow root of this element
        found = browser.wait_for(driver, lambda driver: driver.find_elements("css selector", drawn), "the diagram")
        browser.wait_for(driver, lambda _: found[0].size["height"] > 300, "its drawing")
        assert "flowchart TB" not in driver.find_element("css selector", "article").text
