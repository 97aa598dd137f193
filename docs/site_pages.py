"""What the site has beside docs/*.md: the files of the repository that pages link to, as pages below `source/`.

MkDocs refuses links that leave docs/. The pages are read on code hosts, too, where `../gp/model.py` is right, so such
a link is turned into one to a copy of the file. One that is not there is a warning, which ends `mkdocs build --strict`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SHOWN = "source"  # the folder of the copies
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cfg": "ini", ".sh": "bash"}
MERMAID = ROOT / "node_modules/mermaid/dist/mermaid.min.js"  # npm install --no-save mermaid; else the theme fetches it


def on_config(config: Any) -> Any:
    """Takes the library of diagrams from this machine if it is there, so that a reader's browser asks no other."""
    if MERMAID.exists():
        config.extra_javascript.append("assets/mermaid.min.js")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the copies: of files that pages link to, and of those that copies of pages and notebooks link to."""
    if MERMAID.exists():
        files.append(File.generated(config, "assets/mermaid.min.js", abs_src_path=str(MERMAID)))
    waiting = [Path(page.abs_src_path) for page in files.documentation_pages()]
    seen: set[Path] = set()
    while waiting:
        for target in linked(waiting.pop()):
            if target in seen or target.is_relative_to(ROOT / "docs"):
                continue
            seen.add(target)
            files.append(copy_of(target, config))
            if target.suffix in (".md", ".ipynb"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points links that leave docs/ at the copies."""
    uri = page.file.src_uri
    if not uri.startswith(f"{SHOWN}/"):
        return mended(markdown, ROOT / "docs" / uri, posixpath.dirname(uri))
    here = ROOT / uri.removeprefix(f"{SHOWN}/")
    if not here.exists() and not uri.endswith(".ipynb.md"):
        return markdown  # code
    return mended(markdown, here, posixpath.dirname(uri))


def linked(page: Path) -> Iterator[Path]:
    """Files and folders of the repository that a page links to."""
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / found[2]).resolve()
        if target.exists() and target.is_relative_to(ROOT):
            yield target


def mended(markdown: str, page: Path, folder: str) -> str:
    """The Markdown of a page with links as the site needs them.

    Args:
        markdown: text of the page.
        page: where it lies in the repository.
        folder: where it is shown, below the site's root.
    """

    def link(found: re.Match) -> str:
        target = (page.parent / found[2]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return found[0]  # MkDocs says that it is not there
        return f"{found[1]}{posixpath.relpath(uri_of(target), folder or '.')}{found[3] or ''}"

    return LINK.sub(link, markdown)


def uri_of(target: Path) -> str:
    """Where the site has a file of the repository, relative to its root."""
    if target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    name = target.relative_to(ROOT).as_posix()
    if target.suffix in (".md", ".png", ".jpg"):
        return f"{SHOWN}/{name}"
    return f"{SHOWN}/{name}.md"


def copy_of(target: Path, config: Any) -> File:
    """A file as a page: Markdown and pictures as they are, others as code, folders as a list of their files."""
    uri = uri_of(target)
    if uri == f"{SHOWN}/{target.relative_to(ROOT).as_posix()}":
        return File.generated(config, uri, abs_src_path=str(target))
    name = target.relative_to(ROOT).as_posix()
    head = "---\nsearch: {exclude: true}\n---\n"  # code would drown the pages
    return File.generated(config, uri, content=f"{head}# `{name}`\n\n{content_of(target)}\n")


def content_of(target: Path) -> str:
    """The Markdown that shows a file or folder that is not Markdown."""
    if target.is_dir():
        return "\n".join(f"- `{one.name}`" for one in sorted(target.iterdir()) if not one.name.startswith(("_", ".")))
    text = target.read_text(encoding="utf-8")
    if target.suffix == ".ipynb":
        return "\n\n".join(map(_cell, json.loads(text)["cells"]))
    return _code(text, LANGUAGES.get(target.suffix, "text"))


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    is_text = cell["cell_type"] == "markdown"
    return re.sub(r"^# ", "## ", text, flags=re.MULTILINE) if is_text else _code(text, "python")


def _code(text: str, language: str) -> str:
    return f"~~~~~~{language}\n{text.rstrip()}\n~~~~~~"
