"""The glimpse on weights that pass by, against gp's own engine on the whole model; no vLLM is needed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import gp
from gp.asking import chat_inputs
from gp.formats.glimpse_folder import save_glimpse
from gp.integrations.vllm.asking import prompts_of
from gp.integrations.vllm.look import Look
from gp.types import ImageFeatures
from tests.support import vllm_bases as bases
from tests.support.glimpses import micro_glimpse

BUDGET = 0.3
PARTS = {
    "no twig": {"prune_layer": 1, "read_layers": [0, 1]},
    "twig before the second layer": {"prune_layer": 0, "twig": 2, "read_layers": [0, 2]},
}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "llava"])
def place(request, tmp_path_factory):
    return bases.save_stock(request.param, tmp_path_factory.mktemp("bases") / request.param)


@pytest.fixture(scope="module", params=PARTS.values(), ids=PARTS)
def pair(request, place, tmp_path_factory):
    """The whole model with a glimpse, and the look that has read the same files."""
    made = micro_glimpse(gp.from_pretrained(place, dtype="float32").base, **request.param)
    if made.glimpse.twig is not None:
        made.glimpse.twig.start_from(made.backbone)
    folder = save_glimpse(tmp_path_factory.mktemp("glimpse"), made.glimpse, made.backbone, gp.PruneOptions())
    model = gp.from_pretrained(place, glimpse=folder, dtype="float32")
    embed = model.backbone.text_model.embed_tokens
    look = Look(str(place), None, str(folder), torch.device("cpu"), torch.float32, embed)
    weights = load_file(place / "model.safetensors")
    assert dict(look.copying(weights.items())).keys() == weights.keys()  # all are handed on
    look.check()
    return model, look


def seen_alone(model, picture, question):
    """Features, size and prompt of a picture, as a server has them."""
    inputs = chat_inputs(model.processor, [picture], [question])
    (size,) = model.backbone.image_sizes(inputs)
    ids, token = inputs["input_ids"][0].tolist(), model.backbone.image_token_id
    first = ids.index(token)
    ids = [*ids[: first + 1], *[one for one in ids[first:] if one != token]]
    features: ImageFeatures = model.backbone.see(inputs, model.glimpse.taps)
    (prompt,) = prompts_of(ids, token, model.backbone.image_frame, 1)
    return inputs, features, size, prompt


def test_decisions_are_those_of_the_engine_alone_and_in_a_batch(pair):
    model, look = pair
    asked = [(pictures[0], question) for pictures, question in bases.requests() if len(pictures) == 1]
    rows = [seen_alone(model, *one) for one in asked]
    masks = [model.prefill(row[0], None, gp.PruneOptions(fixed_keep_ratio=BUDGET)).keep_masks[0] for row in rows]
    wanted = [mask.flatten().nonzero()[:, 0] for mask in masks]
    options = [gp.PruneOptions(num_keep=len(kept), budget_scope="image") for kept in wanted]
    _, features, sizes, prompts = map(list, zip(*rows, strict=True))
    for one in ([k] for k in range(len(rows))), [range(len(rows))]:
        for few in one:
            found = look.keep(*([values[k] for k in few] for values in (features, sizes, prompts, options)))
            assert all(torch.equal(kept, wanted[k]) for kept, k in zip(found, few, strict=True))
    assert len({tuple(kept.tolist()) for kept in wanted}) >= len(bases.SIDES)  # the pictures differ, at least


def test_weights_that_do_not_come_by_are_named(place, pair, tmp_path):
    model, _ = pair
    folder = save_glimpse(tmp_path, model.glimpse, model.backbone, gp.PruneOptions())
    embed = model.backbone.text_model.embed_tokens
    look = Look(str(place), None, str(folder), torch.device("cpu"), torch.float32, embed)
    weights = {name: one for name, one in load_file(place / "model.safetensors").items() if "layers.0.mlp" not in name}
    list(look.copying(weights.items()))
    with pytest.raises(ValueError, match=r"layer 0 has no plain weight mlp.down_proj.weight .* not quantized"):
        look.check()


def test_parts_of_another_base_are_refused(place, tmp_path):
    with pytest.raises(ValueError, match=r"another base|hidden_size"):
        Look(str(place), None, "tiny", torch.device("cpu"), torch.float32, torch.nn.Embedding(4, 4))
