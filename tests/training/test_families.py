"""Every family goes through the same doors: training, its callbacks, what it saves, evaluation, `ask`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gp
from gp.backbones import FAMILIES as REGISTERED
from gp.data.batch import Collator, question_messages
from gp.data.datamodule import GlimpseDataModule
from gp.eval import evaluate, load_run
from gp.training import train as runs
from tests.support.bases import BASES
from tests.support.micro_run import write_config
from tests.support.tiny_models import FAMILIES

STEPS = ("optim.max_steps=2", "trainer.accumulate_grad_batches=2", "model.do_pad=true")
PRUNERS = ("eval.pruners=[none,glimpse,oracle]", "eval.overlays=1", "eval.num_samples=3")
SIZES = {"qwen2_5_vl": 8, "qwen3_vl": 8, "llava": 25}  # visual tokens of an image of the micro run


def test_every_family_is_in_the_tables():
    assert set(REGISTERED) == set(FAMILIES) == set(BASES)


@pytest.fixture(scope="module", params=BASES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory) -> str:
    return BASES[family](tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(family, base, tmp_path_factory):
    """A run, as `train.py` makes it: config, model, folder."""
    overrides = [text for text in STEPS if "do_pad" not in text or family == "llava"]
    config = write_config(tmp_path_factory.mktemp("run"), base, *overrides, *PRUNERS)
    return config, *runs.train(config)[:2]


def test_training_changes_the_glimpse_and_leaves_files_that_load(finished, base, family):
    config, model, folder = finished
    torch.manual_seed(0)
    untrained = runs.build_model(config).glimpse.state_dict()
    loaded = gp.from_pretrained(base, glimpse=folder / "glimpse")
    for name, value in model.glimpse.state_dict().items():
        assert torch.equal(value, loaded.glimpse.state_dict()[name]) and bool(value.isfinite().all())
    moved = [name for name, value in model.glimpse.state_dict().items() if not torch.equal(value, untrained[name])]
    assert any("glimpse_token" in name for name in moved) and any("vip" in name for name in moved)
    assert json.loads((folder / "glimpse" / "config.json").read_text())["base"]["model_type"] == family
    stock = BASES[family](folder / "again")
    for name, value in gp.from_pretrained(stock).base.state_dict().items():
        assert torch.equal(value, model.base.state_dict()[name])


def test_callbacks_show_the_run(finished, family):
    _, _, folder = finished
    events = EventAccumulator(str(folder / "tb"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/loss_answer", "val/keep_ratio", "val/mask_iou"} <= set(tags["scalars"])
    assert tags["images"] == ["val/kept/0", "val/kept/1"]
    texts = [events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"] if "kept/" in tag]
    assert texts and all(f"of {SIZES[family]} tokens" in text for text in texts)


def test_evaluation(finished, tmp_path):
    _, _, folder = finished
    model, config = load_run(folder / "last.ckpt")
    rows = evaluate(model, config, tmp_path)
    assert [row["pruner"] for row in rows] == ["none", "glimpse", "oracle"]
    by_name = {row["pruner"]: row for row in rows}
    assert by_name["oracle"]["mask_iou"] == 1 and by_name["none"]["agreement"] == 1
    assert 0 < by_name["glimpse"]["keep_ratio"] <= 1 and by_name["oracle"]["keep_ratio"] < 1
    assert len(list((tmp_path / "figures").glob("*.png"))) >= 2
    assert unpruned(tmp_path) == stock_answers(model, config)
    assert evaluate(model, config, tmp_path) == rows  # nothing is left to do


def unpruned(out: Path) -> list[str]:
    lines = (out / "samples" / "test-none-own.jsonl").read_text().splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def stock_answers(model, config) -> list[str]:
    """What transformers alone answers, one sample at a time."""
    data = GlimpseDataModule(config.data, Collator(model.processor))
    batches = data.eval_loader(config.data.test["test"], num_samples=config.eval.num_samples)
    samples = [sample for batch in batches for sample in batch.samples]
    answers = []
    for sample in samples:
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = model.processor.apply_chat_template(question_messages(sample), **options)
        ids = model.base.generate(**inputs, do_sample=False, max_new_tokens=config.eval.max_new_tokens)
        new = ids[0, inputs["input_ids"].shape[1] :]
        answers.append(model.processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


def test_one_question(finished):
    config, model, _ = finished
    data = GlimpseDataModule(config.data, Collator(model.processor))
    (batch,) = data.eval_loader(config.data.test["test"], num_samples=1)
    sample = batch.samples[0]
    answer = model.ask(sample.image, sample.question, max_new_tokens=2, fixed_keep_ratio=0.5)
    assert answer.num_kept == answer.num_visual // 2 > 0
    two = model.ask([sample.image, sample.image], sample.question, max_new_tokens=2, num_keep=(3,))
    assert (two.num_kept, two.num_visual, len(two.keep_masks)) == (3, 2 * answer.num_visual, 2)


def test_a_batch_equals_its_rows(finished):
    """Through the collator: padding, evidence masks and token grids of a batch are those of its samples."""
    config, model, _ = finished
    collator = Collator(model.processor)
    data = GlimpseDataModule(config.data, collator)
    samples = [s for batch in data.eval_loader(config.data.test["test"]) for s in batch.samples][:3]
    whole = collator(samples)
    scores = model.prefill(whole.inputs).layout.split_by_image(model.prefill(whole.inputs).importance_logits)
    for row, sample in enumerate(samples):
        alone = collator([sample])
        assert torch.equal(alone.evidence_masks[0], whole.evidence_masks[row]) and whole.evidence_masks[row].any()
        done = model.prefill(alone.inputs)
        assert done.layout.grids == (tuple(whole.evidence_masks[row].shape),)
        assert torch.allclose(done.importance_logits, scores[row].flatten(), atol=1e-4)
