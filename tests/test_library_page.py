"""The samples of docs/library.md run, one after the other, and print what stands behind their lines."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import gp
from gp import calls, loading

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text()
PRINTS = re.compile(r"^ *(?:.*\bprint\(.*\)  # |# )(.*)$", re.MULTILINE)


def test_every_sample_prints_what_it_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    samples = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(samples) == 9
    for sample in samples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(sample, "docs/library.md", "exec"), names)
        assert printed.getvalue().splitlines() == PRINTS.findall(sample)


def test_the_table_of_keywords_is_what_loading_takes():
    table = PAGE.partition("| keyword | goes to |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    every = {*loading.OWN, *loading.OF_HUB, *loading.OF_MODEL, *loading.OF_PROCESSOR, "torch_dtype"}
    assert named == every


def test_the_table_of_options_is_complete():
    table = PAGE.partition("| option | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)=", table)) == {*gp.PruneOptions.field_names(), calls.BUDGET}
    assert all(
        name in calls.REFUSED for name in ("prefill_chunk_size", "use_cache", "assistant_model", "guidance_scale")
    )
