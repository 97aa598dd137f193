"""Results of other settings, weights or data are not mixed in."""

from __future__ import annotations

import json
import re

import pytest

from gp.eval import evaluate, load_run
from tests.support.eval_results import OVERRIDES, lines_of


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("prune.threshold=0.4", "prune.threshold"),
        ("eval.max_new_tokens=5", "max_new_tokens"),
        ("seed=1", "seed"),
        ("model.attn_implementation=eager", "attn_implementation"),
    ],
)
def test_results_of_other_settings_are_refused(copied, micro, override, key):
    before = sorted((path, path.read_bytes()) for path in copied.rglob("*") if path.is_file())
    with pytest.raises(ValueError, match=rf"made with {key}.*; delete {re.escape(str(copied))} .*eval.out="):
        evaluate(*load_run(micro.ckpt, [*OVERRIDES, override]), copied)
    assert sorted((path, path.read_bytes()) for path in copied.rglob("*") if path.is_file()) == before


def test_results_of_other_weights_and_other_shards_are_refused(copied, micro):
    model, config = load_run(micro.ckpt, OVERRIDES)
    with pytest.raises(ValueError, match="made with ckpt_id"):
        evaluate(model, config, copied, ckpt_id="other")
    model.glimpse.glimpse_token.embeddings.data.add_(1)
    with pytest.raises(ValueError, match="made with ckpt_id"):
        evaluate(model, config, copied)
    model, config = load_run(micro.ckpt, OVERRIDES)
    config.data.test["test"] = ["test-0.tar"]
    with pytest.raises(ValueError, match="other shards of split 'test'"):
        evaluate(model, config, copied)


def test_settings_of_a_method_are_kept_apart(micro, half_way, tmp_path):
    first = ["eval.pruners=[half_way]", "eval.budgets=[0.7]", "eval.overlays=0", "eval.num_samples=4"]
    evaluate(*load_run(micro.ckpt, first), tmp_path)
    with pytest.raises(
        ValueError, match=r"made with eval\.methods\.half_way \{\}, this run has \{'layer': 0\}; delete"
    ):
        evaluate(*load_run(micro.ckpt, [*first, "eval.methods.half_way.layer=0"]), tmp_path)
    # a method may be added later, and settings of one that has no row here are nobody's business
    other = ["eval.pruners=[random]", *first[1:], "eval.methods.half_way.layer=0"]
    rows = evaluate(*load_run(micro.ckpt, other), tmp_path)
    assert [row["pruner"] for row in rows] == ["none", "random"]
    both = evaluate(*load_run(micro.ckpt, ["eval.pruners=[random,half_way]", *first[1:]]), tmp_path)
    assert [row["pruner"] for row in both] == ["none", "half_way", "random"]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["methods"] == {"none": {}, "half_way": {}, "random": {}}
    late = lines_of(tmp_path, "half_way-0.7")
    changed = evaluate(*load_run(micro.ckpt, [*first, "eval.methods.half_way.layer=0"]), tmp_path / "other")
    assert changed[1]["keep_ratio"] > both[1]["keep_ratio"] and len(late) == 4


def test_greedy_is_greedy_and_what_the_base_ships_is_said_once(copied, micro, tmp_path, capsys):
    """A base whose generation config sways the choice: same answers, one line, and no mixing with earlier results."""
    how = ["eval.pruners=[none,glimpse]", "eval.overlays=0", "eval.costs=false"]
    model, config = load_run(micro.ckpt, how)
    model.generation_config.repetition_penalty = 30.0
    model.generation_config.do_sample, model.generation_config.temperature = True, 9.0
    evaluate(model, config, tmp_path)
    said = "answers are greedy: repetition_penalty=30.0 of the base's generation config is off"
    assert capsys.readouterr().out.count(said) == 1
    for label in ("none-own", "glimpse-own"):
        here, plain = (lines_of(out, label) for out in (tmp_path, copied))
        assert {key: line["prediction"] for key, line in here.items()} == {k: v["prediction"] for k, v in plain.items()}
    assert json.loads((tmp_path / "settings.json").read_text())["not_greedy"] == {"repetition_penalty": 30.0}
    assert "not_greedy" not in json.loads((copied / "settings.json").read_text())
    with pytest.raises(ValueError, match="made with not_greedy None, this run has"):
        evaluate(model, config, copied)
