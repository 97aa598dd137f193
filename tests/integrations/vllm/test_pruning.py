"""Images pruned one by one against gp's own engine, which prunes them in their prompts."""

from __future__ import annotations

import pytest
import torch

from gp.backbones import backbone_of
from gp.engine.prefill import prefill
from gp.integrations.vllm.positions import PlacedImage, place_images, prompt_positions
from gp.integrations.vllm.pruning import prune_image
from gp.integrations.vllm.settings import METHODS, Settings
from gp.pruners import make_baseline
from tests.support.tiny_models import IMAGE_PAD, tiny_inputs, tiny_qwen

RANKING = [name for name in METHODS if name not in ("none", "downsample", "glimpse")]


def images_of(backbone, inputs, pruner, settings, seed):
    """Embeddings and places of what is kept of each image, each image alone."""
    out, start = [], 0
    for (height, width), grid in zip(backbone.image_sizes(inputs), inputs["image_grid_thw"], strict=True):
        patches = int(grid.prod())
        alone = {
            "pixel_values": inputs["pixel_values"][start : start + patches],
            "image_grid_thw": grid.unsqueeze(0),
        }
        start += patches
        seen = backbone.see(alone, (), pruner.attended)
        count = settings.count(height, width)
        out.append(prune_image(pruner, seen.embeds, (height, width), count, seen.attention, seed, backbone.num_layers))
        assert len(out[-1][0]) == len(out[-1][1]) == count
    return out


@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
def test_logits_are_those_of_the_engine(name, budget):
    model, settings = tiny_qwen(), Settings(name, budget)
    backbone = backbone_of(model)
    pruner = make_baseline(name, backbone)
    grids = [(6, 7), (8, 3)] if name != "random" else [(6, 7)]  # gp draws once a prompt, here it is once an image
    inputs = tiny_inputs([(grids, 9)])
    done = prefill(backbone, inputs, pruner, settings.options(), seed=5)
    images = images_of(backbone, inputs, pruner, settings, seed=5)
    masks = [torch.zeros(h * w, dtype=torch.bool).index_fill(0, kept, True) for (h, w), (_, kept) in zip(grids, images)]
    assert torch.equal(torch.cat(masks), done.keep_mask)

    ids = inputs["input_ids"][0]
    left = torch.ones_like(ids, dtype=torch.bool).masked_scatter(ids == IMAGE_PAD, torch.cat(masks))
    ids, is_image = ids[left], ids[left] == IMAGE_PAD
    starts = (is_image & ~is_image.roll(1)).nonzero()[:, 0].tolist()
    placed = [PlacedImage(at, len(kept), grid) for at, (_, kept), grid in zip(starts, images, grids, strict=True)]
    positions, delta = prompt_positions(len(ids), placed)
    rows_columns = [torch.stack([kept // w, kept % w], 1) for (_, kept), (_, w) in zip(images, grids)]
    positions = place_images(positions, is_image, 0, torch.cat(rows_columns))
    assert int(done.next_position) == len(ids) + delta

    hidden = model.model.language_model.embed_tokens(ids)
    hidden[is_image] = torch.cat([embeds for embeds, _ in images])
    out = model.model.language_model(inputs_embeds=hidden[None], position_ids=positions[:, None])
    logits = model.lm_head(out.last_hidden_state[:, -1:])
    torch.testing.assert_close(logits, done.logits, rtol=1e-5, atol=1e-5)


def test_scores_that_are_no_numbers_are_refused():
    backbone = backbone_of(tiny_qwen())
    pruner = make_baseline("divprune", backbone)
    embeds = torch.randn(12, 64)
    embeds[3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"pruner 'divprune': scores .* not finite"):
        prune_image(pruner, embeds, (3, 4), 2, {}, 0, 4)
