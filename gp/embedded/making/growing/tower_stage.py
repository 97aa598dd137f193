"""Stage 1: the vision tower alone, with dense heads on every visual token."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from gp.config.pretrain_cards import CardsPretrainConfig
from gp.data.worker_loader import WorkerLoader
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.cards_stage import CardsStage
from gp.embedded.making.growing.dense import DENSE_NAMES, DenseHeads
from gp.embedded.making.growing.images import encode_images
from gp.embedded.making.growing.tower_stream import VAL_BATCHES, TowerStream
from gp.embedded.making.optim import MuonAdamW
from gp.training.schedule import lr_factor


class TowerStage(CardsStage):
    """Trains `base.model.visual` in place, and heads that the joint stage goes on with.

    Args:
        base: `Qwen2_5_VLForConditionalGeneration`; its language model is not run.
    """

    def __init__(self, cfg: CardsPretrainConfig, base: PreTrainedModel):
        super().__init__(cfg)
        self.visual: nn.Module = base.model.visual
        self.heads = DenseHeads(base.config.text_config.hidden_size)
        self._base = (base,)  # in a tuple: not a submodule, so a checkpoint holds what is trained

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Loss of one batch of `TowerStream`."""
        with torch.set_grad_enabled(not self.cfg.tower_stage.heads_only):
            tokens = encode_images(self._base[0], batch["images"])
        loss, accuracies = self.heads(tokens, batch["targets"])
        self.loss_of_step = loss.detach()
        self.log("train/loss", self.loss_of_step, batch_size=1)
        self.log_dict({f"train/{n}": a for n, a in zip(DENSE_NAMES, accuracies, strict=True)}, batch_size=1)
        return loss

    def validation_step(self, batch: dict, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracies of the heads on one kind of validation batch."""
        _, accuracies = self.heads(encode_images(self._base[0], batch["images"]), batch["targets"])
        plan = VAL_BATCHES[dataloader_idx]
        name = f"val/{plan.rows}x{plan.columns}" + ("_copy" if plan.num_copies else "")
        named = {f"{name}/{n}": a for n, a in zip(DENSE_NAMES, accuracies, strict=True)}
        self.log_dict(named, batch_size=len(batch["images"]), add_dataloader_idx=False)

    def configure_optimizers(self) -> dict:
        cfg, stage = self.cfg, self.cfg.tower_stage
        optimizer = MuonAdamW(self.named_parameters(prefix="stage"), stage.lr, cfg.weight_decay)

        def factor(step: int) -> float:
            return lr_factor(step, stage.steps, cfg.warmup_steps, cfg.min_lr_factor)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


class TowerData(pl.LightningDataModule):
    """Dense scenes made on the fly; after a resume the stream goes on at the next step."""

    def __init__(self, cfg: CardsPretrainConfig):
        super().__init__()
        self.cfg = cfg

    def train_dataloader(self) -> DataLoader:
        steps = range(self.trainer.global_step, self.cfg.tower_stage.steps)
        stream = TowerStream(SceneBuilder("train", augment=True), steps, self.cfg.seed)
        return WorkerLoader(stream, self.cfg.num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        builder = SceneBuilder("val")
        steps = range(self.cfg.val_batches)
        return [DataLoader(TowerStream(builder, steps, 0, (plan,)), batch_size=None) for plan in VAL_BATCHES]
