"""The LightningModule: what it trains, what it leaves alone, and what it logs."""

from __future__ import annotations

import pytest
import torch

from gp.config import LossConfig
from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from gp.engine.prefill import prefill
from gp.engine.teacher_forcing import teacher_forced
from gp.training import train as runs
from gp.training.module import GlimpseModule
from gp.training.objective import batch_sums, kept_counts, step_loss
from gp.training.schedule import Length
from gp.training.tasks import last_prompt_token
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.micro_run import save_base, write_config
from tests.support.tiny_models import random_masks, tiny_answers, tiny_inputs, tiny_qwen

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def make(tmp_path, base, *overrides):
    """Config, module and data of a micro run."""
    config = write_config(tmp_path, base, *overrides)
    torch.manual_seed(0)
    model = runs.build_model(config)
    return config, GlimpseModule(config, model), GlimpseDataModule(config.data, Collator(model.processor), config.seed)


class Modes(runs.pl.Callback):
    """Notes in which mode the parts are when a batch is done."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool, bool]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        base = any(m.training for m in module.model.base.modules())
        self.seen.append((base, module.model.glimpse.training, module.model.glimpse.vip.training))

    def on_validation_batch_end(self, trainer, module, *rest) -> None:
        self.seen.append((any(m.training for m in module.model.base.modules()), True, True))
        assert not module.model.glimpse.training


def test_only_the_glimpse_learns_and_the_base_stays_in_eval_mode(tmp_path, base):
    config, module, data = make(tmp_path, base, "trainer.val_every=1")
    frozen = {k: v.clone() for k, v in module.model.base.state_dict().items()}
    trained = {k: v.clone() for k, v in module.model.glimpse.state_dict().items()}
    trainer, modes = runs.make_trainer(config, tmp_path / "run"), Modes()
    trainer.callbacks.append(modes)
    trainer.fit(module, datamodule=data)
    assert all(torch.equal(v, frozen[k]) for k, v in module.model.base.state_dict().items())
    assert all(not torch.equal(v, trained[k]) for k, v in module.model.glimpse.state_dict().items())
    assert len(modes.seen) == 1 + 4 + 4 * 2 and set(modes.seen) == {(False, True, True)}
    in_optimizer = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert in_optimizer == {id(p) for p in module.model.glimpse.parameters()}


def test_state_dict_holds_the_trained_parts_only(tmp_path, base):
    _, module, _ = make(tmp_path, base)
    names = {f"model.glimpse.{name}" for name in module.model.glimpse.state_dict()}
    assert set(module.state_dict()) == names


def test_learning_rates_of_the_groups(tmp_path, base):
    config, module, _ = make(tmp_path, base, "optim.glimpse_lr_scale=8", "optim.lr=0.001", "optim.weight_decay=0.1")
    module.trainer = runs.make_trainer(config, tmp_path)
    optimizer = module.configure_optimizers()["optimizer"]
    rates = {group["name"]: (group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "glimpse_token": (0.008, 0.1),
        "glimpse_token_no_decay": (0.008, 0),
        "vip": (0.001, 0.1),
        "vip_no_decay": (0.001, 0),
    }


def test_vectors_norms_and_biases_do_not_decay(tmp_path, base):
    """One step at a rate so small that only the decay, which is as large, shows."""
    config, module, _ = make(tmp_path, base, "optim.lr=1e-6", "optim.weight_decay=1e5", "optim.warmup_fraction=0")
    module.trainer = runs.make_trainer(config, tmp_path)
    optimizer = module.configure_optimizers()["optimizer"]
    parts = dict(module.model.glimpse.named_parameters())
    for parameter in parts.values():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {name for name, parameter in parts.items() if float(parameter.max()) < 0.95}
    assert decayed == {name for name, parameter in parts.items() if parameter.ndim == 2 and "norm" not in name}
    assert "glimpse_token.embeddings" not in decayed and "vip.blocks.0.mlp.gate_proj.weight" in decayed


def test_an_optimizer_of_other_groups_is_refused(tmp_path, base):
    """Of versions in which everything decayed: two groups, of the token and of the VIP."""
    _, module, _ = make(tmp_path, base)
    module.length = Length(4, 4)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    parts = module.model.glimpse
    sizes = {name: len(list(getattr(parts, name).parameters())) for name in ("glimpse_token", "vip")}
    groups = [{"name": name, "params": list(range(size))} for name, size in sizes.items()]
    checkpoint["optimizer_states"] = [{"state": {}, "param_groups": groups}]
    with pytest.raises(ValueError, match=r"parameter groups glimpse_token \(4\).*glimpse_token_no_decay.*evaluate\.py"):
        module.check_checkpoint(checkpoint, "last.ckpt")
    del checkpoint["optimizer_states"]
    module.check_checkpoint(checkpoint, "last.ckpt")  # weights alone


def test_unpruned_answers_are_computed_once(tmp_path, base, monkeypatch):
    config, module, data = make(tmp_path, base, "trainer.val_every=1")
    calls = []
    stock = module.model.prefill
    monkeypatch.setattr(module.model, "prefill", lambda *a, **k: calls.append(k.get("pruner")) or stock(*a, **k))
    runs.make_trainer(config, tmp_path / "run").fit(module, datamodule=data)
    # two batches of validation, four times; the rehearsal's is the first of them
    assert calls.count("none") == 2 and calls.count(None) == 1 + 4 * 2


def test_validation_figures_are_those_of_the_samples(tmp_path, base):
    """Recomputed sample by sample, without metrics, from single prompts."""
    config, module, data = make(tmp_path, base)
    trainer = runs.make_trainer(config, tmp_path / "run")
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    model = module.model
    kept = visual = both = wanted = recalls = overlaps = right = right_full = agree = count = 0
    data.config.eval_batch_size = 1
    for batch in data.val_dataloader():
        done, full = model.prefill(batch.inputs), model.prefill(batch.inputs, pruner="none")
        mask, evidence = done.keep_mask, batch.evidence_masks[0].flatten()
        kept, visual, both = kept + int(mask.sum()), visual + len(mask), both + int((mask & evidence).sum())
        wanted, count = wanted + int(evidence.sum()), count + 1
        recalls += float((mask & evidence).sum() / evidence.sum())
        overlaps += float((mask & evidence).sum() / (mask | evidence).sum())
        texts = [answer(model, batch, d) for d in (done, full)]
        right += texts[0] == batch.samples[0].answer
        right_full += texts[1] == batch.samples[0].answer
        agree += texts[0] == texts[1]
    assert count == 5
    expected = {
        "keep_ratio": kept / visual,  # all images have the same size here
        "mask_iou": both / (kept + wanted - both),
        "mask_precision": both / kept,
        "mask_recall": both / wanted,
        "mask_f1": 2 * both / (kept + wanted),
        "evidence_recall": recalls / count,
        "mask_mean_iou": overlaps / count,
        "answer_accuracy": right / count,
        "answer_accuracy_unpruned": right_full / count,
        "agreement": agree / count,
    }
    assert set(figures) == {f"val/{name}" for name in expected}
    assert {k: figures[f"val/{k}"] for k in expected} == pytest.approx(expected, abs=1e-6)


def answer(model, batch, done) -> str:
    ids = model.decode(batch.inputs["input_ids"], done, max_new_tokens=3, do_sample=False)
    new = ids[0, batch.inputs["input_ids"].shape[1] :]
    return model.processor.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16(tmp_path, base, precision):
    config, module, data = make(tmp_path, base, f"trainer.precision={precision}", "trainer.val_every=2")
    trainer = runs.make_trainer(config, tmp_path / "run")
    trainer.fit(module, datamodule=data)
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert all(p.dtype == dtype and bool(p.isfinite().all()) for p in module.model.glimpse.parameters())
    assert float(trainer.callback_metrics["train/loss"]) > 0


def test_trained_parts_stay_in_float32_on_a_bfloat16_base(tmp_path, base):
    config, module, data = make(tmp_path, base, "model.dtype=bfloat16")
    runs.make_trainer(config, tmp_path / "run").fit(module, datamodule=data)
    assert module.model.backbone.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in module.model.glimpse.parameters())


def test_without_the_answer_loss_later_layers_do_not_run(tmp_path, base):
    config, module, data = make(tmp_path, base, "loss.answer=0", "trainer.val_every=100")
    ran = []
    for index, layer in enumerate(module.model.backbone.text_model.layers):
        layer.register_forward_hook(lambda *args, index=index: ran.append(index))
    trainer = runs.make_trainer(config, tmp_path / "run")
    trainer.num_sanity_val_steps = 0  # it would run all layers
    trainer.fit(module, datamodule=data)
    assert set(ran) == {0, 1, 2}  # of four
    assert "train/loss_answer" not in trainer.callback_metrics and "train/loss_dice" in trainer.callback_metrics


def test_the_glimpse_can_start_from_the_last_prompt_token(tmp_path, base):
    config = write_config(tmp_path, base, "glimpse.init_from_prompt=true")
    model = runs.build_model(config)
    embeddings = model.base.get_input_embeddings().weight
    last = model.processor.tokenizer.convert_tokens_to_ids("assistant")
    assert last_prompt_token(model.processor) == last
    assert torch.allclose(model.glimpse.tokens()[0][0], embeddings[last], atol=1e-3)


RAGGED = [([(4, 6)], 9), ([(2, 2), (6, 4)], 7), ([(6, 6)], 14)]
GRIDS = [grid for grids, _ in RAGGED for grid in grids]


def sums_of(model, rows: slice):
    """Sums of some rows of the ragged batch, as the process that got them computes them."""
    prompts = RAGGED[rows]
    images = slice(sum(len(g) for g, _ in RAGGED[: rows.start or 0]), None)
    grids = [grid for grids, _ in prompts for grid in grids]
    inputs, (ids, mask) = tiny_inputs(RAGGED), tiny_answers((3, 1, 5))
    patches = [4 * h * w for h, w in GRIDS]
    first = sum(patches[: images.start])
    part = {k: v[rows] for k, v in inputs.items() if k not in ("pixel_values", "image_grid_thw")}
    part["pixel_values"] = inputs["pixel_values"][first : first + sum(4 * h * w for h, w in grids)]
    part["image_grid_thw"] = inputs["image_grid_thw"][images][: len(grids)]
    forced = teacher_forced(model.backbone, model.glimpse, part, ids[rows], mask[rows])
    masks = random_masks(GRIDS)[images][: len(grids)]
    return batch_sums(forced, masks, ids[rows], mask[rows], kept_counts(forced, PruneOptions()))


def test_mean_of_the_processes_gradients_is_the_gradient_of_the_whole_batch():
    model, weights = micro_glimpse(tiny_qwen(), prune_layer=2), LossConfig(dice=1.0, bce=0.1, answer=0.7)
    loss, _ = step_loss(sums_of(model, slice(0, 3)), weights)
    expected = torch.autograd.grad(loss.backward, list(model.glimpse.parameters()))
    parts = [sums_of(model, slice(0, 2)), sums_of(model, slice(2, 3))]
    packed = sum(torch.cat([part.packed(), part.packed()[3:5]]) for part in parts)
    losses = [step_loss(part, weights, None, 2, lambda values: packed)[0] for part in parts]
    gradients = [torch.autograd.grad(part.backward, list(model.glimpse.parameters())) for part in losses]
    for whole, first, second in zip(expected, *gradients):
        assert torch.allclose((first + second) / 2, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))
    assert torch.allclose(losses[0].total, loss.total) and torch.equal(losses[0].total, losses[1].total)


def test_kept_counts_are_those_of_pruning():
    model = micro_glimpse(tiny_qwen(), prune_layer=2)
    inputs = tiny_inputs([*RAGGED, ([(2, 3)], 4)])
    forced = teacher_forced(model.backbone, model.glimpse, inputs)
    options = PruneOptions(max_keep_ratio=0.5, min_kept=2)
    assert kept_counts(forced, options).tolist() == prefill(model.backbone, inputs, model.glimpse, options).num_kept
