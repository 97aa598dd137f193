"""The frame of a page that needs nothing else: its look in light and dark, its table of contents, tables that sort."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# nothing may be loaded from anywhere
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
# Figures are drawn for white paper. In the dark they are turned over: lightness inverted, hues as they were.
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #57606a; --line: #d0d7de; --paper: #fff; --soft: #f3f4f6;
  --link: #0550ae }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #a3adb8; --line: #3d444d; --paper: #141414; --soft: #22272e; --link: #79c0ff }
  svg { filter: invert(.92) hue-rotate(180deg) }
}
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 96rem; padding: 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
a { color: var(--link) }
.headline { font-size: 1.15rem; margin: .4rem 0 }
nav ul { padding-left: 1.2rem; margin: .3rem 0 } nav li { margin: .25rem 0 } nav .parts a { margin-left: .8rem }
nav li:has([href="#judge"]) { display: none } body:has(h2#judge) nav li:has([href="#judge"]) { display: list-item }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: right }
td { white-space: nowrap }
th { vertical-align: bottom }
th button { all: unset; cursor: pointer; font-weight: 600 }
th button::after { content: " \\2195"; color: var(--dim) }
th[aria-sort=ascending] button::after { content: " \\2191"; color: inherit }
th[aria-sort=descending] button::after { content: " \\2193"; color: inherit }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
th.text, td.text, table td:first-child, table th:first-child { text-align: left }
table td:first-child, table th:first-child { position: sticky; left: 0; background: var(--paper) }
.wide { overflow-x: auto }
svg { max-width: 60rem; width: 100%; height: auto }
.wide svg { min-width: 34rem }
.small svg { max-width: 30rem }
summary { cursor: pointer; margin: .5rem 0 }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 47%), 1fr)); gap: 1rem }
.pictures figure { margin: 0; max-width: 20rem }
figure img { width: 100% }
figcaption, .legend { color: var(--dim); font-size: 13px }
figcaption { margin-top: .2rem }
code, pre { background: var(--soft) }
pre { overflow-x: auto; padding: .5rem; overflow-wrap: normal }
"""
# cells without a value come last in both directions
SCRIPT = """
for (const button of document.querySelectorAll("table.rows th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const key = row => row.cells[column].dataset.value ?? "";
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
  }));
});
"""

Links = Sequence[tuple[str, str]]


def page(title: str, parts: Sequence[str]) -> str:
    """The whole document.

    Args:
        title: plain text.
        parts: HTML.
    """
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head><body><main>',
            f"<h1>{escape(title)}</h1>",
            *parts,
            f"</main><script>{SCRIPT}</script></body></html>\n",
        ]
    )


def contents(chapters: Sequence[tuple[str, str, Links]]) -> str:
    """Links to the chapters, each with its id, plain text and links to its parts."""
    lines = []
    for name, text, links in chapters:
        parts = "".join(_link(*one) for one in links)
        lines.append(f'<li>{_link(name, text)}<span class="parts">{parts}</span></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(lines)}</ul></nav>'


def _link(name: str, text: str) -> str:
    return f'<a href="#{name}">{escape(text)}</a> '


def heading(level: int, name: str, text: str) -> str:
    """A heading that links can lead to; `text` is plain."""
    return f'<h{level} id="{name}">{escape(text)}</h{level}>'


def wide(content: str, label: str) -> str:
    """What scrolls by itself where the page is narrower, with the keyboard, too; `label` says what it is."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def legend(text: str) -> str:
    """An explanation in small letters; `text` is plain."""
    return f'<p class="legend">{escape(text)}</p>'


def folded(head: str, content: str, is_open: bool = False) -> str:
    """Content behind a click; `head` is plain text."""
    return f"<details{' open' if is_open else ''}><summary>{escape(head)}</summary>\n{content}</details>"
