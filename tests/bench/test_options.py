"""What cannot be is refused in one line that names the option."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from gp.bench import decode, train_step
from gp.bench.__main__ import BENCHES, main, make_parser
from gp.bench.options import read_preset
from gp.flags import as_flags

ROOT = Path(__file__).resolve().parents[2]


MEMORY = {"prefill": 3.0, "held": 1.0, "decode": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("prefill --preset huge", "--preset must be one of tiny, mid, qwen3b, qwen7b, qwen32b, qwen72b, got 'huge'"),
        ("prefill --preset tiny --attn fast", "--attn must be one of"),
        ("prefill --preset tiny --attn flash_attention_2", "flash_attention_2 needs --device cuda"),
        ("prefill --preset tiny --dtype int8", "--dtype must be one of"),
        ("prefill --preset tiny --device tpu", "--device"),
        ("prefill --preset tiny --device cuda:99", "CUDA devices"),
        ("prefill --preset tiny --keep-ratio 0", "--keep-ratio"),
        ("prefill --preset tiny --keep-ratio 0.01", "--keep-ratio must keep at least 1 of 16 tokens"),
        ("prefill --preset tiny --prune-layer 3", "--prune-layer must be in 0..2, got 3"),
        ("prefill --preset tiny --repeats 0", "--repeats"),
        ("train --preset tiny --visual 0", "--visual must be at least 1, got 0"),
        ("train --preset tiny --text 2", "--text"),
        ("decode --preset tiny --new-tokens 1", "--new-tokens must be at least 2, got 1"),
        ("batch --preset tiny --batch-sizes 1,x", "--batch-sizes"),
        ("memory --preset tiny --dtype int8", "--dtype must be one of"),
        ("data --batch 0", "--batch must be at least 1, got 0"),
        ("data --workers -1", "--workers must be at least 0, got -1"),
        ("data --rounds 0", "--repeats must be at least 1, got 0"),
        ("build --repeats 0", "--repeats must be at least 1, got 0"),
        ("build --keep 0.5,2", "--keep must be numbers above 0 and at most 1 with commas between them, got '0.5,2'"),
        ("build --check look", "--check must be one of decode, header, got 'look'"),
        ("scoring --heads 0", "--heads must be at least 1, got 0"),
        ("scoring --head-size 0", "--head-size must be at least 1, got 0"),
        ("scoring --keep-ratio 1.1", "--keep-ratio must be above 0 and at most 1, got 1.1"),
        ("scoring --tokens 1", "--tokens must be at least 2, got 1"),
        ("scoring --device tpu", "--device must be"),
    ],
)
def test_refusals(arguments, message, capsys):
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("bench", BENCHES)
def test_every_bench_explains_itself(bench, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([bench, "--help"])
    assert stopped.value.code == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize("bench", ["prefill", "decode", "train"])
def test_sixteen_bits(bench, monkeypatch):
    for module in (decode, train_step):
        monkeypatch.setattr(module, "in_own_process", lambda *_: MEMORY if bench == "decode" else 1.0)
    assert main([bench, "--preset", "tiny", "--repeats", "1", "--dtype", "bfloat16"]) == 0


def test_every_documented_command_is_accepted():
    written = "".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    commands = re.findall(r"(?:^ {4}|`)python -m gp\.bench ([^#\n`]+)", written, re.MULTILINE)
    assert len(commands) > 20 and {command.split()[0] for command in commands} == set(BENCHES)
    for command in commands:
        parser = make_parser()
        options = parser.parse_args(as_flags(parser, shlex.split(command)))
        if hasattr(options, "preset"):  # benches of the model; those of data have none
            read_preset(options)


def test_the_documented_bounds_come_from_the_code_beside_them():
    page = (ROOT / "docs/performance.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    rows = [line.split()[2:] for line in printed.getvalue().splitlines()]
    table = re.findall(r"^\|[^|]*\| (?:30|10|5) % \|(.*)\|$", page, re.MULTILINE)
    assert len(rows) == len(table) == 6
    for row, line in zip(rows, table):
        *ratios, cache = [float(cell.strip(" x%")) for cell in line.split("|")]
        assert ratios == [float(number) for number in row[:-1]]
        assert cache == round(100 * float(row[-1]))
