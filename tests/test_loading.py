"""Every keyword of `from_pretrained` arrives where it belongs, or is refused with the nearest known one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gp
from gp import loading
from gp.embedded import BASE_DIR, GLIMPSE_DIR
from tests.support.bases import BASES
from tests.support.hub_cache import put_in_cache

pytestmark = pytest.mark.core


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory) -> str:
    """Path of a micro base with its processor."""
    return BASES[request.param](tmp_path_factory.mktemp(request.param) / "base")


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (56, 112, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixel": 1}, r"unknown option max_pixel=1; the nearest known one is 'max_pixels'"),
        ({"quantisation_config": {}}, "nearest known one is 'quantization_config'"),
        ({"torchdtype": "float32"}, "nearest known one is 'torch_dtype'"),
        ({"load_in_4bit": True}, r"quantization_config=transformers\.BitsAndBytesConfig\(load_in_4bit=True\)"),
        ({"device": "cpu"}, "device_map"),
        ({"trust_remote_code": True}, "runs no code of a repository"),
        ({"dtype": "bfloat17"}, 'dtype must be "auto" or one like "bfloat16", got \'bfloat17\''),
        ({"dtype": torch.int8}, "got torch.int8"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "differ; give one of them"),
    ],
    ids=str,
)
def test_what_nobody_takes_is_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        gp.from_pretrained("/there/is/no/such/folder", **options)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": torch.bfloat16, "torch_dtype": "bfloat16", "trust_remote_code": False}, torch.bfloat16),
        ({"dtype": "auto"}, torch.float32),
        ({}, torch.float32),
    ],
    ids=str,
)
def test_dtype_under_both_names(base, options, dtype):
    assert gp.from_pretrained(base, **options).dtype == dtype


def test_parts_have_the_dtype_of_the_base():
    model = gp.from_pretrained("tiny", glimpse="tiny", torch_dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("base", "options", "error", "message"),
    [
        ("/there/is/no/such/folder", {}, FileNotFoundError, "base /there/is/no/such/folder: no such folder"),
        (None, {}, TypeError, "hub id or a folder, got NoneType"),
        ("tiny", {"compile_decode": "yes"}, TypeError, "compile_decode must be True or False, got 'yes'"),
        ("tiny", {"max_pixels": -5}, ValueError, "max_pixels must be a whole number, 1 or more, got -5"),
        ("tiny", {"min_pixels": "9"}, ValueError, "min_pixels must be a whole number"),
        ("tiny", {"min_pixels": 9, "max_pixels": 8}, ValueError, "min_pixels 9 is more than max_pixels 8"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(base, options, error, message):
    with pytest.raises(error, match=message):
        gp.from_pretrained(base, **options)


def test_a_model_is_loaded_frozen_and_in_eval_mode(base):
    model = gp.from_pretrained(base)
    assert not any(p.requires_grad for p in model.base.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.filterwarnings("error::FutureWarning")
def test_processor_options_reach_the_processor(tmp_path):
    qwen, llava = (BASES[name](tmp_path / name) for name in ("qwen2_5_vl", "llava"))
    model = gp.from_pretrained(qwen, max_pixels=2 * 28 * 28)
    assert model.ask(picture(), "what is here ?", max_new_tokens=1).num_visual == 2
    assert gp.from_pretrained(llava, do_pad=True).processor.image_processor.do_pad
    with pytest.raises(ValueError, match="only LLaVA pads"):
        gp.from_pretrained(qwen, do_pad=True)
    with pytest.raises(ValueError, match="max_pixels=9"):
        gp.from_pretrained(llava, max_pixels=9)


def test_device_map_without_accelerate(base, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"device_map='auto' needs accelerate.*the extra `accelerate`"):
        gp.from_pretrained(base, device_map="auto")


def test_hub_options_reach_config_weights_processor_and_parts(tmp_path):
    """Everything comes out of one cache folder, without a network."""
    put_in_cache(tmp_path, "someone/base", BASE_DIR)
    put_in_cache(tmp_path, "someone/glimpse", GLIMPSE_DIR)
    hub = {"cache_dir": str(tmp_path), "local_files_only": True, "token": "hf_none"}
    model = gp.from_pretrained("someone/base", "someone/glimpse", revision="v1", glimpse_revision="v1", **hub)
    assert model.ask(Image.open("docs/images/scene.png"), "what number is on the green card ?").text == "5 3"
    with pytest.raises(OSError):
        gp.from_pretrained("someone/base", revision="v2", **hub)
    with pytest.raises(OSError):
        gp.from_pretrained("someone/other", **hub)


def test_the_original_llava_is_loaded_from_a_cache_too(tmp_path):
    from tests.support import llava_bases

    llava_bases.save_original(tmp_path / "original", llava_bases.micro_base())
    put_in_cache(tmp_path / "cache", "someone/llava", tmp_path / "original")
    # its tower is named relative to the folder that the cache made of it
    snapshot = next((tmp_path / "cache").glob("models--*/snapshots/*"))
    config = (snapshot / "config.json").read_text()
    (snapshot / "config.json").write_text(config.replace("./clip", str(snapshot / "clip")))
    model = gp.from_pretrained("someone/llava", cache_dir=str(tmp_path / "cache"), local_files_only=True)
    assert model.ask(picture(), "what ?", max_new_tokens=1).num_visual == 25


# ---- with libraries that are not part of the default environment: the extra `accelerate`, and torchao ---------------


def answers(model: gp.GlimpseModel) -> list[torch.Tensor]:
    """Kept tokens and logits of one prompt under methods that read attention, look ahead and drop in several places."""
    inputs = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "what ?"}]}],
        **{"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"},
    )
    done = [model.prefill(inputs, name, gp.PruneOptions(fixed_keep_ratio=0.8)) for name in ("fastv", "vscan", "random")]
    return [tensor for one in done for tensor in (one.keep_mask, one.logits)]


def test_offloaded_layers_answer_as_loaded_ones(base, tmp_path):
    pytest.importorskip("accelerate")
    plain = gp.from_pretrained(base)
    parts = [name for name, _ in plain.base.named_children() if name != "model"]
    parts += [f"model.{name}" for name, _ in plain.base.model.named_children() if name != "language_model"]
    decoder = plain.backbone.text_model
    parts += [f"model.language_model.{name}" for name, _ in decoder.named_children() if name != "layers"]
    where = dict.fromkeys(parts, "cpu")
    where |= {f"model.language_model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(len(decoder.layers))}
    offloaded = gp.from_pretrained(base, device_map=where, offload_folder=str(tmp_path))
    assert any(p.is_meta for p in offloaded.base.parameters())
    assert all(torch.equal(a, b) for a, b in zip(answers(plain), answers(offloaded), strict=True))


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_int8_weights(kind):
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    config = TorchAoConfig(getattr(quantization, kind)())
    model = gp.from_pretrained("tiny", glimpse="tiny", quantization_config=config)
    assert type(model.base.model.language_model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    answer = model.ask(Image.open("docs/images/scene.png"), "what number is on the green card ?")
    assert answer.text == "5 3" and answer.num_kept < 10
