"""Stages 2 and 3: the whole model on packed questions: answers, dense heads, and where attention is to look."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from gp.config.pretrain_cards import CardsPretrainConfig, JointStageConfig
from gp.data.worker_loader import WorkerLoader
from gp.embedded.cards.samples import SAMPLE_KINDS
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.cards_stage import CardsStage
from gp.embedded.making.growing.dense import DENSE_NAMES, DenseHeads
from gp.embedded.making.growing.images import encode_images
from gp.embedded.making.growing.joint_forward import joint_forward
from gp.embedded.making.growing.joint_stream import JointStream
from gp.embedded.making.growing.plans import PHASES_OF_STAGES, VALIDATION
from gp.embedded.making.growing.terms import carried_loss
from gp.embedded.making.growing.tower_stream import LARGE_BATCHES, TOWER_BATCHES, TowerStream
from gp.embedded.making.optim import MuonAdamW
from gp.training.schedule import lr_factor


class JointStage(CardsStage):
    """Trains the whole model. Every few batches are the tower's own, so that reading digits goes on improving.

    Args:
        base: the grown `Qwen2_5_VLForConditionalGeneration`. heads: of the tower stage. tokenizer: of the base.
        stage: of the settings, one of those behind the tower's.
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
            self.loss_of_step = loss.detach()
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
        self.loss_of_step = loss.detach()
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
    """Scenes and questions made on the fly; after a resume the stream goes on at the next step.

    `stage`: name of one of PHASES_OF_STAGES.
    """

    def __init__(self, cfg: CardsPretrainConfig, tokenizer, hidden_size: int, stage: str):
        super().__init__()
        self.stage_name, self.stage = stage, getattr(cfg, f"{stage}_stage")
        self.cfg, self.tokenizer, self.hidden_size = cfg, tokenizer, hidden_size

    def train_dataloader(self) -> DataLoader:
        cfg, stage = self.cfg, self.stage
        steps = range(self.trainer.global_step, stage.steps)
        seed = cfg.seed + 1 + list(PHASES_OF_STAGES).index(self.stage_name)
        builder = SceneBuilder("train", augment=True)
        late_from = round(stage.early_share * stage.steps)
        joint = JointStream(
            builder, self.tokenizer, steps, seed, noise_size=self.hidden_size, late_from=late_from,
            phases=PHASES_OF_STAGES[self.stage_name], large=stage.large_share
        )  # fmt: skip
        plans = (*TOWER_BATCHES, *LARGE_BATCHES) if self.stage_name != "joint" else TOWER_BATCHES
        tower = TowerStream(builder, steps, seed, plans)
        stream = _Mixed(joint, tower, steps, stage.tower_every)
        return WorkerLoader(stream, cfg.num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        builder, steps = SceneBuilder("val"), range(self.cfg.val_batches)
        return [
            DataLoader(JointStream(builder, self.tokenizer, steps, 0, only), batch_size=None) for only in VALIDATION
        ]
