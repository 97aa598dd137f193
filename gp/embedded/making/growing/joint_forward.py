"""One pass of the whole model over packed questions: answers, and the terms beside them."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.recording import record_calls
from gp.embedded.making.growing.blocks import IGNORE, INSERTED
from gp.embedded.making.growing.images import encode_images
from gp.embedded.making.growing.packing import HEADER, packed_mask, prefix_positions, prefix_text
from gp.embedded.making.growing.terms import (
    NUM_LINKS,
    asked_loss,
    attention_rows,
    chain_loss,
    found_loss,
    place_loss,
    take_rows,
    words_loss,
)


@dataclass
class JointOutput:
    """answer_loss, evidence_loss, place_loss, asked_loss, found_loss, words_loss, chain_loss: scalars.

    visual_tokens: [B, V, D] of every image of the prefix. is_exact: bool [B, Q], every label is the likeliest token.
    evidence_mass: [B, Q], attention on the evidence, 0..1. values: [B, Q, D], what that attention has gathered, before
    it is projected.
    """

    answer_loss: torch.Tensor
    evidence_loss: torch.Tensor
    visual_tokens: list[torch.Tensor]
    is_exact: torch.Tensor
    evidence_mass: torch.Tensor
    place_loss: torch.Tensor
    asked_loss: torch.Tensor
    found_loss: torch.Tensor
    words_loss: torch.Tensor
    chain_loss: torch.Tensor
    values: torch.Tensor


def joint_forward(model: PreTrainedModel, tokenizer, batch: dict[str, Any], evidence_layer: int) -> JointOutput:
    """One pass over a batch of `JointStream`.

    Args:
        model: `Qwen2_5_VLForConditionalGeneration`.
        evidence_layer: decoder layer, from 0, at which the attention of the last prompt token is pulled.
    """
    visual_tokens = [encode_images(model, images) for images in batch["images"]]
    ids, labels = batch["ids"], batch["labels"]
    _, num_questions, length = ids.shape
    prefix_ids = torch.tensor(tokenizer(prefix_text(batch["grids"]), add_special_tokens=False).input_ids)
    num_prefix = len(prefix_ids)
    prefix, is_visual = embed_prefix(model, prefix_ids, visual_tokens)
    blocks = embed_blocks(model, tokenizer, batch)
    embeds = torch.cat([prefix, blocks.flatten(1, 2)], dim=1)
    header = len(tokenizer(HEADER, add_special_tokens=False).input_ids)
    positions = packed_positions(prefix_positions(header, batch["grids"]), batch["positions"])
    mask = packed_mask(num_prefix, ids != -1)

    decoder = Qwen2_5_VL(model).text_model
    recorded = [*decoder.layers[evidence_layer - NUM_LINKS : evidence_layer + 2]]
    with record_calls([*recorded, decoder.layers[evidence_layer].self_attn.o_proj]) as calls:
        hidden = decoder(
            inputs_embeds=embeds, position_ids=positions, attention_mask={"full_attention": mask}, use_cache=False
        ).last_hidden_state

    last = num_prefix + length * torch.arange(num_questions) + batch["last"]
    *inputs, next_input, values = (args[0] for args, _ in calls)
    words_input, layer_input = inputs[-2:]
    rotary = calls[0][1]["position_embeddings"]
    words = attention_rows(model, evidence_layer - 1, words_input, rotary, last, mask)
    named = words_loss(words, batch["words"], num_prefix + length * torch.arange(num_questions))
    weights = attention_rows(model, evidence_layer, layer_input, rotary, last, mask)
    evidence_mass = _mass(weights.mean(1), batch["evidence"], batch["crop_evidence"], is_visual)
    # Half of the heads look at the first card of a question for a side, half at the other one.
    halves = zip(weights.chunk(2, dim=1), batch["parts"].unbind(2), strict=True)
    masses = [_mass(heads.mean(1), part, batch["crop_evidence"], is_visual) for heads, part in halves]
    first, other = (-mass.clamp(min=1e-6).log() for mass in masses)
    evidence_loss = (first + other).mean() / 2

    is_label = labels != IGNORE
    rows = hidden[:, num_prefix:].unflatten(1, (num_questions, length))[is_label]
    logits = model.lm_head(rows)
    answer_loss = F.cross_entropy(logits, labels[is_label])
    is_right = torch.ones_like(is_label).masked_scatter(is_label, logits.argmax(-1) == labels[is_label])
    chain = chain_loss(model, evidence_layer - NUM_LINKS, inputs, rotary, mask, is_visual, batch["chains"])
    places = place_loss(layer_input[:, :num_prefix][:, is_visual], batch["grids"], batch["marks"])
    found = found_loss(take_rows(next_input, last), batch["columns"], batch["shapes"], batch["counts"])
    asked = asked_loss(take_rows(layer_input, last), batch["asked"])
    return JointOutput(
        answer_loss, evidence_loss, visual_tokens, is_right.all(-1), evidence_mass, places, asked, found, named,
        chain, take_rows(values, last)
    )  # fmt: skip


def embed_prefix(
    model: PreTrainedModel, prefix_ids: torch.Tensor, visual_tokens: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the prefix [B, P, D] and where its visual tokens are, bool [P]."""
    size = len(visual_tokens[0])
    is_visual = prefix_ids == model.config.image_token_id
    text = model.get_input_embeddings()(prefix_ids).expand(size, -1, -1)
    visual = torch.cat(visual_tokens, dim=1)
    return text.masked_scatter(is_visual[None, :, None], visual), is_visual


def embed_blocks(model: PreTrainedModel, tokenizer, batch: dict[str, Any]) -> torch.Tensor:
    """Embeddings of the blocks [B, Q, T, D], with crops and inserted vectors."""
    ids = batch["ids"]
    table = model.get_input_embeddings()
    embeds = table(ids.clamp(min=0))
    is_visual = ids == model.config.image_token_id
    if batch["crops"] is not None:
        # a block without a crop holds nothing in its place, so only the crops of the others are put in
        has_crop = is_visual.any(-1).flatten()
        if bool(has_crop.any()):
            embeds = embeds.masked_scatter(is_visual[..., None], encode_images(model, batch["crops"][has_crop]))
    if "noise" in batch:
        newline = table.get_parameter("weight")[tokenizer.convert_tokens_to_ids("\n")].detach()
        vectors = inserted_vectors(newline, batch["noise"], batch["noise_scale"], batch["is_near"])
        embeds = torch.where((ids == INSERTED)[..., None], vectors[:, :, None], embeds)
    return embeds


def inserted_vectors(
    newline: torch.Tensor, noise: torch.Tensor, scale: torch.Tensor, is_near: torch.Tensor
) -> torch.Tensor:
    """Vectors that stand before answers, [B, Q, D]: random directions, or the newline's with a little of one.

    Args:
        newline: [D], its embedding. noise: [B, Q, D], normal. scale: [B, Q], length as a multiple of the newline's.
        is_near: bool [B, Q], near the newline.
    """
    direction = F.normalize(noise, dim=-1)
    near = F.normalize(F.normalize(newline, dim=-1) + 0.3 * direction, dim=-1)
    return torch.where(is_near[..., None], near, direction) * (scale * newline.norm())[..., None]


def packed_positions(prefix: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Rotary positions of packed sequences, int64 [3, B, P + Q * T]; prefix [3, P], blocks [B, Q, 3, T]."""
    size = len(blocks)
    behind = blocks.permute(2, 0, 1, 3).flatten(2) + prefix.max() + 1
    return torch.cat([prefix[:, None].expand(-1, size, -1), behind], dim=2)


def _mass(
    weights: torch.Tensor, evidence: torch.Tensor, crop_evidence: torch.Tensor, is_visual: torch.Tensor
) -> torch.Tensor:
    """Attention on the evidence, [B, Q], of weights [B, Q, P + Q * T]; the rest as in a batch of `JointStream`."""
    size, num_questions, length = crop_evidence.shape
    on_prefix = (weights[..., : len(is_visual)][..., is_visual] * evidence).sum(-1)
    own = weights[..., len(is_visual) :].view(size, num_questions, num_questions, length)
    own = own.diagonal(dim1=1, dim2=2).transpose(1, 2)  # of each question on its own block
    return on_prefix + (own * crop_evidence).sum(-1)
