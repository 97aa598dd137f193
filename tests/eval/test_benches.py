"""Benches through the command: twelve sets from real annotations, their table against the result lines, mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest

import evaluate
from gp.config import load_config
from gp.config.sets import set_options
from gp.data.batch import Collator
from gp.eval import find_bench
from tests.support.bench_shards import SETS, write_sets
from tests.support.small_shards import small_processor

ROOT = Path(__file__).resolve().parents[2]
BENCHES = ROOT / "configs/bench"
QUICK = ("eval.costs=false", "eval.overlays=0", "eval.max_new_tokens=4")
OWN = """
data:
  test:
    one: [{shard}]
    two: [{shard}]
eval:
  splits: [one, two]
  sets:
    two: {{{options}}}
"""


def lines_in(out: Path, split: str, label: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"samples/{split}-{label}.jsonl").read_text().splitlines()]


def contains(line: dict) -> bool:
    """Another way than the scorer's: positions of words."""
    said, right = (line[key].lower().split() for key in ("prediction", "answer"))
    return any(said[start : start + len(right)] == right for start in range(len(said)))


def own_bench(micro, tmp_path: Path, options: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.format(shard=micro.shards[0], options=options))
    return path


def test_twelve_sets_end_to_end(micro, tmp_path, capsys):
    arguments = [f"ckpt={micro.ckpt}", "bench=viscot", f"data.root={tmp_path}", *QUICK]
    write_sets(tmp_path / "viscot")
    assert evaluate.main([*arguments, "pruner=none", f"out={tmp_path / 'first'}"]) == 0
    # answers as the model gives them for some, so that there is something to score
    said = {name: [line["prediction"] for line in lines_in(tmp_path / "first", name, "none-own")] for name in SETS}
    write_sets(tmp_path / "viscot", {name: texts[: number % 4] for number, (name, texts) in enumerate(said.items())})
    out = tmp_path / "eval"
    capsys.readouterr()
    assert evaluate.main([*arguments, "pruner=random", "budget=0.5", f"out={out}"]) == 0
    printed = capsys.readouterr().out

    means = {mean["pruner"]: mean for mean in json.loads((out / "sets.json").read_text())}
    assert list(means) == ["none", "random"]
    for pruner, label in (("none", "none-own"), ("random", "random-0.5")):
        of_sets = means[pruner]["sets"]
        assert tuple(of_sets) == SETS
        for name, one in of_sets.items():
            lines = lines_in(out, name, label)
            assert one["scorer"] == "containment" and one["num_samples"] == len(lines) == 3
            assert one["score"] == pytest.approx(fmean(map(contains, lines)), abs=1e-6)
            assert one["keep_ratio"] == pytest.approx(fmean(r["num_kept"] / r["num_visual"] for r in lines), abs=1e-6)
        for key in ("score", "keep_ratio"):
            assert means[pruner][key] == pytest.approx(fmean(one[key] for one in of_sets.values()), abs=1e-6)
    assert 0 < means["none"]["score"] < 1 and means["random"]["keep_ratio"] < means["none"]["keep_ratio"] == 1

    with (out / "sets.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows if row["pruner"] == "none"] == [*SETS, "mean"]
    assert float(rows[12]["score"]) == means["none"]["score"]
    table = printed[printed.index("sets: score % (kept %)") :]
    firsts = [word for line in table.splitlines() for word in line.replace("\u2502", " ").split()[:1]]
    shown = [word for word in firsts if word in (*SETS, "mean")]
    assert shown == [*SETS, "mean"]
    for name in ("report.md", "report.html"):
        assert "infographicsvqa" in (out / name).read_text()
    assert f"| mean |  | 36 | {100 * means['none']['score']:.1f} (100.0)" in (out / "report.md").read_text()


def test_sets_have_suffix_scores_and_length_of_their_own(micro, tmp_path):
    bench = own_bench(micro, tmp_path, 'suffix: " big", scores: [anls, containment], max_new_tokens: 1')
    out = tmp_path / "eval"
    assert evaluate.main([f"ckpt={micro.ckpt}", f"bench={bench}", "pruner=none", *QUICK, f"out={out}"]) == 0
    one, two = json.loads((out / "summary.json").read_text())
    assert "anls" not in one and {"anls", "containment", "answer_accuracy"} <= two.keys()
    (mean,) = json.loads((out / "sets.json").read_text())
    assert (mean["sets"]["one"]["score"], mean["sets"]["two"]["score"]) == (one["answer_accuracy"], two["anls"])
    first, second = (lines_in(out, split, "none-own") for split in ("one", "two"))
    assert {line["num_new_tokens"] for line in second} == {1} != {line["num_new_tokens"] for line in first}
    assert [line["question"] for line in first] == [line["question"] for line in second]
    assert {b["kv_full"] - a["kv_full"] for a, b in zip(first, second)} == {1}  # the suffix is one token
    assert "| anls % |" in (out / "report.md").read_text()


def test_answers_to_another_suffix_are_not_mixed_in(micro, tmp_path, capsys):
    out = tmp_path / "eval"
    for suffix, status in (("big", 0), ("red", 2)):
        bench = own_bench(micro, tmp_path, f'suffix: " {suffix}"')
        assert evaluate.main([f"ckpt={micro.ckpt}", f"bench={bench}", "pruner=none", *QUICK, f"out={out}"]) == status
    assert "eval.sets.two {'suffix': ' big'}, this run has {'suffix': ' red'}" in capsys.readouterr().err


def test_results_go_to_a_folder_of_the_bench(micro, tmp_path):
    bench = own_bench(micro, tmp_path, "max_new_tokens: 2")
    ckpt = tmp_path / "run"
    ckpt.mkdir()
    for name in ("last.ckpt", "config.yaml"):
        (ckpt / name).write_bytes((micro.run / name).read_bytes())
    assert evaluate.main([f"ckpt={ckpt}", f"bench={bench}", "pruner=none", *QUICK]) == 0
    assert (ckpt / "eval-own/summary.json").is_file() and not (ckpt / "eval").exists()


def test_suffix_stands_behind_the_question(micro):
    sample = micro.samples()[0]
    alone, longer = (Collator(small_processor(), suffix=text)([sample]).inputs for text in ("", " big"))
    ids = small_processor().tokenizer(" big", add_special_tokens=False)["input_ids"]
    both = [inputs["input_ids"][0].tolist() for inputs in (alone, longer)]
    place = next(i for i, (a, b) in enumerate(zip(*both)) if a != b)
    assert both[1] == both[0][:place] + ids + both[0][place:]


@pytest.mark.parametrize(
    ("bench", "options", "message"),
    [
        (
            "vicot",
            "",
            "unknown bench 'vicot', known are efficiency, tiny, viscot, vstar, or a path that ends in .yaml; the",
        ),
        ("none.yaml", "", "bench none.yaml: no such file"),
        ("", "scores: [f1]", "eval.sets.two.scores[0] must be one of exact_match, anls"),
        ("", "max_new_tokens: 0", "eval.sets.two.max_new_tokens must be a whole number, 1 or more, got 0"),
        ("", "sufix: x", "unknown key 'eval.sets.two.sufix'; the nearest known one is 'suffix'"),
        ("", "suffix: 3", "eval.sets.two.suffix must be text, got 3"),
    ],
)
def test_mistakes(micro, tmp_path, capsys, bench, options, message):
    bench = bench or own_bench(micro, tmp_path, options)
    assert evaluate.main([f"ckpt={micro.ckpt}", f"bench={bench}"]) == 2
    assert message in capsys.readouterr().err


def test_a_set_without_shards(micro, tmp_path, capsys):
    bench = tmp_path / "own.yaml"
    bench.write_text("eval:\n  splits: [part]\n  sets:\n    lost: {suffix: x}\n")
    assert evaluate.main([f"ckpt={micro.ckpt}", f"bench={bench}"]) == 2
    assert "eval.sets ['lost'] without shards: not in data.test" in capsys.readouterr().err
    bench.write_text("data:\n  test:\n    empty: []\neval:\n  splits: [empty]\n")
    assert evaluate.main([f"ckpt={micro.ckpt}", f"bench={bench}"]) == 2
    assert "data.test.empty must be a list of 1 or more, each text, got 0 entries" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(BENCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_bench_goes_over_every_config(path):
    assert f"bench={path.stem}" in path.read_text().split("\n\n")[0]
    assert find_bench(path.stem, BENCHES) == path
    for name in ("tiny", "qwen7b"):
        config = load_config([ROOT / f"configs/{name}.yaml", path])
        assert config.eval.splits and all(set_options(config.eval, split).scores for split in config.eval.splits)
