"""Stages 2 and 3: the whole model on packed questions: answers, dense heads, and where attention is to look."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from gp.backbones.attention import read_attention
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.backbones.recording import record_calls
from gp.config.pretrain_cards import CardsPretrainConfig, JointStageConfig
from gp.embedded.cards.questions import MAX_COUNT
from gp.embedded.cards.samples import SAMPLE_KINDS
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.blocks import IGNORE, INSERTED
from gp.embedded.making.growing.cards_stage import CardsStage
from gp.embedded.making.growing.dense import DENSE_NAMES, DenseHeads
from gp.embedded.making.growing.images import encode_images
from gp.embedded.making.growing.joint_stream import ATTRIBUTES, JointStream
from gp.embedded.making.growing.packing import HEADER, Grid, packed_mask, prefix_positions, prefix_text
from gp.embedded.making.growing.plans import VALIDATION
from gp.embedded.making.growing.tower_stream import LARGE_BATCHES, TOWER_BATCHES, TowerStream
from gp.embedded.making.optim import MuonAdamW
from gp.training.schedule import lr_factor

PLACE_MIDDLE, PLACE_SCALE = 8.0, 5.0  # of rows and columns of visual tokens, as last prompt tokens tell them
# Visual tokens tell them louder: beside the rest of what a token holds, attention would hardly carry a faint number.
TOKEN_PLACE_SCALE = 2.0
COUNT_MIDDLE = 2.5
NUM_LINKS = MAX_COUNT - 1  # layers before that of the evidence in which cards of a colour are counted
MARK_BIAS = 3.0  # few visual tokens stand for a card


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
    found = found_loss(_take(next_input, last), batch["columns"], batch["shapes"], batch["counts"])
    asked = asked_loss(_take(layer_input, last), batch["asked"])
    return JointOutput(
        answer_loss, evidence_loss, visual_tokens, is_right.all(-1), evidence_mass, places, asked, found, named,
        chain, _take(values, last)
    )  # fmt: skip


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
    ones (cross-entropy). Cards that find one and those that find none weigh alike, or all would look at the first
    token.

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
        logits = F.rms_norm(_take(behind, rows), (width,)) @ directions
        numbers = ordinals.clamp(min=1, max=link + 1) - 1
        told = F.cross_entropy(logits.transpose(1, 2), numbers, reduction="none")
        groups = (finds, ~finds & (ordinals != IGNORE))
        losses += [(looked + told)[group].mean() for group in groups if bool(group.any())]
    return torch.stack(losses).mean()


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
    cos, sin = (_take(part.expand(batch, -1, -1), rows) for part in rotary)
    queries = backbone.query(layer, _take(hidden, rows), (cos, sin))
    logits = read_attention(queries, backbone.key(layer, hidden, rotary), visible=None, log_softmax=False)
    row_mask = mask[:, 0].gather(1, rows[..., None].expand(-1, -1, length))
    return logits.masked_fill(~row_mask[:, None], float("-inf")).softmax(-1)


def _take(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """x [B, L, D], rows [B, R] -> [B, R, D]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


class JointStage(CardsStage):
    """Trains the whole model. Every few batches are the tower's own, so that reading digits goes on improving.

    Args:
        base: the grown `Qwen2_5_VLForConditionalGeneration`. heads: of the tower stage. tokenizer: of the base.
        stage: the joint or the final one.
    """

    def __init__(
        self, cfg: CardsPretrainConfig, base: PreTrainedModel, heads: DenseHeads, tokenizer, stage: JointStageConfig
    ):
        super().__init__(cfg)
        self.stage = stage
        self.num_heads = base.config.text_config.num_attention_heads
        self.value_heads = nn.Linear(base.config.text_config.hidden_size // self.num_heads, 2)
        self.model, self.heads, self.tokenizer = base, heads, tokenizer

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Loss of one batch of `JointStream`, or of `TowerStream`."""
        stage = self.stage
        if "ids" not in batch:
            loss, accuracies = self.heads(encode_images(self.model, batch["images"]), batch["targets"])
            self.log_dict({f"train/{n}": a for n, a in zip(DENSE_NAMES, accuracies, strict=True)}, batch_size=1)
            return loss
        out = joint_forward(self.model, self.tokenizer, batch, stage.evidence_layer)
        dense = [self.heads(*pair)[0] for pair in zip(out.visual_tokens, batch["targets"], strict=True)]
        loss = out.answer_loss + stage.dense_weight * torch.stack(dense).mean()
        loss = loss + stage.place_weight * out.place_loss + stage.asked_weight * out.asked_loss
        carried = carried_loss(out.values, self.value_heads, self.num_heads, batch["columns"], batch["counts"])
        loss = loss + stage.found_weight * (out.found_loss + carried) + stage.words_weight * out.words_loss
        loss = loss + stage.chain_weight * out.chain_loss
        if self.global_step < stage.evidence_share * stage.steps:
            loss = loss + stage.evidence_weight * out.evidence_loss
        scalars = {"loss_answer": out.answer_loss, "loss_evidence": out.evidence_loss, "exact": out.is_exact,
                   "loss_place": out.place_loss, "loss_asked": out.asked_loss,
                   "loss_found": out.found_loss, "loss_chain": out.chain_loss}  # fmt: skip
        kind = SAMPLE_KINDS[int(batch["kinds"][0, 0])]
        scalars[f"exact_{kind}"] = out.is_exact
        if kind in ("side", "color_of"):
            scalars[f"words_{kind}"] = out.words_loss
            scalars[f"asked_{kind}"] = out.asked_loss
            scalars[f"evidence_{kind}"] = out.evidence_loss
        if kind in ("side", "exists", "count"):
            scalars[f"found_{kind}"] = out.found_loss
            scalars[f"carried_{kind}"] = carried
        self.log_dict({f"train/{name}": value.detach().float().mean() for name, value in scalars.items()}, batch_size=1)
        return loss

    def validation_step(self, batch: dict, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Exact match by size and kind (teacher forcing) and the dense heads' digits."""
        setting, plan = VALIDATION[dataloader_idx]
        size = f"{plan.grids[0][0]}x{plan.grids[0][1]}"
        # An answer whose every token is the argmax given the true ones before it is exactly the greedy answer.
        out = joint_forward(self.model, self.tokenizer, batch, self.stage.evidence_layer)
        for index, kind in enumerate(SAMPLE_KINDS):
            for name, flag in ((kind, False), (f"{kind}_halftone", True)):
                of_kind = (batch["kinds"] == index) & (batch["is_halftone"] == flag)
                if kind not in ("zoom", "glance"):
                    of_kind = (batch["kinds"] == index) & (not flag)
                if bool(of_kind.any()):
                    value = out.is_exact[of_kind].float().mean()
                    self._log(f"{size}/{name}", value, int(of_kind.sum()))
        self._log(f"{size}/{setting}/mass", out.evidence_mass.mean(), out.evidence_mass.numel())
        _, accuracies = self.heads(out.visual_tokens[0], batch["targets"][0])
        self._log(f"{size}/{setting}/digits", accuracies[2:].mean(), 1)

    def _log(self, name: str, value: torch.Tensor, count: int) -> None:
        self.log(f"val/{name}", value, batch_size=count, add_dataloader_idx=False)

    def configure_optimizers(self) -> dict:
        cfg, stage = self.cfg, self.stage
        optimizer = MuonAdamW(self.named_parameters(), stage.lr, cfg.weight_decay)

        def factor(step: int) -> float:
            return lr_factor(step, stage.steps, cfg.warmup_steps, cfg.min_lr_factor)

        def vision_factor(step: int) -> float:
            return stage.vision_lr_factor * factor(step)

        factors: list[Any] = [vision_factor if group["is_vision"] else factor for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factors), "interval": "step"}}


class _Mixed(torch.utils.data.IterableDataset):
    """Batches of the joint stream, every `every`-th of the tower's; batch `i` depends on `i` only."""

    def __init__(self, joint: JointStream, tower: TowerStream, steps: range, every: int):
        super().__init__()
        self.joint, self.tower, self.steps, self.every = joint, tower, steps, every

    def __iter__(self):
        for step in self.steps:
            is_tower = self.every and step % self.every == self.every - 1
            yield (self.tower if is_tower else self.joint).batch(step)


class JointData(pl.LightningDataModule):
    """Scenes and questions made on the fly; after a resume the stream goes on at the next step."""

    def __init__(self, cfg: CardsPretrainConfig, tokenizer, hidden_size: int, stage: JointStageConfig):
        super().__init__()
        self.stage, self.is_final = stage, stage is cfg.final_stage
        self.cfg, self.tokenizer, self.hidden_size = cfg, tokenizer, hidden_size

    def train_dataloader(self) -> DataLoader:
        cfg, stage = self.cfg, self.stage
        steps = range(self.trainer.global_step, stage.steps)
        seed = cfg.seed + 1 + int(self.is_final)
        builder = SceneBuilder("train", augment=True)
        late_from = round(stage.early_share * stage.steps)
        joint = JointStream(
            builder, self.tokenizer, steps, seed, noise_size=self.hidden_size, late_from=late_from,
            is_final=self.is_final, large=stage.large_share
        )  # fmt: skip
        plans = (*TOWER_BATCHES, *LARGE_BATCHES) if self.is_final else TOWER_BATCHES
        tower = TowerStream(builder, steps, seed, plans)
        stream = _Mixed(joint, tower, steps, stage.tower_every)
        return DataLoader(stream, batch_size=None, num_workers=cfg.num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        builder, steps = SceneBuilder("val"), range(self.cfg.val_batches)
        return [
            DataLoader(JointStream(builder, self.tokenizer, steps, 0, only), batch_size=None) for only in VALIDATION
        ]
