"""`evaluate.py score=FOLDER`: an LLM scores the answers of a finished evaluation; no model is loaded here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from gp.cli import Stop
from gp.config.judge import JudgeConfig
from gp.config.scoring import load_judge
from gp.eval import html_report, judged, markdown_report
from gp.eval.finishing import SUMMARY
from gp.eval.html_tables import rows_table
from gp.eval.module import SAMPLES
from gp.eval.renewing import renew
from gp.eval.results import Result, read_results
from gp.eval.sets_table import print_sets
from gp.eval.settings import SETTINGS
from gp.eval.table import JUDGE_SCORE, NUM_JUDGED, make_console, markdown_table, print_table
from gp.progress import Progress
from gp.runs.folder import EVAL
from gp.runs.lock import one_writer
from gp.runs.writing import write_text

if TYPE_CHECKING:
    from gp.judge import Verdict

Row = dict[str, Any]

FOLDER, CACHE = "judge", "judge-cache"
SHOWN = 5  # answers without a score that are named in the output; the file names all
OUT = 1  # exit status where the endpoint stays out


@dataclass(frozen=True)
class Answers:
    """The answers of one row, in the order of their ids."""

    row: Row
    results: list[Result]

    @property
    def label(self) -> str:
        return f"{self.row['split']}-{judged.method_of(self.row).label}"


def score_answers(
    folder: Path, overrides: Sequence[str], paths: Sequence[Path] = (), console: Console | None = None
) -> list[Row]:
    """Scores all answers of an evaluation, as far as the judge has not said anything about them yet.

    Writes `judge.json` and `judge/SPLIT-ROW.jsonl` with a line per answer; the judge's figures go into `summary.json`,
    `report.md` and `report.html`.

    Args:
        folder: of the evaluation.
        overrides: `judge.KEY=VALUE`.
        paths: YAML files with a section `judge`.
        console: None: the terminal.

    Returns:
        The rows of the summary, with `judge_score` (mean in 0..1 of the answers that have one; None: none has) and
        `num_judged`.

    Raises:
        FileNotFoundError: no such folder, or one without a finished evaluation.
        ValueError: an option; a folder that another process writes to, or whose answers are not those of its summary;
            an endpoint that refuses the key or does not know the model.
        Stop: the endpoint stays out; what was judged is written.
    """
    if importlib.util.find_spec("openai") is None:
        raise ValueError("score= needs the package openai, which is not installed: pip install openai (extra `judge`)")
    config, console = load_judge(overrides, paths), console or make_console()
    if not folder.is_dir():
        raise FileNotFoundError(f"score={folder}: no such folder")
    with one_writer(folder, "wait until it is finished, or stop it; then score its answers"):
        answers = read_answers(folder)
        verdicts = _judge(folder, config, answers, console)
        return _finish(folder, config, answers, verdicts, console)


def read_answers(folder: Path) -> list[Answers]:
    """The answers of every row of a finished evaluation.

    Raises:
        FileNotFoundError, ValueError: as of `score_answers`.
    """
    path = folder / SUMMARY
    if not path.is_file():
        inside = folder / EVAL if (folder / EVAL / SUMMARY).is_file() else None
        why = "the evaluation there was not finished: run it to its end" if (folder / SETTINGS).is_file() else ""
        why = why or (f"there is score={inside}" if inside else "not the folder of an evaluation")
        raise FileNotFoundError(f"score={folder}: no {SUMMARY} in it; {why}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = [(row, read_results(folder / SAMPLES, row["split"], judged.method_of(row))) for row in rows]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not the summary of one evaluation ({error})") from error
    answers = []
    for row, results in found:
        of_split = [set(others) for other, others in found if other["split"] == row["split"]]
        common = sorted(set.intersection(*of_split))
        if len(common) != row["num_samples"]:
            raise ValueError(
                f"{folder}: {SUMMARY} is of {row['num_samples']} answers a row to {row['split']}, {SAMPLES}/ has "
                f"{len(common)}: of another run, or not finished; evaluate to the end"
            )
        answers.append(Answers(row, [results[key] for key in common]))
    return answers


def _judge(folder: Path, config: JudgeConfig, answers: list[Answers], console: Console) -> list[list[Verdict]]:
    """Verdicts, row by row."""
    from gp.judge import Case, Replies, judge_cases  # here, because it needs openai

    replies = Replies(Path(config.cache) if config.cache else folder / CACHE)
    cases = [Case(one.question, one.answer, one.prediction) for row in answers for one in row.results]
    missing = 0
    with Progress(f"judge {config.model}", len(cases), unit="answers", console=console) as progress:

        def advance(count: int, verdict: Verdict) -> None:
            nonlocal missing
            missing += count if verdict.score is None else 0
            progress.update(f"{missing} missing" if missing else "", advance=count)

        flat = iter(judge_cases(config, cases, replies, advance))
    return [[next(flat) for _ in row.results] for row in answers]


def _finish(
    folder: Path, config: JudgeConfig, answers: list[Answers], verdicts: list[list[Verdict]], console: Console
) -> list[Row]:
    from gp.judge.judging import NOT_ASKED

    problems = [verdict.problem for of_row in verdicts for verdict in of_row if verdict.problem]
    is_out = any(problem.startswith(NOT_ASKED) for problem in problems)
    if is_out and not any(verdict.score is not None for of_row in verdicts for verdict in of_row):
        raise Stop(OUT, f"judge: the endpoint does not serve ({problems[0]}); nothing was judged")
    for one, of_row in zip(answers, verdicts, strict=True):
        scores = [verdict.score for verdict in of_row if verdict.score is not None]
        one.row[JUDGE_SCORE] = round(sum(scores) / len(scores), 6) if scores else None
        one.row[NUM_JUDGED] = len(scores)
    record, rows = _record(config, answers, verdicts), [one.row for one in answers]
    _write(folder, record, answers, verdicts, rows)
    print_table(rows, console)
    print_sets(judged.lines_of_judged(rows), console, judged.TITLE)
    _say(folder, record, rows, console)
    if is_out:
        raise Stop(OUT, "judge: the endpoint does not serve any more; the same command asks for what is missing")
    return rows


def _record(config: JudgeConfig, answers: list[Answers], verdicts: list[list[Verdict]]) -> dict[str, Any]:
    """The content of `judge.json`; no key, and no login of the address."""
    from gp.judge.errors import without_login
    from gp.judge.judging import sampling_of
    from gp.judge.protocols import PROTOCOLS

    names = ("split", "pruner", "budget", "matched", "num_samples", *judged.FIGURES)
    rows = [{name: one.row[name] for name in names} for one in answers]
    for row, one in zip(rows, answers, strict=True):
        row["score_missing_as_0"] = round((row[JUDGE_SCORE] or 0) * row[NUM_JUDGED] / row["num_samples"], 6)
        row["answers"] = judged.answers_id(one.results)
    return {
        "model": config.model,
        "protocol": config.protocol,
        "version": PROTOCOLS[config.protocol].version,
        "base_url": without_login(config.base_url),
        "sampling": sampling_of(config),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": rows,
        "means": judged.means_of_judged([one.row for one in answers]) if _num_sets(answers) > 1 else [],
        "missing": [
            {"row": one.label, "id": result.id, "problem": verdict.problem}
            for one, of_row in zip(answers, verdicts, strict=True)
            for result, verdict in zip(one.results, of_row, strict=True)
            if verdict.score is None
        ],
    }


def _num_sets(answers: list[Answers]) -> int:
    return len({one.row["split"] for one in answers})


def _write(
    folder: Path, record: dict[str, Any], answers: list[Answers], verdicts: list[list[Verdict]], rows: list[Row]
) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    for one, of_row in zip(answers, verdicts, strict=True):
        pairs = zip(one.results, of_row, strict=True)
        told = [{"id": r.id, "score": v.score, "reply": v.reply, "problem": v.problem} for r, v in pairs]
        lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in told]
        write_text(folder / FOLDER / f"{one.label}.jsonl", "".join(lines))
    write_text(folder / judged.FILE, json.dumps(record, indent=1) + "\n")
    write_text(folder / SUMMARY, json.dumps(rows, indent=1) + "\n")


def _say(folder: Path, record: dict[str, Any], rows: list[Row], console: Console) -> None:
    """Prints who judged and what is missing, and puts it into the reports."""
    caption, lines = judged.caption_of(rows, record), judged.lines_of_judged(rows)
    missing = record["missing"]
    texts = [f"judge: {caption}", *(f"missing: {m['row']} {m['id']}: {m['problem']}" for m in missing[:SHOWN])]
    if len(missing) > SHOWN:
        texts.append(f"missing: {len(missing) - SHOWN} more, see {folder / judged.FILE}")
    by_split = {name: [row for row in rows if row["split"] == name] for name in dict.fromkeys(r["split"] for r in rows)}
    for report, table_of in ((markdown_report, markdown_table), (html_report, rows_table)):
        parts = {split: table_of(of_split) for split, of_split in by_split.items()}
        is_new = renew(folder / report.FILE, {judged.PART: report.judge_part(lines, caption), **parts})
        texts.append(f"report: {folder / report.FILE}" + ("" if is_new else " is not there or of an earlier version"))
    for text in texts:
        console.print(text, soft_wrap=True, highlight=False, markup=False)
