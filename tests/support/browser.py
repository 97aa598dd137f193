"""A headless Chromium that looks at pages as a person does, driven by selenium.

Tests that need it are skipped where browser, driver or selenium are missing. Debian: `apt-get install chromium
chromium-driver`, `pip install -e ".[demo,browser]"`; axe: `npm install --no-save axe-core` in the repository's root.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules/axe-core/axe.min.js"
BROWSERS, DRIVER = ("chromium", "chromium-browser", "google-chrome"), "chromedriver"
# The profile is selenium's own and thrown away; without a GPU and, as root in a container, without a sandbox.
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
SERIOUS = ("serious", "critical")
PATIENCE_S = 240


def need_browser() -> None:
    """Skips the test where there is no browser to drive."""
    pytest.importorskip("selenium", reason="needs selenium")
    if not any(map(shutil.which, BROWSERS)) or not shutil.which(DRIVER):
        pytest.skip(f"needs {BROWSERS[0]} and {DRIVER} (Debian: apt-get install chromium chromium-driver)")


@contextmanager
def browsing(width: int = 1400, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A selenium driver with a window of so many CSS pixels, whose user prefers light or dark colours."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    for argument in ARGUMENTS:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which(DRIVER)))
    try:
        driver.set_page_load_timeout(PATIENCE_S)
        look_like(driver, width, height, dark)
        yield driver
    finally:
        driver.quit()


def look_like(driver: Any, width: int, height: int, dark: bool) -> None:
    """Sets the viewport in CSS pixels (a window is never narrower than 500), and the preferred colours."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait_for(driver: Any, condition: Callable[[Any], Any], what: str) -> Any:
    """What `condition(driver)` returns once it is true; AssertionError after `PATIENCE_S`."""
    from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
    from selenium.webdriver.support.wait import WebDriverWait

    waiting = WebDriverWait(driver, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException])
    try:
        return waiting.until(condition)
    except TimeoutException:
        raise AssertionError(f"waited {PATIENCE_S} s for {what}") from None


def whole_page(driver: Any, path: Path) -> None:
    """Writes a screenshot of the page from top to bottom."""
    import base64

    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


def sideways_px(driver: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")


def violations(driver: Any) -> list[str]:
    """What axe-core finds on the page that is serious or worse, one line each; skips without axe-core."""
    if not AXE.exists():
        pytest.skip("needs axe-core: npm install --no-save axe-core")
    driver.execute_script(AXE.read_text())
    found = driver.execute_async_script("const done = arguments[0]; axe.run().then(one => done(one.violations));")
    return [_line(one) for one in found if one["impact"] in SERIOUS]


def console_errors(driver: Any) -> list[str]:
    """What the page complained about in the console since the last call."""
    return [json.dumps(one) for one in driver.get_log("browser") if one["level"] == "SEVERE"]


def _line(violation: dict) -> str:
    nodes = "; ".join(f"{node['target']} {node['html'][:160]}" for node in violation["nodes"][:5])
    return f"{violation['impact']} {violation['id']} ({len(violation['nodes'])}): {violation['help']}: {nodes}"
