"""A real browser, driven: Debian's chromium without a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 180
PHONE_PX = 500  # narrower windows are those of a phone
LOUD = ("serious", "critical")


def is_there() -> bool:
    """Whether chromium and its driver are installed."""
    return all(shutil.which(name) for name in ("chromium", "chromedriver"))


@contextmanager
def chromium(width: int = 1400, dark: bool = False) -> Iterator[Any]:
    """A browser with a window of so many pixels, in a light or dark scheme."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(PATIENCE_S)
        driver.set_script_timeout(PATIENCE_S)
        look(driver, width, dark)
        yield driver
    finally:
        driver.quit()


def look(driver: Any, width: int, dark: bool, height: int = 1200) -> None:
    """Gives the window another width, and the system another colour scheme."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE_PX}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait(driver: Any, condition: Callable[[Any], Any]) -> Any:
    """The first value of a condition that is true; TimeoutException if none is."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    patient = WebDriverWait(driver, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException])
    return patient.until(condition)


def violations(driver: Any) -> list[str]:
    """What axe-core finds serious or critical: rule, and the first element that breaks it."""
    from axe_selenium_python import Axe

    axe = Axe(driver)
    axe.inject()
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in axe.run()["violations"] if one["impact"] in LOUD]
