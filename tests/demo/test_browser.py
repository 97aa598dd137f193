"""A browser clicks through the page of `python -m gp.demo`."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request

import pytest

from gp.demo.examples import draw_examples
from tests.support import browser, commands

pytest.importorskip("gradio")
pytest.importorskip("selenium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.is_there(), reason="needs chromium and chromedriver"),
]
SECOND = "which number is on the orange card ?"


def find(driver, selector):
    return driver.find_elements("css selector", selector)


def text_of(driver, selector) -> str:
    return driver.find_element("css selector", selector).text


def open_page(driver, address) -> None:
    driver.get(address)
    browser.wait(driver, lambda d: find(d, "#ask") and find(d, "#examples tbody tr"))


def take_example(driver, number: int) -> None:
    before = driver.find_element("css selector", "#question textarea").get_attribute("value")
    find(driver, "#examples tbody tr")[number].click()
    box = driver.find_element("css selector", "#question textarea")
    browser.wait(driver, lambda d: box.get_attribute("value") not in ("", before) and find(d, "#pictures img"))


def ask(driver, question: str | None = None) -> None:
    """Asks, and waits until both answers are there."""
    before = len(find(driver, "#unpruned .bot.message"))
    if question is not None:
        write(driver, question)
    driver.find_element("css selector", "#ask").click()
    browser.wait(driver, lambda d: len(find(d, "#unpruned .bot.message")) == before + 1)
    browser.wait(driver, lambda d: text_of(d, "#figures").count(" x ") + text_of(d, "#figures").count("\nx ") >= 3)


def write(driver, question: str) -> None:
    box = driver.find_element("css selector", "#question textarea")
    box.clear()
    box.send_keys(question)


def answers(driver, side: str) -> list[str]:
    return [one.text.strip() for one in find(driver, f"#{side} .bot.message")]


def picture(driver, name: str) -> tuple[int, str]:
    """Width of a picture in pixels of its own, and its address."""
    image = browser.wait(driver, lambda d: find(d, f"#{name} img"))[0]
    browser.wait(driver, lambda d: int(image.get_attribute("naturalWidth") or 0))
    return int(image.get_attribute("naturalWidth")), image.get_attribute("src")


@pytest.fixture(scope="module")
def address():
    port = commands.free_port()
    process = commands.begin("-m", "gp.demo", f"port={port}")
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}" in line, line + process.stderr.read()
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def driver(address):
    with browser.chromium() as one:
        open_page(one, address)
        yield one


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return draw_examples(tmp_path_factory.mktemp("examples"))


def test_two_questions_about_an_example(driver, examples):
    take_example(driver, 0)
    ask(driver)
    assert answers(driver, "pruned") == answers(driver, "unpruned") == [examples[0].answer]
    figures = text_of(driver, "#figures")
    kept = re.search(r"(\d+) of 256", figures)
    assert kept and 0 < int(kept[1]) < 64 and "MiB" in figures and "ms" in figures
    shown = {name: picture(driver, name) for name in ("kept", "heat")}
    assert {width for width, _ in shown.values()} == {448}
    ask(driver, SECOND)
    assert len(answers(driver, "pruned")) == len(answers(driver, "unpruned")) == 2
    assert picture(driver, "kept")[1] != shown["kept"][1]


def test_another_picture_begins_anew(driver, examples):
    take_example(driver, 3)
    browser.wait(driver, lambda d: not find(d, "#pruned .bot.message"))
    ask(driver)
    assert answers(driver, "unpruned") == [examples[3].answer]
    assert "of 512" in text_of(driver, "#figures") and picture(driver, "kept")[0] == 896


def test_an_own_picture_and_another_method(driver, examples):
    driver.refresh()
    browser.wait(driver, lambda d: find(d, "#ask"))
    browser.wait(driver, lambda d: find(d, "#pictures input[type=file]"))[0].send_keys(examples[1].pictures[0])
    browser.wait(driver, lambda d: find(d, "#pictures img"))
    next(one for one in find(driver, "#method label") if one.text.strip() == "fastv").click()
    box = browser.wait(driver, lambda d: find(d, "#budget input[type=number]"))[0]
    box.clear()
    box.send_keys("0.25\t")
    assert not find(driver, "#threshold input[type=number]")
    ask(driver, examples[1].question)
    assert answers(driver, "unpruned") == [examples[1].answer] and "64 of 256" in text_of(driver, "#figures")


def test_a_mistake_is_said_on_the_page(driver):
    driver.refresh()
    browser.wait(driver, lambda d: find(d, "#ask"))[0].click()
    browser.wait(driver, lambda d: "there is no picture" in text_of(d, "body"))


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_by_everyone(driver, address, width, dark):
    browser.look(driver, width, dark)
    open_page(driver, address)
    take_example(driver, 0)
    ask(driver)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.violations(driver) == []


def test_nothing_is_fetched_from_elsewhere(driver, address):
    names = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names and not [name for name in names if not name.startswith((address, "data:", "blob:"))]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/gradio_api/file=/etc/passwd")
