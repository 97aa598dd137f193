"""Random settings for both commands: one clear error, or a sound config; a sample of those runs a step.

Nonsense is a value that is not of its option's documented type, outside its range, NaN, infinite or empty; layers that
the base does not have; shards that are not there. None of it may get as far as loading the base.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

import evaluate
import gp.eval
import train
from gp.config import TrainConfig
from gp.loading import outline
from gp.training import train as training
from tests.support.micro_run import save_base, write_config
from tests.support.nasty_settings import all_options, given, nonsense

pytestmark = pytest.mark.slow

ROUNDS, STEPS = 300, 12
STEP = ("optim.max_steps=1", "trainer.val_samples=1", "trainer.val_every=1", "eval.after_training=false")
# sound, and take a machine's memory or for ever where they are large
COSTLY = (
    "optim.max_steps", "optim.epochs", "data.batch_size", "data.eval_batch_size", "trainer.accumulate_grad_batches",
    "glimpse.num_tokens", "vip.", "model.min_pixels", "model.max_pixels", "eval.max_new_tokens", "data.num_workers",
    "trainer.val_samples", "eval.num_samples", "data.bucket_batches", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.extra", "name", "runs_dir", "ckpt", "overwrite", "eval.out", "eval.after_training",
    "eval.methods",
)  # fmt: skip


class Reached(Exception):
    """The base would be loaded now."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished run of one step, deep enough for paths that lead upwards."""
    folder = tmp_path_factory.mktemp("fuzz") / "a/b/c/d/e"
    write_config(folder, save_base(folder / "base"))
    assert train.main(["--config", str(folder / "micro.yaml"), *STEP, "name=finished"]) == 0
    return folder


@pytest.fixture
def reached(monkeypatch, folder) -> list[TrainConfig]:
    """Configs that got as far as loading the base."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    configs: list[TrainConfig] = []

    def stop(config: TrainConfig, *rest, **options):
        configs.append(config)
        raise Reached

    monkeypatch.setattr(training, "build_model", stop)
    monkeypatch.setattr(gp.eval, "evaluate", lambda load, config, *rest, **options: stop(config))
    return configs


def attempt(call: Callable[[list[str]], int], texts: list[str], reached: list[TrainConfig], capfd) -> str:
    """Runs a command; AssertionError for anything but one error with status 2, or a sound config."""
    reached.clear()
    try:
        status = call(texts)
    except Reached:
        (config,) = reached
        assert not nonsense(config), f"{texts}: accepted {nonsense(config)}"
        check_base(config, texts)
        return "accepted"
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if "error: " in line]
    assert status == 2, f"{texts}: status {status}: {err}"
    assert len(lines) == 1 and "Traceback" not in err and "Traceback" not in out, f"{texts}: {err}"
    assert len(lines[0]) < 2000, f"{texts}: {lines[0][:3000]}"
    return "refused"


def check_base(config: TrainConfig, texts: list[str]) -> None:
    base = outline(config.model)
    layers = [config.glimpse.prune_layer, *(config.glimpse.read_layers or []), *(config.glimpse.layers or [])]
    assert max(layers) < base.num_layers and max(config.vip.taps) < base.num_vision_taps, f"{texts}: {layers}"


def fuzz(name: str, call: Callable[[list[str]], int], reached, capfd) -> list[list[str]]:
    """Runs all rounds, prints what came, and returns what was accepted."""
    options, counts, accepted = all_options(TrainConfig), Counter(), []
    for seed in range(ROUNDS):
        texts = given(options, random.Random(f"{name} {seed}"))
        try:
            outcome = attempt(call, texts, reached, capfd)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, {texts}: {type(error).__name__}: {error}") from error
        counts[outcome] += 1
        if outcome == "accepted":
            accepted.append(texts)
    print(f"{name}: {ROUNDS} settings, {dict(counts)}")
    return accepted


def cheap(accepted: list[list[str]]) -> list[list[str]]:
    few = [texts for texts in accepted if not any(text.startswith(COSTLY) for text in texts)]
    return few[:STEPS]


def run_all(calls: list[list[str]], call: Callable[[list[str]], int]) -> None:
    """Runs that are sound end well, or, with values such as a weight of 1e308, in an error of their own."""
    statuses = [call(arguments) for arguments in calls]
    assert len(calls) == STEPS and set(statuses) <= {0, 2} and statuses.count(0) >= STEPS - 2, list(
        zip(statuses, calls)
    )


def test_train(folder, reached, capfd, monkeypatch):
    config = ["--config", str(folder / "micro.yaml")]
    accepted = fuzz("train.py", lambda texts: train.main([*config, "--", *texts]), reached, capfd)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    run_all([[*config, *STEP, f"name=run{n}", "--", *texts] for n, texts in enumerate(cheap(accepted))], train.main)


def test_evaluate(folder, reached, capfd, monkeypatch):
    ckpt = f"ckpt={folder}/runs/finished/last.ckpt"
    accepted = fuzz("evaluate.py", lambda texts: evaluate.main([ckpt, "--", *texts]), reached, capfd)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    few = [ckpt, "num_samples=1", "pruner=glimpse", "eval.costs=false"]
    run_all([[*few, f"out={folder}/eval{n}", "--", *texts] for n, texts in enumerate(cheap(accepted))], evaluate.main)
