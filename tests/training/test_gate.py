"""Task `gate`: what the head learns from, whom it leaves alone, what it leaves on disk, and `zoom` with it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gp
from gp.config import load_config
from gp.config.gate import GateRunConfig
from gp.config.table import options_of
from gp.data.batch import Collator, StepCounts
from gp.data.datamodule import GlimpseDataModule
from gp.eval import evaluate, load_run
from gp.formats.gate_file import GATE
from gp.loading import load_gate
from gp.pruners import HIDDEN
from gp.runs.resuming import GATE as KINDS
from gp.runs.resuming import kind_of
from gp.training import train as runs
from gp.training.gate import GateModule, gate_of
from tests.support.bases import BASES
from tests.support.micro_run import write_config

SETTINGS = ("task=gate", "name=gate", "optim.max_steps=4", "eval.after_training=false", "eval.costs=false")
ROWS = ("eval.pruners=[zoom]", "eval.overlays=0", "eval.num_samples=4", "eval.methods.zoom.gate=trained")


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory) -> str:
    return BASES[request.param](tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def glimpse(base, tmp_path_factory) -> str:
    """A folder of trained parts without a gate."""
    config = write_config(tmp_path_factory.mktemp("run"), base)
    torch.manual_seed(0)
    return str(runs.build_model(config).save_pretrained(tmp_path_factory.mktemp("glimpse") / "parts"))


@pytest.fixture(scope="module")
def config(base, glimpse, tmp_path_factory) -> GateRunConfig:
    folder = tmp_path_factory.mktemp("gate")
    write_config(folder, base)
    found = load_config(folder / "micro.yaml", [*SETTINGS, f"gate.glimpse={glimpse}"])
    assert isinstance(found, GateRunConfig)
    return found


@pytest.fixture(scope="module")
def finished(config):
    return runs.train(config)


def test_only_the_head_learns_and_the_folder_has_it(finished, base, glimpse):
    before, after = gp.from_pretrained(base, glimpse=glimpse), finished.model
    head = gate_of(after).state_dict()
    assert head["linear.weight"].abs().sum() > 0
    for name, value in before.glimpse.state_dict().items():
        assert torch.equal(value, after.glimpse.state_dict()[name])
    loaded = gp.from_pretrained(base, glimpse=finished.folder / "glimpse")
    assert before.glimpse.gate is None and loaded.glimpse.gate is not None
    for name, value in head.items():
        assert torch.equal(value, loaded.glimpse.gate.state_dict()[name])
    checkpoint = torch.load(finished.folder / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"model.glimpse.gate.linear.weight", "model.glimpse.gate.linear.bias"}
    figures = json.loads((finished.folder / "run.json").read_text())
    assert {"val/gate_accuracy", "val/gate_auroc", "val/glance_accuracy"} <= set(json.dumps(figures).split('"'))


def test_evaluation_takes_the_run_and_its_folder(finished, base, tmp_path):
    """The gate that says "enough" to all takes no crop; one that says it to nobody takes one for each question."""
    model, config = load_run(finished.folder, ROWS)
    assert torch.equal(gate_of(model).linear.weight, gate_of(finished.model).linear.weight)
    rows = {}
    for name, bias in (("enough", 99.0), ("never enough", -99.0)):
        with torch.no_grad():
            gate_of(model).linear.weight.zero_()
            gate_of(model).linear.bias.fill_(bias)
        evaluate(model, config, tmp_path / name)
        lines = (tmp_path / name / "samples" / "test-zoom-own.jsonl").read_text().splitlines()
        rows[name] = [json.loads(line)["num_crops"] for line in lines]
    assert set(rows["enough"]) == {0} and 0 not in rows["never enough"]
    assert load_run(finished.folder / "glimpse", ROWS)[0].glimpse.gate is not None


def test_the_label_is_the_un_pruned_answer(config):
    """Against stock's greedy answer; the head reads the state that `zoom` gives it."""
    model = load_gate(config)
    module = GateModule(config, model)
    batch = micro_batch(config, model)
    looked = module.look(batch)
    stop = {"max_new_tokens": config.eval.max_new_tokens, "do_sample": False}
    ids = model.base.generate(**batch.inputs, **stop)[:, batch.inputs["input_ids"].shape[1] :]
    assert looked.answers == [t.strip() for t in model.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    answers = [looked.answers[0], *["something else"] * (len(batch) - 1)]
    told = [SimpleNamespace(answer=answer) for answer in answers]
    batch.samples = told
    assert module.look(batch).right.tolist() == [float(text == looked.answers[0]) for text in answers]
    seen = model.prefill(batch.inputs, gp.pruners.Zoom(model.glimpse, glance=1.0)).notes[HIDDEN]
    torch.testing.assert_close(looked.hidden, seen)
    pruned = int(sum(mask.sum() for mask in looked.keep_masks))
    assert pruned == int(looked.num_kept.sum()) < int(looked.num_visual.sum())


def test_processes_and_micro_batches_weigh_every_question_alike(config):
    """Gradients of two unequal shares, averaged as DDP does, are those of the batch."""
    model = load_gate(config)
    module = GateModule(config, model)
    torch.nn.init.normal_(gate_of(model).linear.weight, std=0.1)
    module.look.scorer = lambda said, answer: float(answer != "red")  # random answers are all wrong
    data = GlimpseDataModule(config.data, Collator(model.processor), config.seed)
    samples = [s for one in data.eval_loader(config.data.test["test"]) for s in one.samples]
    collator = Collator(model.processor)
    whole, *parts = (collator(samples[first:last]) for first, last in ((0, 5), (0, 1), (1, 5)))
    module._log_sums = lambda sums, index: None
    expected = gradients(module, whole, SimpleNamespace(world_size=1, accumulate_grad_batches=1), lambda sums: sums)
    together = sums_of(module, parts)
    world = SimpleNamespace(world_size=2, accumulate_grad_batches=1)
    found = [gradients(module, part, world, lambda sums: together) for part in parts]
    for name, value in expected.items():
        assert float(value.abs().sum()) > 0
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, value)
    micro = SimpleNamespace(world_size=1, accumulate_grad_batches=2)
    for part in parts:
        part.counts = StepCounts(5, 0)
    found = [gradients(module, part, micro, lambda sums: sums) for part in parts]
    for name, value in expected.items():
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, value)


def sums_of(module, parts) -> torch.Tensor:
    """What the processes would add up."""
    seen = []
    alone = SimpleNamespace(world_size=1, accumulate_grad_batches=1)
    for part in parts:
        gradients(module, part, alone, lambda sums: seen.append(sums) or sums)
    return torch.stack(seen).sum(0)


def gradients(module, batch, trainer, reduce) -> dict[str, torch.Tensor]:
    module._trainer, module._sum_over_processes = trainer, reduce
    module.zero_grad()
    module.training_step(batch, 0)["loss"].backward()
    return {name: p.grad.clone() for name, p in gate_of(module.model).named_parameters()}


def micro_batch(config, model):
    data = GlimpseDataModule(config.data, Collator(model.processor), config.seed)
    return next(iter(data.eval_loader(config.data.test["test"])))


def test_every_option_has_a_kind():
    known = {one.key for one in options_of(GateRunConfig)}
    assert all(kind_of(key, KINDS) for key in known) and set(KINDS) <= known


def test_a_run_goes_on(config, finished):
    more = (f"gate.glimpse={config.gate.glimpse}", "ckpt=last", "optim.max_steps=5")
    again = runs.train(load_config(Path(config.runs_dir).parent / "micro.yaml", [*SETTINGS, *more])).model
    assert not torch.equal(gate_of(again).linear.weight, gate_of(finished.model).linear.weight)


def test_files_that_cannot_be_used(finished, base, glimpse, tmp_path):
    folder = gp.from_pretrained(base, glimpse=finished.folder / "glimpse").save_pretrained(tmp_path / "parts")
    content = (folder / GATE).read_bytes()
    (folder / GATE).write_bytes(content[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"gate.safetensors: not what was written"):
        gp.from_pretrained(base, glimpse=folder)
    (folder / GATE).unlink()
    with pytest.raises(ValueError, match=r"gate.safetensors: no such file, and config.json names a gate"):
        gp.from_pretrained(base, glimpse=folder)
    plain = gp.from_pretrained(base, glimpse=glimpse)
    (folder / GATE).write_bytes(content)
    plain.save_pretrained(folder)
    assert not (folder / GATE).exists() and gp.from_pretrained(base, glimpse=folder).glimpse.gate is None
    with pytest.raises(ValueError, match="gate 'trained' needs a trained gate, which 'glimpse' does not have"):
        plain.find_pruner("zoom", {"gate": "trained"})
    with pytest.raises(ValueError, match="which 'fastv' does not have"):
        plain.find_pruner("zoom(fastv)", {"gate": "trained"})


def test_what_the_gate_reads(config):
    """The glimpse token's state, and the mean of the visual tokens' directions, weighted by importance."""
    model = load_gate(config)
    batch, seen = micro_batch(config, model), {}
    keep = model.glimpse.keep

    def noted(scores, view):
        seen.update(scores=scores, hidden=view.visual_hidden(), last=view.prompt.hidden[:, -1].clone())
        return keep(scores, view)

    model.glimpse.keep = noted
    done = model.prefill(batch.inputs, "glimpse")
    token, looked = done.notes[HIDDEN].unbind(1)
    torch.testing.assert_close(token, seen["last"])
    parts = zip(done.layout.split_by_prompt(seen["scores"]), done.layout.split_by_prompt(seen["hidden"]), strict=True)
    for found, (scores, hidden) in zip(looked, parts, strict=True):
        weights, sums = scores.sigmoid().tolist(), torch.zeros(hidden.shape[1])
        for weight, state in zip(weights, hidden, strict=True):
            sums += weight * state / state.norm()
        torch.testing.assert_close(found, sums / sum(weights))
