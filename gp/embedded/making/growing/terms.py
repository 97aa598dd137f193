"""Extra terms of the joint stages: what tokens tell of what they know, and where attention is to look.

Most read a token along fixed random directions, so that no weights are trained that would be thrown away.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from gp.backbones.attention import read_attention
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.embedded.cards.questions import MAX_COUNT
from gp.embedded.making.growing.blocks import IGNORE
from gp.embedded.making.growing.joint_stream import ATTRIBUTES
from gp.embedded.making.growing.packing import Grid

PLACE_MIDDLE, PLACE_SCALE = 8.0, 5.0  # of rows and columns of visual tokens, as last prompt tokens tell them
# Visual tokens tell them louder: beside the rest of what a token holds, attention would hardly carry a faint number.
TOKEN_PLACE_SCALE = 2.0
COUNT_MIDDLE = 2.5
NUM_LINKS = MAX_COUNT - 1  # layers before that of the evidence in which cards of a colour are counted
MARK_BIAS = 3.0  # few visual tokens stand for a card


def found_loss(hidden: torch.Tensor, columns: torch.Tensor, shapes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """What last prompt tokens tell, along fixed directions, of the cards that they have just looked at.

    Squared error of the columns of both cards of a question for their sides, and cross-entropy of the shapes that the
    cards of a question for one have, and of how many there are. The answer is a comparison of these, which a layer or
    two can learn.

    Args:
        hidden: [B, Q, D], behind the layer whose attention finds the evidence. columns: [B, Q, 2] and shapes [B, Q, 3],
            see `JointStream`, nan where nothing is to be told. counts: int64 [B, Q], -100 there.
    """
    width, slots = hidden.shape[-1], columns.shape[-1] + shapes.shape[-1]
    directions = torch.randn(width, slots, generator=torch.Generator().manual_seed(2)) / width**0.5
    normed = F.rms_norm(hidden, (width,))
    told = normed @ directions
    where, what = told.split([columns.shape[-1], shapes.shape[-1]], dim=-1)
    has_columns, has_shapes = ~columns.isnan(), ~shapes.isnan()
    error = (where - (columns - PLACE_MIDDLE) / PLACE_SCALE)[has_columns].square().sum()
    error = error + F.binary_cross_entropy_with_logits(what[has_shapes], shapes[has_shapes], reduction="sum")
    per_count = torch.randn(width, MAX_COUNT, generator=torch.Generator().manual_seed(4)) / width**0.5
    classes = counts.where(counts == IGNORE, counts - 1)
    error = error + F.cross_entropy((normed @ per_count).flatten(0, 1), classes.flatten(), reduction="sum")
    return error / (has_columns.sum() + has_shapes.sum() + (counts != IGNORE).sum()).clamp(min=1)


def asked_loss(hidden: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the words that last prompt tokens tell to have been asked, along fixed directions.

    Attention can find a card by a word only once the word has come to the token that looks for it. Colours and shapes
    come by themselves; digits had not after 2,000 steps.

    Args:
        hidden: [B, Q, D], last prompt tokens inside the decoder. asked: int64 [B, Q, MAX_ASKED], see `JointStream`.
    """
    width, (slots, words) = hidden.shape[-1], (asked.shape[-1], len(ATTRIBUTES))
    directions = torch.randn(width, slots * words, generator=torch.Generator().manual_seed(1)) / width**0.5
    logits = (F.rms_norm(hidden, (width,)) @ directions).unflatten(-1, (slots, words))
    return F.cross_entropy(logits.flatten(0, 2), asked.flatten(), ignore_index=IGNORE)


def words_loss(weights: torch.Tensor, words: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """-log of the attention of last prompt tokens on the words asked for, one half of the heads on each of the two.

    So both come to that token by different heads, and it knows which is the left digit or the card whose side is asked.

    Args:
        weights: [B, A, Q, L]. words: int64 [B, Q, 2], see `JointStream`. starts: int64 [Q], of the blocks.
    """
    has_words = words[..., 0] != IGNORE
    if not bool(has_words.any()):
        return weights.new_zeros(())
    halves = torch.stack([heads.mean(1) for heads in weights.chunk(2, dim=1)], dim=2)  # [B, Q, 2, L]
    at = (words.clamp(min=0) + starts[:, None])[..., None]
    return -halves.gather(-1, at)[..., 0][has_words].clamp(min=1e-6).log().mean()


def carried_loss(
    values: torch.Tensor, heads: nn.Module, num_heads: int, columns: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """What the values that attention has gathered tell, before they are projected.

    Columns of the two cards of a question for their sides, each by its half of the heads; of a question for how many,
    their number by the other half. A term behind the projection alone is at a saddle at first: values do not hold what
    the projection does not read, and the other way round.

    Args:
        values: [B, Q, D], input of the attention's output projection.
        heads: linear, from the width of an attention head to 2; thrown away at the end. num_heads: of attention.
        columns, counts: see `JointStream`.
    """
    halves = values.unflatten(-1, (2, num_heads // 2, -1))  # [B, Q, 2, heads, width of a head]
    told = heads(halves)
    where = (told[..., 0] - ((columns - PLACE_MIDDLE) / PLACE_SCALE)[..., None])[~columns.isnan()]
    is_count = counts != IGNORE
    left = told[:, :, 1, :, 1][is_count] - (counts[is_count] - COUNT_MIDDLE)[..., None]
    error = where.square().mean(-1).sum() + left.square().mean(-1).sum()
    return error / (len(where) + len(left) or 1)


def chain_loss(
    model: PreTrainedModel,
    first_layer: int,
    inputs: Sequence[torch.Tensor],
    rotary: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
    is_visual: torch.Tensor,
    chains: torch.Tensor,
) -> torch.Tensor:
    """Pulls tokens that stand for cards to count the cards of their colour, one link in each of NUM_LINKS layers.

    Softmax adds up to 1, so it cannot count by itself; but it can tell whether there is an earlier card of that colour
    that is the second one or a further one, and so on. In link i, from 1, half of the heads look at earlier cards of
    that colour that are number i or more, or at the prompt's first token if there are none (-log of the attention
    there). Behind it a token tells along fixed directions which of its colour it is, i + 1 standing for all further
    ones (cross-entropy). Rare numbers weigh as much as others, or all would look at the first token.

    Args:
        first_layer: decoder layer, from 0. inputs: [B, L, D] of each of these layers and of the one behind them.
        rotary, mask: of the whole sequence. is_visual: bool [P]. chains: see `JointStream`.
    """
    marks, colors, ordinals = chains.unbind(-1)
    is_earlier = (colors[:, :, None] == colors[:, None]) & (ordinals[:, :, None] > ordinals[:, None])
    if not bool((ordinals > 1).any()):
        return inputs[0].new_zeros(())
    rows = is_visual.nonzero().flatten()[marks.clamp(min=0)]
    width = inputs[0].shape[-1]
    directions = torch.randn(width, MAX_COUNT, generator=torch.Generator().manual_seed(6)) / width**0.5
    losses = []
    for link, (hidden, behind) in enumerate(itertools.pairwise(inputs), start=1):
        weights = attention_rows(model, first_layer + link - 1, hidden, rotary, rows, mask)
        heads = weights[:, weights.shape[1] // 2 :]
        on_cards = heads.gather(-1, rows[:, None, None].expand(-1, heads.shape[1], rows.shape[1], -1))
        wanted = is_earlier & (ordinals[:, None] >= link)
        finds = wanted.any(-1)
        attention = torch.where(finds[:, None], (on_cards * wanted[:, None]).sum(-1), heads[..., 0])
        looked = -attention.clamp(min=1e-30).log().mean(1)
        logits = F.rms_norm(take_rows(behind, rows), (width,)) @ directions
        numbers = ordinals.clamp(min=1, max=link + 1) - 1
        told = F.cross_entropy(logits.transpose(1, 2), numbers, reduction="none")
        is_card = ordinals != IGNORE
        losses.append(_balanced(looked, [finds, ~finds & is_card]))
        losses.append(_balanced(told, [(numbers == number) & is_card for number in range(link + 1)]))
    return 2 * torch.stack(losses).mean()


def _balanced(losses: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over the groups that have members of the mean over each of them; rare ones weigh as much as others."""
    return torch.stack([losses[group].mean() for group in groups if bool(group.any())]).mean()


def place_loss(hidden: torch.Tensor, grids: Sequence[Grid], marks: torch.Tensor) -> torch.Tensor:
    """Squared error of rows and columns that visual tokens tell, and cross-entropy of whether they stand for a card.

    All are read off along fixed directions.

    The tower and the decoder know only how far apart tokens are. Which card is the left one is learned late or never
    unless tokens carry where they are; fixed directions need no weights that would be thrown away.

    Args:
        hidden: [B, V, D], visual tokens inside the decoder. grids: of their images, in order.
        marks: bool [B, V], see `JointStream`.
    """
    width = hidden.shape[-1]
    directions = torch.randn(width, 2, generator=torch.Generator().manual_seed(0)) / width**0.5
    mark = torch.randn(width, generator=torch.Generator().manual_seed(3)) / width**0.5
    normed = F.rms_norm(hidden, (width,))
    told = normed @ directions
    marked = F.binary_cross_entropy_with_logits(normed @ mark - MARK_BIAS, marks.to(normed.dtype))
    places = [
        torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1).flatten(0, 1)
        for rows, columns in grids
    ]
    return (told - (torch.cat(places) - PLACE_MIDDLE) / TOKEN_PLACE_SCALE).square().mean() + marked


def attention_rows(
    model: PreTrainedModel,
    layer: int,
    hidden: torch.Tensor,
    rotary: tuple[torch.Tensor, torch.Tensor],
    rows: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Attention weights of a few query rows of a decoder layer, [B, A, R, L].

    Args:
        hidden: [B, L, D], the layer's input. rotary: cosine and sine of its rows.
        rows: int64 [B, R]. mask: bool [B, 1, L, L].
    """
    backbone = Qwen2_5_VL(model)
    batch, length, _ = hidden.shape
    cos, sin = (take_rows(part.expand(batch, -1, -1), rows) for part in rotary)
    queries = backbone.query(layer, take_rows(hidden, rows), (cos, sin))
    logits = read_attention(queries, backbone.key(layer, hidden, rotary), visible=None, log_softmax=False)
    row_mask = mask[:, 0].gather(1, rows[..., None].expand(-1, -1, length))
    return logits.masked_fill(~row_mask[:, None], float("-inf")).softmax(-1)


def take_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a sequence: x [B, L, D], rows [B, R] -> [B, R, D]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
