"""Packed questions against single ones in stock transformers."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gp.backbones.processor import load_processor
from gp.embedded import BASE_DIR
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.blocks import IGNORE, INSERTED
from gp.embedded.making.growing.joint_forward import embed_blocks, joint_forward
from gp.embedded.making.growing.joint_stream import JointStream
from gp.embedded.making.growing.packing import prefix_text
from gp.embedded.making.growing.plans import Size

LAYER = 5
SIZES_OF = {
    "single": Size(1, ((8, 12),), 2, 3),
    "pair": Size(1, ((8, 9), (10, 8)), 1, 3),
    "zoom": Size(1, ((12, 8),), 2, 3),
}


def make_batch(setting, tokenizer, seed=0):
    return JointStream(SceneBuilder("val"), tokenizer, range(1), seed, (setting, SIZES_OF[setting]), 192).batch(0)


def single_pass(model, tokenizer, batch, row, column):
    """Logits [T, vocabulary] of one block and its evidence attention, by a stock pass over its own prompt alone."""
    ids = batch["ids"][row, column]
    block = ids[ids != -1]
    images = [images[row] for images in batch["images"]]
    if bool((block == model.config.image_token_id).any()):
        images.append(batch["crops"][row * batch["ids"].shape[1] + column])
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    pixels = load_processor(BASE_DIR).image_processor(pictures, do_resize=False, return_tensors="pt")
    prefix = torch.tensor(tokenizer(prefix_text(batch["grids"]), add_special_tokens=False).input_ids)
    input_ids = torch.cat([prefix, block.where(block != INSERTED, 0)])[None]
    types = (input_ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(
        input_ids, mm_token_type_ids=types, image_grid_thw=pixels["image_grid_thw"]
    )
    # Where no position jumps, the packed ones are those that transformers finds itself.
    own = batch["positions"][row, column][:, ids != -1]
    jump = own[0, -1] - (positions[0, 0, -1] - positions[0, 0, len(prefix)] + own[0, 0])
    positions[:, 0, -len(block) :] = own - own[0, 0] + positions[0, 0, len(prefix)]
    embeds = model.get_input_embeddings()(input_ids)
    embeds = embeds.masked_scatter(
        (input_ids == model.config.image_token_id)[..., None],
        torch.cat(model.get_image_features(pixels["pixel_values"], pixels["image_grid_thw"]).pooler_output),
    )
    given = embed_blocks(model, tokenizer, batch)[row, column][ids != -1]
    embeds[0, len(prefix) :][block == INSERTED] = given[block == INSERTED]
    out = model(inputs_embeds=embeds, position_ids=positions, output_attentions=True)
    last = len(prefix) + int(batch["last"][row, column]) - int((ids != -1).nonzero()[0])
    is_visual = types[0] == 1
    evidence = batch["evidence"][row, column]
    own_evidence = batch["crop_evidence"][row, column][ids != -1]
    evidence = torch.cat([evidence, own_evidence[is_visual[len(prefix) :]]])
    mass = out.attentions[LAYER][0, :, last, is_visual][:, evidence].sum(-1).mean()
    return out.logits[0, len(prefix) :], mass, int(jump)


@pytest.mark.parametrize("setting", SIZES_OF)
@torch.no_grad()
def test_packed_questions_equal_single_ones(setting, grown, tokenizer):
    """Loss and evidence attention of the packed pass are those of stock forward passes, one question at a time."""
    jumps, inserted = set(), 0
    for seed in range(3):
        batch = make_batch(setting, tokenizer, seed)
        grown.set_attn_implementation("sdpa")
        packed = joint_forward(grown, tokenizer, batch, LAYER)
        grown.set_attn_implementation("eager")  # the only one whose weights transformers gives out
        losses = []
        for row, column in torch.cartesian_prod(*map(torch.arange, batch["kinds"].shape)).tolist():
            logits, mass, jump = single_pass(grown, tokenizer, batch, row, column)
            labels = batch["labels"][row, column][batch["ids"][row, column] != -1]
            losses.append(F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum"))
            torch.testing.assert_close(packed.evidence_mass[row, column], mass, rtol=1e-3, atol=1e-5)
            jumps.add(jump)
            inserted += int((batch["ids"][row, column] == INSERTED).any())
        expected = torch.stack(losses).sum() / (batch["labels"] != IGNORE).sum()
        torch.testing.assert_close(packed.answer_loss, expected, rtol=1e-4, atol=1e-5)
    grown.set_attn_implementation("sdpa")
    assert {0} < jumps and inserted > 0  # both are in what was compared
