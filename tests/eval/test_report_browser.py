"""report.html in a real browser: both widths, both schemes, the keyboard, axe-core. See tests/support/browser.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.support import browser

pytestmark = pytest.mark.slow

WIDTHS, SCHEMES = (390, 1400), (False, True)


@pytest.fixture(scope="module")
def driver(evaluated: Path) -> Iterator:
    """The report, opened."""
    browser.need_browser()
    with browser.browsing() as driver:
        driver.get((evaluated / "report.html").as_uri())
        yield driver


@pytest.mark.parametrize(("width", "dark"), list(product(WIDTHS, SCHEMES)))
def test_it_fits_and_everyone_can_read_it(driver, width, dark):
    browser.look_like(driver, width, 1000, dark)
    assert browser.sideways_px(driver) <= 0, "the page itself does not scroll sideways"
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (not dark)
    assert browser.violations(driver) == []


def test_a_wide_table_scrolls_by_itself(driver):
    browser.look_like(driver, 390, 1000, dark=False)
    script = "const one = document.querySelector('.wide'); return [one.scrollWidth, one.clientWidth, one.tabIndex]"
    content, shown, tab = driver.execute_script(script)
    assert content > shown <= 390 and tab == 0


def test_a_column_sorts_by_the_keyboard(driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.look_like(driver, 1400, 1000, dark=False)
    (head,) = [one for one in driver.find_elements(By.CSS_SELECTOR, "table.rows th") if "mask IoU" in one.text]
    place = len(head.find_elements(By.XPATH, "preceding-sibling::th"))

    def column() -> list[float]:
        cells = driver.find_elements(By.CSS_SELECTOR, f"table.rows tbody tr td:nth-child({place + 1})")
        return [float(cell.text) for cell in cells]

    before = column()
    assert len(set(before)) > 2
    for key, order in ((Keys.ENTER, "ascending"), (Keys.SPACE, "descending")):
        head.find_element(By.TAG_NAME, "button").send_keys(key)
        assert head.get_attribute("aria-sort") == order
        assert len(driver.find_elements(By.CSS_SELECTOR, "th[aria-sort]")) == 1
        assert column() == sorted(before, reverse=order == "descending")


def test_contents_lead_to_their_parts(driver):
    from selenium.webdriver.common.by import By

    browser.look_like(driver, 1400, 600, dark=False)
    link = driver.find_element(By.LINK_TEXT, "Changed answers")
    link.click()
    target = driver.find_element(By.ID, link.get_attribute("href").partition("#")[2])
    top = driver.execute_script("return arguments[0].getBoundingClientRect().top", target)
    assert -5 <= top < 600
    assert not driver.find_element(By.CSS_SELECTOR, 'nav a[href="#judge"]').is_displayed(), "there is no judge"
    assert browser.console_errors(driver) == []
