"""A glimpse behind a quantized base, through the commands' own calls: trained, saved, evaluated."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from PIL import Image

from gp.backbones.quantizing import LIBRARY, quantized
from gp.engine.teacher_forcing import teacher_forced
from gp.eval import evaluate, load_run
from gp.model import GlimpseModel
from gp.training.train import build_model, train
from tests.support.bases import BASES
from tests.support.micro_run import write_config

WIDE = {"vision_hidden": 64}  # bitsandbytes quantizes blocks of 64, on a CPU within a row


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("gp.backbones.quantizing.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"model\.quantization=nf4 needs bitsandbytes.*pip install bitsandbytes"):
        quantized("nf4", "bfloat16")
    assert quantized(None, "float32") == {}


# int4 has no kernels for a CPU, and bitsandbytes 0.50 no gradients there
@pytest.fixture(params=["int8", "nf4"])
def name(request) -> str:
    if importlib.util.find_spec(LIBRARY[request.param]) is None:
        pytest.skip(f"{LIBRARY[request.param]} is not installed")
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("family", BASES)
def test_training_and_evaluation(tmp_path, name, family):
    if name == "nf4":
        pytest.skip("bitsandbytes adds a bias in place, which autograd refuses on a CPU")
    base = BASES[family](tmp_path / "base", **WIDE)
    config = write_config(tmp_path, base, f"model.quantization={name}", "eval.costs=false", "eval.overlays=0")
    model, folder, _ = train(config)
    stored = model.backbone.text_model.layers[0].mlp.up_proj.weight
    assert type(stored.data) is not torch.Tensor or stored.dtype == torch.uint8
    assert model.backbone.text_model.embed_tokens.weight.dtype == torch.float32
    assert json.loads((folder / "run.json").read_text())["step"] == 4
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert all(key.startswith("model.glimpse.") for key in state)
    rows = evaluate(*load_run(folder), tmp_path / "alone")
    assert {row["pruner"] for row in rows} >= {"none", "glimpse"}
    assert json.loads((tmp_path / "alone/settings.json").read_text())["quantization"] == name


@pytest.mark.slow
def test_answers_and_gradients_are_those_of_the_weights_that_are_stored(tmp_path, name):
    """A plain base with the numbers that the quantized one computes with gives the same."""
    base = BASES["qwen2_5_vl"](tmp_path / "base", **WIDE)
    small, whole = (seeded(write_config(tmp_path, base, *given)) for given in ([f"model.quantization={name}"], []))
    with torch.no_grad():
        for (path, module), other in zip(whole.base.named_modules(), small.base.modules(), strict=True):
            if isinstance(module, torch.nn.Linear) and path != "lm_head":
                bias = 0 if module.bias is None else module.bias
                module.weight.data = (other(torch.eye(module.in_features)) - bias).T.contiguous()
    found, expected = (figures(model, gradients=name == "int8") for model in (small, whole))
    assert found.keys() == expected.keys() and len(found) >= (2 if name == "nf4" else 7)
    rounding = 2e-2 if name == "nf4" else 1e-3  # bitsandbytes' kernel for a CPU multiplies in 16 bits
    for key, value in expected.items():
        assert float((found[key] - value).abs().max()) < rounding * float(value.abs().max()), key


def seeded(config) -> GlimpseModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(config)


def figures(model: GlimpseModel, gradients: bool) -> dict[str, torch.Tensor]:
    """Logits of one question and answer, and gradients of the trained parts."""
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    content = [{"type": "image", "image": Image.new("RGB", (112, 56), "red")}, {"type": "text", "text": "what ?"}]
    inputs = model.processor.apply_chat_template([{"role": "user", "content": content}], **how)
    ids = torch.tensor([[3, 5, 7]])
    with torch.set_grad_enabled(gradients):
        forced = teacher_forced(model.backbone, model.glimpse, inputs, ids, torch.ones_like(ids).bool())
    importance, answer = forced.importance_logits[-1], forced.answer_logits
    assert answer is not None
    found = {"importance": importance.detach(), "answer": answer.detach()}
    if gradients:
        (importance.square().mean() + answer.square().mean()).backward()
        found |= {name: weight.grad for name, weight in model.glimpse.named_parameters() if weight.grad is not None}
    return found
