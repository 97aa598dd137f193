"""What a CUDA device and its attention kernels must not change: `python -m pytest -m gpu`."""

from __future__ import annotations

import linecache
import warnings

import pytest
import torch
from transformers import LogitsProcessor
from transformers.utils import is_flash_attn_2_available

from gp.engine.teacher_forcing import teacher_forced
from gp.model import GlimpseModel
from gp.pruners import BASELINES
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.losses import ANSWERS, loss_of
from tests.support.ragged import RAGGED
from tests.support.tiny_models import FAMILIES, Family, random_masks, tiny_answers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
KERNELS = [
    "eager",
    "sdpa",
    pytest.param(
        "flash_attention_2",
        marks=pytest.mark.skipif(not is_flash_attn_2_available(), reason="flash-attn is not installed"),
    ),
]
IMAGES = [prompt for prompt in RAGGED if prompt[0]]
HALF = PruneOptions(fixed_keep_ratio=0.5)
MOST = PruneOptions(fixed_keep_ratio=0.7)  # what FastV can meet in four layers
ROUNDING = 0.03  # relative error of a few layers in bfloat16
FORCED = (5, 17, 2, 44)  # an answer


class Forced(LogitsProcessor):
    """Makes `generate` write one given answer, whatever the logits."""

    def __init__(self, prompt_length: int) -> None:
        self.prompt_length = prompt_length

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, float("-inf"))
        forced[:, FORCED[input_ids.shape[1] - self.prompt_length]] = 0
        return forced


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


def reference(family: Family) -> GlimpseModel:
    """On the host in float32, with weights that bfloat16 holds exactly."""
    return micro_glimpse(family.make(dtype=torch.bfloat16).float())


def on_device(family: Family, kernel: str) -> GlimpseModel:
    """The same model in bfloat16, with its trained parts in float32 as in training."""
    return micro_glimpse(family.make(dtype=torch.bfloat16, attn_implementation=kernel)).cuda()


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the norm of what was expected."""
    return float((got.float().cpu() - expected).norm() / expected.norm())


def step_logits(model: GlimpseModel, inputs: dict, **how) -> torch.Tensor:
    """Logits of the forced answer's steps, [B, steps, vocabulary]."""
    out = model.generate(
        **inputs,
        logits_processor=[Forced(inputs["input_ids"].shape[1])],
        max_new_tokens=len(FORCED),
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **how,
    )
    return torch.stack(out.logits, dim=1)


def test_float32_on_the_device_equals_the_host(family, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # patches are embedded by a convolution
    base, inputs = family.make(), family.inputs(family.fit(RAGGED))
    host = micro_glimpse(base).prefill(inputs)
    done = micro_glimpse(base).cuda().prefill(inputs)
    assert torch.equal(done.keep_mask.cpu(), host.keep_mask)
    torch.testing.assert_close(done.importance_logits.cpu(), host.importance_logits, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(done.logits.cpu(), host.logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_importance_and_masks_of_every_kernel(family, kernel):
    inputs = family.inputs(family.fit(RAGGED))
    host = reference(family).prefill(inputs, options=HALF)
    done = on_device(family, kernel).prefill(inputs, options=HALF)
    assert error(done.importance_logits, host.importance_logits) < ROUNDING
    differ = (done.keep_mask.cpu() != host.keep_mask).float().mean()
    assert differ < 0.05, "only tokens at the edge of the budget may differ by rounding"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pruned_prompt_decodes_alike_under_every_kernel(family, kernel):
    prompts = family.fit(RAGGED)
    inputs = family.inputs(prompts)
    how = {"pruner": "oracle", "evidence_masks": random_masks([grid for grids, _ in prompts for grid in grids])}
    expected = step_logits(reference(family), inputs, **how)
    assert error(step_logits(on_device(family, kernel), inputs, **how), expected) < ROUNDING


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("method", sorted(BASELINES.keys() - {"none", "random", "oracle", "downsample"}))
def test_every_method_scores_alike_under_every_kernel(family, method, kernel):
    inputs = family.inputs(family.fit(IMAGES))
    host = reference(family).prefill(inputs, method, MOST)
    done = on_device(family, kernel).prefill(inputs, method, MOST)
    kept = host.keep_mask.float().mean()
    assert torch.isfinite(done.logits).all()
    assert done.keep_mask.sum().item() == host.keep_mask.sum().item()
    agree = (done.keep_mask.cpu() & host.keep_mask).sum() / host.keep_mask.sum()
    assert agree > (1 + kept) / 2, "far more than a random choice of as many would share"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_training_step_under_every_kernel(family, kernel):
    inputs, answers = family.inputs(family.fit(IMAGES)), tiny_answers(ANSWERS)

    def step(model, device, **autocast):
        model.train()
        with torch.autocast(device, torch.bfloat16, **autocast):
            on = [tensor.to(device) for tensor in answers]
            forced = teacher_forced(model.backbone, model.glimpse, inputs, *on)
        forced.importance_logits = [logits.cpu() for logits in forced.importance_logits]
        forced.answer_logits = forced.answer_logits.cpu()
        loss = loss_of(forced)
        loss.backward()
        return loss.detach(), {name: p.grad.cpu() for name, p in model.glimpse.named_parameters()}

    expected_loss, expected = step(reference(family), "cpu", enabled=False)
    loss, got = step(on_device(family, kernel), "cuda")
    assert abs(loss - expected_loss) < ROUNDING * expected_loss
    for name, gradient in expected.items():
        assert torch.cosine_similarity(got[name].flatten(), gradient.flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize("options", [PruneOptions(), HALF], ids=["threshold", "budget"])
def test_host_syncs_of_a_pruned_prefill(options):
    """By CUDA's own count; copies of the processor's tensors to the device wait for themselves only."""
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = on_device(family, "sdpa"), family.inputs(family.fit(IMAGES[:1]))
    model.prefill(inputs, options=options)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.prefill(inputs, options=options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{warning.filename}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message)]
    lines = {place: linecache.getline(*place.rsplit(":", 1)[:1], int(place.rsplit(":", 1)[1])) for place in waits}
    reads = [place for place, line in lines.items() if ".to(" not in line]
    assert len(reads) == (options is not HALF), lines


@pytest.mark.parametrize("cache", ["offloaded", "static", "dynamic"])
def test_caches_that_transformers_offers(family, cache):
    model = micro_glimpse(family.make()).cuda()
    inputs = family.inputs(family.fit(IMAGES[:1]))
    plain = step_logits(model, inputs, options=HALF)
    torch.testing.assert_close(step_logits(model, inputs, options=HALF, cache_implementation=cache), plain)
