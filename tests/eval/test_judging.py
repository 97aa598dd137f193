"""`evaluate.py score=FOLDER` on finished answers, against a server on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from statistics import fmean

import pytest

import evaluate

pytest.importorskip("openai")

from gp.eval import module as eval_module
from gp.runs.lock import HOLDER, LOCK
from tests.support.chat_server import Say, case_in, chat_server

QUICK = ("eval.costs=false", "eval.overlays=0", "eval.max_new_tokens=2", "data.eval_batch_size=4")
SECRET = "sk-of-the-tests"
BENCH = """
data:
  test:
    one: [{one}]
    two: [{two}]
eval:
  splits: [one, two]
"""


def mark(prediction: str, reference: str) -> float:
    """Some mark that hangs on both texts."""
    return (len(prediction) + 3 * len(reference)) % 11 / 10


def good(body: dict, before: int) -> Say:
    case = case_in(body)
    return Say(f"So so.\nscore: {mark(case['answer'], case['reference']):g}")


def score(folder: Path, server, *more: str) -> int:
    return evaluate.main([f"score={folder}", f"judge.base_url={server.url}", "judge.model=judge-1", *more])


def read(path: Path):
    return json.loads(path.read_text())


def lines_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def two_sets(micro, tmp_path_factory) -> tuple[Path, Path]:
    """A bench of two sets, and the folder of its evaluation, not judged."""
    folder = tmp_path_factory.mktemp("bench")
    bench = folder / "two.yaml"
    bench.write_text(BENCH.format(one=micro.shards[0], two=micro.shards[1]))
    assert evaluate.main(command(micro, bench, folder / "eval")) == 0
    return bench, folder / "eval"


@pytest.fixture
def answers(two_sets, tmp_path) -> Path:
    """A copy of the answers."""
    return shutil.copytree(two_sets[1], tmp_path / "eval")


def command(micro, bench: Path, out: Path) -> list[str]:
    return [f"ckpt={micro.ckpt}", f"bench={bench}", "pruner=random", "budget=0.5", *QUICK, f"out={out}"]


def expected(folder: Path) -> dict[tuple[str, str], float]:
    """Set and row -> mean mark, from the lines of the answers."""
    found = {}
    for split in ("one", "two"):
        for label in ("none-own", "random-0.5"):
            lines = lines_in(folder / f"samples/{split}-{label}.jsonl")
            found[split, label] = fmean(mark(line["prediction"], line["answer"]) for line in lines)
    return found


def test_scores_reach_summary_table_and_reports(micro, two_sets, answers, capsys):
    with chat_server(good) as server:
        assert score(answers, server) == 0
        num_asked = len(server.requests)
        printed = capsys.readouterr().out
        assert score(answers, server) == 0 and len(server.requests) == num_asked
    rows, record, right = read(answers / "summary.json"), read(answers / "judge.json"), expected(answers)
    for row, (split, label) in zip(rows, right, strict=True):
        assert row["judge_score"] == pytest.approx(right[split, label], abs=1e-6)
        lines = lines_in(answers / f"judge/{split}-{label}.jsonl")
        assert len({line["id"] for line in lines}) == len(lines) == row["num_judged"] == row["num_samples"]
    means = {mean["pruner"]: mean["score"] for mean in record["means"]}
    assert means["none"] == pytest.approx((right["one", "none-own"] + right["two", "none-own"]) / 2, abs=1e-6)
    assert record["missing"] == [] and record["model"] == "judge-1"
    assert "18 of 18 answers judged" in printed and "sets: judge % (kept %)" in printed
    markdown, page = (answers / "report.md").read_text(), (answers / "report.html").read_text()
    assert f"| mean | 18 of 18 | {100 * means['none']:.1f} (100.0)" in markdown
    assert markdown.count("| judge % | judged |") == 2 and markdown.count("## Judge") == 1
    assert page.count(">judge %</button>") == 2 and page.count('<h2 id="judge">') == 1
    # evaluated once more: the scores stay with the same answers
    assert evaluate.main(command(micro, two_sets[0], answers)) == 0
    assert read(answers / "summary.json") == rows
    renewed = (answers / "report.md").read_text()
    assert all(line in renewed for line in markdown.splitlines() if "judge" in line)


def test_scores_go_when_the_answers_change(micro, two_sets, answers, capsys):
    with chat_server(good) as server:
        assert score(answers, server) == 0
    path = answers / "samples/one-none-own.jsonl"
    lines = lines_in(path)
    lines[0]["prediction"] += " indeed"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert evaluate.main(command(micro, two_sets[0], answers)) == 0
    assert "judge.json: not of all answers to one: python evaluate.py score=" in capsys.readouterr().out
    first, second, *others = read(answers / "summary.json")
    assert (first["judge_score"], first["num_judged"]) == (None, 0)
    assert all(row["judge_score"] is not None for row in (second, *others))
    (answers / "judge.json").write_text("{}")
    assert evaluate.main(command(micro, two_sets[0], answers)) == 0
    assert "judge.json: not the scores of a judge ('rows'); delete it" in capsys.readouterr().out
    assert not any("judge_score" in row for row in read(answers / "summary.json"))


def test_missing_is_counted_and_named_and_no_zero(answers, capsys):
    lines = lines_in(answers / "samples/one-none-own.jsonl")
    lost = {(line["prediction"], line["question"]) for line in lines[:2]}

    def answer(body: dict, before: int) -> Say:
        case = case_in(body)
        return Say("hard to say") if (case["answer"], case["question"]) in lost else good(body, before)

    with chat_server(answer) as server:
        assert score(answers, server) == 0
        printed = capsys.readouterr().out
        row, record = read(answers / "summary.json")[0], read(answers / "judge.json")
        rest = fmean(mark(line["prediction"], line["answer"]) for line in lines[2:])
        assert row["judge_score"] == pytest.approx(rest, abs=1e-6) and row["num_judged"] == len(lines) - 2
        named = {one["id"] for one in record["missing"] if one["row"] == "one-none-own"}
        assert named == {line["id"] for line in lines[:2]}
        of_row = record["rows"][0]
        assert of_row["score_missing_as_0"] == pytest.approx(rest * (len(lines) - 2) / len(lines), abs=1e-6)
        assert f"missing: one-none-own {lines[0]['id']}: the reply does not give exactly one score" in printed
        assert f"| {row['num_judged']} of {row['num_samples']} |" in (answers / "report.md").read_text()
        kept = lines_in(answers / "judge/one-none-own.jsonl")
        assert [line["reply"] for line in kept if line["id"] in named] == ["hard to say"] * 2
        server.answer, before = good, len(server.requests)
        assert score(answers, server) == 0
        assert len(server.requests) - before == len(lost)
    assert read(answers / "judge.json")["missing"] == []
    assert read(answers / "summary.json")[0]["num_judged"] == len(lines)


def test_an_outage_leaves_what_was_there(answers, capsys):
    before = (answers / "summary.json").read_bytes()
    with chat_server(lambda body, before: Say(status=500)) as server:
        assert score(answers, server, "judge.max_retries=0", "judge.concurrency=1") == 1
    assert "the endpoint does not serve (status 500" in capsys.readouterr().err
    assert (answers / "summary.json").read_bytes() == before and not (answers / "judge.json").exists()


def test_original_protocol_is_what_is_asked(answers):
    options = answers.parent / "judge.yaml"
    options.write_text("judge: {model: judge-2, protocol: original, extra: {temperature: 0.7}}\n")
    more = ("--config", str(options), "judge.extra.top_p=0.8", f"judge.cache={answers.parent / 'shared'}")
    with chat_server(lambda body, before: Say("Score: 0.5")) as server:
        assert score(answers, server, *more) == 0, "the command line wins over the file"
    assert all(body["messages"][1]["content"].startswith("\nquestion: <image>\n") for body in server.requests)
    sampling = {"temperature": 0.7, "max_tokens": 512, "top_p": 0.8}
    assert all(sampling.items() <= body.items() for body in server.requests)
    assert read(answers / "judge.json")["sampling"] == sampling
    assert {row["judge_score"] for row in read(answers / "summary.json")} == {0.5}
    assert list((answers.parent / "shared").glob("*.jsonl")) and not (answers / "judge-cache").exists()


def test_the_key_is_nowhere_but_in_requests(answers, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    refusal = Say(status=401, body=json.dumps({"error": {"message": f"bad key {SECRET}"}}))
    with chat_server(lambda body, before: refusal) as server:
        assert score(answers, server) == 2
        error = capsys.readouterr().err
        assert "refuses the key (401): environment variable OPENAI_API_KEY" in error
        server.answer = good
        login = server.url.replace("http://", "http://user:word@")
        server.url = login
        assert score(answers, server) == 0
    assert server.keys[0] == f"Bearer {SECRET}"
    printed = "".join(capsys.readouterr()) + error
    for path in (path for path in answers.rglob("*") if path.is_file()):
        printed += path.read_text(errors="replace")
    assert SECRET not in printed and "user:word" not in printed


def test_an_evaluation_holds_its_folder(micro, two_sets, answers, monkeypatch):
    stock, held = eval_module.finish, []

    def finish(module):
        with (answers / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(read(answers / HOLDER)["pid"])
        return stock(module)

    monkeypatch.setattr(eval_module, "finish", finish)
    assert evaluate.main(command(micro, two_sets[0], answers)) == 0
    assert held == [os.getpid()]
    with chat_server(good) as server:
        assert score(answers, server) == 0, "nobody has it any more"


def test_a_folder_that_an_evaluation_writes_to_is_left_alone(answers, capsys):
    holder = {"pid": os.getpid(), "host": "here", "since": "2026-11-28T20:00:00+00:00"}
    with (answers / LOCK).open("a") as file, chat_server(good) as server:
        fcntl.flock(file, fcntl.LOCK_EX)
        (answers / HOLDER).write_text(json.dumps(holder))
        assert score(answers, server) == 2 and not server.requests
    expected = f"being written to by process {os.getpid()} on here since {holder['since']}: wait until it is finished"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("ckpt=runs/other",), "score= reads answers that are there and takes judge.* only, got 'ckpt'"),
        (("bench=tiny",), "takes judge.* only, got 'bench'"),
        (("judge.modle=x",), "unknown key 'judge.modle'; the nearest known one is 'judge.model'"),
        (("judge.protocol=orginal",), "judge.protocol must be one of rubric, original, got 'orginal'"),
        (("judge.base_url=localhost:8000",), "judge.base_url must start with http:// or https://"),
        (("judge.model=judge-2",), "judge.model: unknown model 'judge-2', the endpoint has judge-1"),
        (("judge.extra.messages=x",), "judge.extra.messages: a request has its own"),
        (("--config", "nowhere.yaml"), "config nowhere.yaml: no such file"),
        (("judge.key_env=NOT_THERE",), "judge.key_env=NOT_THERE: no such variable"),
    ],
)
def test_mistakes(answers, capsys, more, message):
    before = (answers / "summary.json").read_bytes()
    with chat_server(good) as server:
        assert score(answers, server, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ") and message in line
    assert (answers / "summary.json").read_bytes() == before


def test_folders_without_answers_to_score(answers, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    answers.rename(tmp_path / "run/eval")
    whole = tmp_path / "run/eval"
    with chat_server(good) as server:
        assert score(tmp_path / "nowhere", server) == 2
        assert score(tmp_path / "run", server) == 2
        path = whole / "samples/one-none-own.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        assert score(whole, server) == 2
        (whole / "summary.json").unlink()
        assert score(whole, server) == 2
        assert not server.requests
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "nowhere: no such folder" in errors[0] and f"there is score={whole}" in errors[1]
    assert "is of 5 answers a row to one, samples/ has 4: of another run, or not finished" in errors[2]
    assert "was not finished: run it to its end" in errors[3]
