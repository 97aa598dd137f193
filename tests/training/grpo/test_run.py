"""Whole runs of task `grpo` through train.py, and what is made of what they leave."""

from __future__ import annotations

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate as evaluate_command
import train as train_command
from gp.backbones.adapters import adapter_weights
from gp.eval import load_run
from gp.formats.glimpse_folder import save_glimpse
from gp.loading import from_pretrained
from gp.training import train as runs
from gp.training.grpo import rewards
from gp.training.module import GlimpseModule
from tests.support.micro_plus import SETTINGS, write_plus_config
from tests.support.micro_run import save_base, write_config

pytest.importorskip("peft")
STEADY = ("optim.warmup_fraction=0", "optim.final_lr_fraction=1")  # a rate that does not depend on the length


def call(folder, *overrides, settings=SETTINGS):
    """`train.py` on the micro config in a folder; its exit status."""
    return train_command.main(["--config", str(folder / "micro.yaml"), *settings, *overrides])


def checkpoint(folder, name="micro"):
    return torch.load(folder / f"runs/{name}/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    """Four steps of two micro-batches, with the evaluation at the end."""
    folder = tmp_path_factory.mktemp("run")
    write_plus_config(folder, base)
    assert call(folder, "trainer.accumulate_grad_batches=2", "eval.after_training=true", *STEADY) == 0
    return folder


def test_what_a_run_leaves(run, base):
    place = run / "runs/micro"
    state = checkpoint(run)["state_dict"]
    assert len(state) == 4 * 7 * 2 and all(".lora_" in name for name in state)
    assert any(float(value.abs().max()) > 0 for name, value in state.items() if "lora_B" in name)  # begins at 0
    assert not (place / "glimpse").exists()
    loaded = from_pretrained(base, adapter=place / "adapter")
    for name, weight in adapter_weights(loaded.base):
        assert torch.equal(weight, state[f"model.base.{name}"])
    rows = json.loads((place / "eval/summary.json").read_text())
    assert {row["pruner"] for row in rows} == {"none", "oracle"}


def test_its_curves(run):
    events = EventAccumulator(str(run / "runs/micro/tb"))
    events.Reload()
    tags = events.Tags()
    names = ("reward", "reward_spread", "kl", "entropy", "answer_tokens", "no_signal", "keep_ratio", "loss", "lr")
    assert {f"train/{name}" for name in names} <= set(tags["scalars"])
    steps = {name: [event.value for event in events.Scalars(f"train/{name}")] for name in names}
    assert len(steps["reward"]) == 4
    assert steps["kl"][0] == pytest.approx(0, abs=1e-6) and steps["kl"][-1] > 1e-5  # a fresh adapter changes nothing
    assert all(1 <= count <= 4 for count in steps["answer_tokens"])
    assert "train/rollouts/0/text_summary" in tags["tensors"]


def test_a_checkpoint_is_evaluated(run, capsys):
    model, config = load_run(run / "runs/micro")
    state = checkpoint(run)["state_dict"]
    for name, weight in adapter_weights(model.base):
        assert torch.equal(weight.detach(), state[f"model.base.{name}"])
    assert model.trainable()["adapter"] == 0 and config.task == "grpo"
    assert evaluate_command.main([f"ckpt={run / 'runs/micro'}", "pruner=glimpse"]) == 2
    assert "glimpse" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_run(base, tmp_path):
    """Draws too: stopped after two of four steps, and not."""
    for name in ("whole", "parts"):
        write_plus_config(tmp_path / name, base)
    assert call(tmp_path / "whole", *STEADY) == 0
    assert call(tmp_path / "parts", "optim.max_steps=2", *STEADY) == 0
    assert call(tmp_path / "parts", "ckpt=last", *STEADY) == 0
    whole, parts = (checkpoint(tmp_path / name)["state_dict"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_refuses_what_a_resumed_run_cannot_change(run, capsys):
    assert call(run, "ckpt=last", "adapter.rank=2") == 2
    assert "adapter.rank 4 there, 2 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, said",
    [
        ("grpo.mask=glimpse", "grpo.mask glimpse needs a trained glimpse"),
        ("model.adapter=x", "trains an adapter of its own"),
        ("reward.weights={exakt: 1}", "no reward 'exakt'; the nearest known one is 'exact'"),
        ("reward.weights.anls=0", "all are 0"),
        ("reward.weights.judge=1", "judge.base_url: no value"),
        ("reward.weights.judge=1;judge.model=m;judge.base_url=x", "judge.base_url must start with http://"),
        ("grpo.budgets=[0.1]", "grpo.mask boxes keeps the boxes"),
        ("optim.ema=0.9", "averages no adapter"),
        ("grpo.group_size=1", "grpo.group_size must be"),
    ],
)
def test_refuses_contradictions(base, tmp_path, capsys, override, said):
    write_config(tmp_path, base)
    assert call(tmp_path, *override.split(";")) == 2
    assert said in capsys.readouterr().err


class SaysNothing(rewards.Reward):
    """A judge whose replies have no score."""

    def start(self, answers):
        return lambda: [None] * len(answers)


@pytest.mark.slow
def test_answers_that_nobody_scores_teach_nothing(base, tmp_path, monkeypatch):
    """Their questions are counted and left out; no weight moves, and the run goes on."""
    monkeypatch.setitem(rewards.REWARDS, "anls", lambda config: SaysNothing())
    write_plus_config(tmp_path, base)
    assert call(tmp_path, "optim.max_steps=2") == 0
    figures = json.loads((tmp_path / "runs/micro/run.json").read_text())["figures"]
    assert figures["train/skipped_questions"] == 2
    state = checkpoint(tmp_path)["state_dict"]
    assert all(float(value.abs().max()) == 0 for name, value in state.items() if "lora_B" in name)


def test_the_glimpse_task_freezes_no_adapter_silently(base, tmp_path):
    config = write_plus_config(tmp_path, base)
    model = runs.build_model(config)
    assert model.trainable()["adapter"] > 0 == model.trainable()["base"]
    with pytest.raises(ValueError, match=r"of which .* parameters require gradients"):
        GlimpseModule(config, model)


@pytest.mark.slow
def test_both_runs_and_their_folders(run, base, tmp_path):
    """Run B: a glimpse on the base with the adapter. Then again an adapter, for what that glimpse or the boxes keep."""
    write_config(tmp_path, base)
    adapter = f"model.adapter={run / 'runs/micro/adapter'}"
    plain = ("eval.costs=false", "eval.overlays=0", "eval.pruners=[none,glimpse]")
    assert call(tmp_path, adapter, "optim.max_steps=2", settings=plain) == 0
    both = tmp_path / "runs/micro/glimpse"
    model = from_pretrained(base, glimpse=both)
    state = checkpoint(run)["state_dict"]
    assert all(torch.equal(w, state[f"model.base.{name}"]) for name, w in adapter_weights(model.base))
    for ckpt in (tmp_path / "runs/micro/last.ckpt", both):
        loaded, _ = load_run(ckpt)
        assert loaded.adapter is not None
    out = tmp_path / "again"
    once_more = [f"ckpt={both}", "pruner=none,glimpse", f"out={out}", "eval.costs=false", "eval.overlays=0"]
    assert evaluate_command.main(once_more) == 0
    there, here = (json.loads((place / "summary.json").read_text()) for place in (tmp_path / "runs/micro/eval", out))
    assert [row["answer_accuracy"] for row in there] == [row["answer_accuracy"] for row in here]
    bare = from_pretrained(base)
    bare.glimpse = model.glimpse
    save_glimpse(tmp_path / "bare", model.glimpse, bare.backbone, model.options)
    mixed = ("grpo.mask=mixed", f"grpo.glimpse={tmp_path / 'bare'}", "name=mixed", "optim.max_steps=1")
    assert call(tmp_path, *mixed, "eval.after_training=true", "eval.pruners=[none,glimpse]") == 0
    again = from_pretrained(base, glimpse=tmp_path / "runs/mixed/glimpse")
    assert again.adapter is not None and again.glimpse is not None
