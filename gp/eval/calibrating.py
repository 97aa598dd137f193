"""`evaluate.py calibrate=SPLIT`: finds the threshold, writes it into the trained parts, tries it elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gp.config import TrainConfig
from gp.config.fitting import nearest
from gp.data.shards import resolve_shards
from gp.embedded import EMBEDDED_GLIMPSES
from gp.eval.calibration import GRID, Tried, choose, fewest_questions, lower_bound, most_that_may_differ
from gp.eval.finishing import SUMMARY
from gp.eval.loading import find_run, out_folder
from gp.formats.glimpse_folder import read_config, write_calibration
from gp.formats.published import is_reference_folder
from gp.pruners import GlimpsePruner, NoPruner
from gp.runs.folder import GLIMPSE
from gp.runs.lock import one_writer
from gp.runs.members import refuse_launcher, run_command
from gp.runs.writing import write_text

VALIDATION = "val"  # stands for data.val
RESULT = "threshold.json"
AGAIN = "the same command goes on"
AT_A_TIME = 4  # thresholds asked before looking whether one misses: higher ones need not be asked then
NUM_SAMPLES = "eval.num_samples"


@dataclass(frozen=True)
class Promise:
    """What is asked for: a split, the share of answers that are to stay, and how sure that must be; both in (0, 1)."""

    split: str
    agreement: float = 0.99
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("agreement", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number in (0, 1)")


def calibrate(
    module: str, ckpt: str, promise: Promise, overrides: Sequence[str], config_paths: Sequence[Path] | None
) -> None:
    """Finds the largest threshold that keeps the promise, and reports it on the splits of the evaluation.

    Args:
        module: of the command for one checkpoint, which answers the questions; so a stopped calibration goes on.
        ckpt: as of `ckpt=`.
        overrides: of the command, short keys spelled out. `eval.thresholds` are tried, else GRID. All questions of the
            calibration split are asked, unless `eval.num_samples` is among them.
        config_paths: of the command.

    The folder is `eval-calibration/` beside the checkpoint: `threshold.json`, and an evaluation of the split and of
    the others. The threshold goes into `glimpse/` of the run or into the folder of trained parts that `ckpt` is; of
    what is installed or published a copy in our format, or none, is made.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: no such split, no other split to report on, too few questions, no threshold that keeps the promise,
            or a launcher.
        gp.cli.Stop: an evaluation failed.
    """
    refuse_launcher("calibrate=")
    path, config = find_run(ckpt, overrides, config_paths)
    assert path is not None  # there is a ckpt
    entries = _entries(config, promise.split)
    others = _others(config, promise.split, entries)
    all_questions = not any(text.partition("=")[0] == NUM_SAMPLES for text in overrides)
    if not all_questions:
        _check_enough(config.eval.num_samples, promise)
    asked = out_folder(config, ckpt)
    out = asked if config.eval.out else asked.with_name(f"{asked.name}-calibration")
    thresholds = sorted(set(config.eval.thresholds or GRID))
    files = [text for one in config_paths or () for text in ("--config", str(one))]
    own = ("eval.out", "eval.thresholds", "eval.splits", "eval.pruners", "eval.budgets", "eval.costs")
    common = [f"ckpt={ckpt}", *files, *(text for text in overrides if text.partition("=")[0] not in own)]
    common += [f"eval.pruners=[{NoPruner.name},{GlimpsePruner.name}]", "eval.budgets=[null]"]
    with one_writer(out):
        first = [
            f"data.test.{promise.split}={json.dumps(entries)}",
            f"eval.splits=[{promise.split}]",
            "eval.costs=false",
            f"eval.out={out / 'calibration'}",
            *([f"{NUM_SAMPLES}=null"] if all_questions else []),
        ]
        tried = _search(module, [*common, *first], out / "calibration" / SUMMARY, thresholds, promise)
        chosen = choose(tried, promise.agreement)
        facts = {**asdict(promise), "shards": entries, "tried": [asdict(one) for one in tried]}
        write_text(out / RESULT, json.dumps({**facts, "chosen": chosen and asdict(chosen)}, indent=1) + "\n")
        _print_curve(tried, chosen, promise)
        if chosen is None:
            raise ValueError(_why_none(tried, promise))
        place = _write(path, out, chosen, promise)
        rest = [f"eval.splits=[{','.join(others)}]", f"eval.thresholds=[{chosen.threshold}]", "eval.costs=false"]
        run_command(module, [*common, *rest, f"eval.out={out / 'check'}"], "evaluation of the other splits", AGAIN)
        found = _check(out / "check" / SUMMARY, chosen.threshold)
        write_text(out / RESULT, json.dumps({**facts, "chosen": asdict(chosen), "check": found}, indent=1) + "\n")
    _print_end(found, chosen, promise, place)


def _check_enough(num_samples: int | None, promise: Promise) -> None:
    """ValueError for a number of questions with which no threshold could keep the promise."""
    fewest = fewest_questions(promise.agreement, promise.confidence)
    if num_samples is not None and num_samples < fewest:
        raise ValueError(
            f"num_samples={num_samples}: agreement={promise.agreement:g} with confidence={promise.confidence:g} needs "
            f"{fewest} questions or more, even if no answer changes"
        )


def _search(
    module: str, arguments: Sequence[str], summary: Path, thresholds: Sequence[float], promise: Promise
) -> list[Tried]:
    """Asks the split at one threshold after the other, the lowest first, until one misses; returns what was tried."""
    tried: list[Tried] = []
    for count in range(AT_A_TIME, len(thresholds) + AT_A_TIME, AT_A_TIME):
        some = list(thresholds[:count])  # what was asked before is there
        run_command(module, [*arguments, f"eval.thresholds={some}"], f"calibration on {promise.split}", AGAIN)
        tried = _tried(summary, promise.confidence)
        if any(one.bound < promise.agreement for one in tried):
            break
    return tried


def _entries(config: TrainConfig, split: str) -> list[str]:
    if split in config.data.test:
        return list(config.data.test[split])
    if split == VALIDATION and config.data.val:
        return list(config.data.val)
    known = [*([VALIDATION] if config.data.val else []), *config.data.test]
    raise ValueError(f"calibrate={split}: no such split; the nearest one is {nearest(split, known)!r}")


def _others(config: TrainConfig, split: str, entries: Sequence[str]) -> list[str]:
    """Splits of the evaluation that share no shard with the calibration's."""
    data = config.data
    seen = set(resolve_shards(entries, data.root, data.allow_pipes))
    others = [
        name
        for name in config.eval.splits
        if name != split and not seen & set(resolve_shards(data.test[name], data.root, data.allow_pipes))
    ]
    if not others:
        raise ValueError(
            f"calibrate={split}: eval.splits {list(config.eval.splits)} has no split of other shards to report on; "
            "name one with split=..."
        )
    return others


def _tried(summary: Path, confidence: float) -> list[Tried]:
    tried = []
    for row in _rows(summary):
        if row["threshold"] is not None:
            total = row["num_samples"]
            agreed = round(row["agreement"] * total)
            bound = lower_bound(agreed, total, confidence)
            tried.append(Tried(row["threshold"], agreed, total, bound, row["keep_ratio"]))
    return sorted(tried, key=lambda one: one.threshold)


def _check(summary: Path, threshold: float) -> list[dict[str, Any]]:
    """Of each other split: agreement, accuracy and kept share at the threshold and at the one that was set before."""
    rows = [row for row in _rows(summary) if row["pruner"] == GlimpsePruner.name and row["budget"] is None]
    keys = ("agreement", "answer_accuracy", "answer_accuracy_unpruned", "keep_ratio", "num_samples")
    before = {row["split"]: row for row in rows if row["threshold"] is None}
    return [
        {
            "split": row["split"],
            **{key: row[key] for key in keys},
            "before": {key: before[row["split"]][key] for key in keys},
        }
        for row in rows
        if row["threshold"] == threshold
    ]


def _rows(summary: Path) -> list[dict[str, Any]]:
    return json.loads(summary.read_text(encoding="utf-8"))


def _write(path: Path, out: Path, chosen: Tried, promise: Promise) -> Path | None:
    """Writes the threshold into the trained parts that belong to `ckpt`; returns their folder, None: there is none."""
    folder = path if path.is_dir() else path.parent / GLIMPSE
    if not folder.is_dir() or is_reference_folder(folder):
        return None
    if folder in EMBEDDED_GLIMPSES.values():  # not into the installed package
        folder = Path(shutil.copytree(folder, out / GLIMPSE, dirs_exist_ok=True))
    facts = {
        **asdict(promise),
        "num_samples": chosen.total,
        "agreed": chosen.agreed,
        "lower_bound": round(chosen.bound, 6),
    }
    read_config(folder)  # names what is wrong with it
    write_calibration(folder, chosen.threshold, facts)
    return folder


def _print_curve(tried: Sequence[Tried], chosen: Tried | None, promise: Promise) -> None:
    print(f"{'threshold':>9}  {'kept %':>6}  {'agree':>11}  at least ({100 * promise.confidence:g} % sure)")
    for one in tried:
        mark = "  <- chosen" if one is chosen else ""
        share = f"{one.agreed}/{one.total}"
        print(f"{one.threshold:>9g}  {100 * one.keep_ratio:>6.2f}  {share:>11}  {one.bound:.4f}{mark}")


def _why_none(tried: Sequence[Tried], promise: Promise) -> str:
    lowest = tried[0]
    most = most_that_may_differ(lowest.total, promise.agreement, promise.confidence)
    room = f"at most {most} may differ"
    if most < 0:
        fewest = fewest_questions(promise.agreement, promise.confidence)
        room = f"even with none that differs the bound is lower: {fewest} are the fewest"
    return (
        f"calibrate={promise.split} agreement={promise.agreement:g}: threshold {lowest.threshold:g}, the lowest, keeps "
        f"{lowest.agreed} of {lowest.total} answers, which is {lowest.bound:.4f} or more; of {lowest.total} questions "
        f"{room}. Give more questions, a smaller agreement= or confidence=, or lower threshold=..."
    )


def _print_end(found: Sequence[dict[str, Any]], chosen: Tried, promise: Promise, place: Path | None) -> None:
    for one in found:
        before = one["before"]
        print(
            f"{one['split']}: at threshold {chosen.threshold:g} {100 * one['agreement']:.2f} % of {one['num_samples']} "
            f"answers are the un-pruned ones and {100 * one['keep_ratio']:.2f} % of the visual tokens stay; "
            f"before {100 * before['agreement']:.2f} % and {100 * before['keep_ratio']:.2f} %"
        )
    written = (
        f"written into {place}"
        if place
        else f"not written into trained parts: give prune.threshold={chosen.threshold:g}"
    )
    print(f"threshold {chosen.threshold:g} for an agreement of {promise.agreement:g}: {written}")
