"""`evaluate.py score=` as a process of its own on 1,000 answers: faults on the way, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from statistics import fmean

import pytest

pytest.importorskip("openai")

from tests.support.chat_server import ChatServer, Say, case_in, chat_server

ROOT = Path(__file__).resolve().parents[2]
NUM_QUESTIONS = 500  # of each of two rows
CONCURRENCY = 8
PATIENCE_S = 300.0
FAULTS = (
    Say(status=429, headers={"Retry-After": "0.05"}),
    Say(status=500),
    Say(drop="before"),
    Say(drop="within"),
    Say(body='{"choices": ['),
    Say("This answer is quite good."),
    Say("score: 0.1, no, wait\nscore: 0.9"),
)


@pytest.fixture
def answers(evaluated, tmp_path) -> Path:
    """The folder of an evaluation of 500 questions in two rows, each answer with a text of its own."""
    out = tmp_path / "eval"
    (out / "samples").mkdir(parents=True)
    rows = json.loads((evaluated / "summary.json").read_text())
    pair = [rows[0], next(row for row in rows if row["pruner"] == "random" and row["budget"] is not None)]
    (out / "summary.json").write_text(json.dumps([{**row, "num_samples": NUM_QUESTIONS} for row in pair]))
    for label in ("none-own", "random-0.5"):
        line = json.loads((evaluated / f"samples/test-{label}.jsonl").read_text().splitlines()[0])
        lines = [
            {**line, "id": f"q{n}", "number": n, "answer": f"right {n}", "prediction": f"{label} said {n}"}
            for n in range(NUM_QUESTIONS)
        ]
        (out / f"samples/test-{label}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return out


def number_in(case: Mapping[str, str]) -> int:
    """Number of an answer, 0..999."""
    return int(case["answer"].split()[-1]) + NUM_QUESTIONS * case["answer"].startswith("random")


def mark(number: int) -> float:
    """Another one than the neighbours'; 0 for some."""
    return number % 11 / 10


def command(folder: Path, server: ChatServer) -> list[str]:
    options = [f"judge.base_url={server.url}", "judge.model=judge-1", f"judge.concurrency={CONCURRENCY}"]
    return [sys.executable, "evaluate.py", f"score={folder}", *options, f"judge.timeout_s={PATIENCE_S}"]


@pytest.mark.slow
def test_faults_and_a_kill_in_the_middle_lose_nothing(answers):
    rng = Random(0)
    faults = {number: rng.choice(FAULTS) for number in rng.sample(range(2 * NUM_QUESTIONS), 50)}
    replied: list[int] = []

    def answer(body: dict, before: int) -> Say:
        number = number_in(case_in(body))
        if before == 0 and number in faults:
            return faults[number]
        replied.append(number)
        return Say(f"So so.\nscore: {mark(number):g}", delay_s=0.01)

    with chat_server(answer) as server:
        process = subprocess.Popen(command(answers, server), cwd=ROOT, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + PATIENCE_S
        while len(replied) < 300 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed_at = len(server.requests)
        assert 300 <= killed_at < 2 * NUM_QUESTIONS and not (answers / "judge.json").exists()
        assert len(kept(answers)) >= 300 - CONCURRENCY, "replies are on disk when they are there"

        done = subprocess.run(command(answers, server), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        num_asked = len(server.requests)
        assert num_asked <= 2 * NUM_QUESTIONS + len(faults) + 2 * CONCURRENCY, "those on their way are asked again"
        again = subprocess.run(command(answers, server), cwd=ROOT, capture_output=True, text=True)
        assert again.returncode == 0 and len(server.requests) == num_asked, "a rerun costs nothing"

    assert f"{2 * NUM_QUESTIONS} of {2 * NUM_QUESTIONS} answers judged" in done.stdout
    rows = json.loads((answers / "summary.json").read_text())
    for row, (label, first) in zip(rows, (("none-own", 0), ("random-0.5", NUM_QUESTIONS)), strict=True):
        lines = [json.loads(line) for line in (answers / f"judge/test-{label}.jsonl").read_text().splitlines()]
        assert {line["id"]: line["score"] for line in lines} == {
            f"q{n}": mark(first + n) for n in range(NUM_QUESTIONS)
        } and len(lines) == NUM_QUESTIONS
        assert row["num_judged"] == NUM_QUESTIONS
        assert row["judge_score"] == pytest.approx(fmean(mark(first + n) for n in range(NUM_QUESTIONS)), abs=1e-6)
    assert len({line["key"] for line in kept(answers)}) == 2 * NUM_QUESTIONS
    assert json.loads((answers / "judge.json").read_text())["missing"] == []


def kept(folder: Path) -> list[dict]:
    """Whole lines of the replies on disk."""
    texts = [path.read_text() for path in (folder / "judge-cache").glob("*.jsonl")]
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]
