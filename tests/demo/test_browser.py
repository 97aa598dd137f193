"""A person's way through the demo, in a real browser: `python -m gp.demo` is started, looked at and clicked through.

Screenshots of every look are in the test's temporary folder (`--basetemp=FOLDER` keeps them).
"""

from __future__ import annotations

import base64
import io
import signal

import pytest
from PIL import Image

from gp.demo.options import load_demo_config
from tests.support import browser, commands

pytestmark = pytest.mark.slow
SCENE = commands.ROOT / "docs/images/scene.png"
QUESTION, ANSWER = "what number is on the green card ?", "5 3"
LOOKS = [(1400, 1000, False), (1400, 1000, True), (390, 844, False), (390, 844, True)]
PIXELS = """
const [image, done] = arguments;
fetch(image.src).then(one => one.blob()).then(blob => {
  const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(blob); });
"""
BROKEN = """
const lines = cell => { const text = document.createRange(); text.selectNodeContents(cell);
  return new Set([...text.getClientRects()].map(one => one.top)).size; };
const cells = [...document.querySelectorAll("#figures th, #figures td:not(:first-child)")];
return cells.filter(one => lines(one) > 1).map(one => one.textContent);
"""


@pytest.fixture(scope="module")
def address():
    """Of a demo in a process of its own, as a user starts it."""
    browser.need_browser()
    pytest.importorskip("gradio")
    process = commands.begin("-m", "gp.demo", f"port={commands.free_port()}", "max_new_tokens=8")
    line = process.stdout.readline()
    if not line.startswith("open http://127.0.0.1:"):
        pytest.fail(f"the demo did not start: {line}{process.communicate()[1]}")
    yield line.split()[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


class Page:
    """The demo's page, by what a person sees of it."""

    def __init__(self, driver, address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.wait(lambda: self.all("#examples .tr-body"), "the page")

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def wait(self, condition, what: str):
        return browser.wait_for(self.driver, lambda _: condition(), what)

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.all(selector)[0])
        self.all(selector)[0].click()

    def upload(self, *paths) -> None:
        self.all("#pictures input[type=file]")[0].send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all("#pictures img")) >= len(paths), "the picture")

    def choose(self, group: str, value: str) -> None:
        self.click(f"#{group} input[value='{value}']")

    def ask(self, question: str | None = None) -> None:
        """Asks, and waits for both answers."""
        if question is not None:
            box = self.all("#question textarea")[0]
            box.clear()
            box.send_keys(question)
        turns = len(self.turns("pruned"))
        self.click("#ask")
        self.wait(lambda: len(self.turns("unpruned")) == turns + 2 and self.is_done(), "both answers")

    def anew(self) -> None:
        """Begins a new conversation, and waits until nothing is left of the last one."""
        self.click("#anew")
        parts = "#pruned .message-content", "#unpruned .message-content", "#figures td", "#kept img", "#heat img"
        self.wait(lambda: not any(map(self.all, parts)), "nothing")

    def is_done(self) -> bool:
        """Whether all figures and both pictures are there."""
        figures = self.text("#figures")
        return "KV cache" in figures and "..." not in figures and all(map(self.is_drawn, ("kept", "heat")))

    def is_drawn(self, name: str) -> bool:
        """Whether a picture is shown, and large enough to be looked at."""
        # scrolled to: in a narrow window it is far below, and the browser loads it when it comes near
        script = (
            "const one = arguments[0]; one.scrollIntoView({block: 'center'});"
            "return one.complete && one.naturalWidth > 0 && one.clientHeight > 150"
        )
        return any(self.driver.execute_script(script, image) for image in self.all(f"#{name} img"))

    def text(self, selector: str) -> str:
        return "".join(one.text for one in self.all(selector))

    def turns(self, column: str) -> list[str]:
        """Questions and answers of a conversation."""
        return [one.text for one in self.all(f"#{column} .message-content") if one.text]

    def figures(self) -> dict[str, str]:
        rows = [row.find_elements("css selector", "td") for row in self.all("#figures tbody tr")]
        return {name.text: pruned.text for name, pruned, *_ in rows}

    def picture(self, name: str) -> Image.Image:
        data = self.driver.execute_async_script(PIXELS, self.all(f"#{name} img")[0])
        return Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")


@pytest.fixture
def page(address):
    with browser.browsing() as driver:
        yield Page(driver, address)
        assert not browser.console_errors(driver)


def test_an_example_then_a_second_question_then_a_new_conversation(page):
    page.click("#examples .tr-body")
    page.wait(lambda: page.all("#pictures img"), "the example's picture")
    page.ask()
    question, answer = page.turns("pruned")
    assert page.turns("unpruned") == [question, answer] and question == "what number is on the white card ?"
    assert page.figures()["visual tokens"].endswith("of 256")
    page.ask("and on the orange card ?")
    assert page.turns("pruned")[:3] == [question, answer, "and on the orange card ?"] and len(page.turns("pruned")) == 4
    page.anew()


def test_a_picture_of_ones_own_with_three_methods(page):
    from gp.demo.serving import load_model

    model = load_model(load_demo_config([]))
    page.upload(SCENE)
    page.ask(QUESTION)
    assert page.turns("pruned") == page.turns("unpruned") == [QUESTION, ANSWER]
    assert page.figures()["visual tokens"] == "3 of 256"
    assert page.picture("kept").tobytes() == model.ask(SCENE, QUESTION).overlay().tobytes()
    assert page.picture("heat").size == Image.open(SCENE).size
    assert page.all("#threshold input") and not page.all("#budget input")

    page.choose("method", "fastv")
    page.wait(lambda: page.all("#budget input") and not page.all("#threshold input"), "the budget's slider")
    budget = page.all("#budget input[type=number]")[0]
    budget.clear()
    budget.send_keys("0.25\t")
    page.ask(QUESTION)
    assert page.figures()["visual tokens"] == "64 of 256" and page.turns("pruned")[2:] == [QUESTION, ANSWER]

    page.anew()
    page.choose("method", "zoom")
    page.wait(lambda: page.all("#threshold input"), "the threshold's slider")
    page.ask(QUESTION)
    zoomed = model.ask(SCENE, QUESTION, pruner="zoom", max_new_tokens=8)
    assert zoomed.crops and page.turns("pruned")[1] == zoomed.text
    assert page.picture("kept").tobytes() == zoomed.overlay().tobytes()  # with its crops framed


def test_what_cannot_be_asked_is_said(page):
    page.click("#ask")
    page.wait(lambda: "there is no picture: add one" in page.text("body"), "the message")
    page.upload(SCENE)
    page.click("#ask")
    page.wait(lambda: "there is no question" in page.text("body"), "the message")


@pytest.mark.parametrize(("width", "height", "dark"), LOOKS)
def test_every_look(address, tmp_path, width, height, dark):
    """No serious violation, nothing wider than the window; the colours are those that the user prefers."""
    with browser.browsing(width, height, dark) as driver:
        page = Page(driver, address)
        assert not browser.violations(driver)
        page.click("#examples .tr-body")
        page.wait(lambda: page.all("#pictures img"), "the example's picture")
        page.ask()
        browser.whole_page(driver, tmp_path / f"demo-{width}-{'dark' if dark else 'light'}.png")
        assert not browser.violations(driver)
        assert browser.sideways_px(driver) <= 0
        assert not driver.execute_script(BROKEN)  # no number, and no head of a column
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(float, background.strip("rgba()").split(",")[:3])) < 3 * 128) == dark
        assert not browser.console_errors(driver)
