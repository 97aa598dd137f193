"""The LightningModule and the data of the pretraining: stage 1 vision tower, stage 2 joint."""

from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import ChainDataset, DataLoader

from gp.config.pretrain import PretrainConfig
from gp.data.worker_loader import WorkerLoader
from gp.embedded.making.joint_stage import joint_forward
from gp.embedded.making.model import build_model, build_tokenizer
from gp.embedded.making.optim import MuonAdamW
from gp.embedded.making.scene_stream import SceneStream
from gp.embedded.making.scenes import SceneBuilder
from gp.embedded.making.vision_stage import DenseHeads, encode_images
from gp.runs.checkpoint import refuse_other_shapes
from gp.runs.resuming import NOTE, SETTINGS
from gp.training.schedule import lr_factor

DENSE_NAMES = ("color", "shape", "left_digit", "right_digit")
VAL_KINDS = ("color", "conjunction")


class PretrainModule(pl.LightningModule):
    """A batch's `step` tells its stage: vision tower first, the whole model afterwards."""

    def __init__(self, cfg: PretrainConfig):
        super().__init__()
        self.cfg = cfg
        self.model = build_model(cfg)
        self.heads = DenseHeads(cfg.model.hidden_size)
        self.tokenizer = build_tokenizer()
        self.loss_of_step = torch.zeros(())  # for `FiniteNumbers`

    def check_checkpoint(self, checkpoint: dict, where: str | Path) -> None:
        """Refuses a base of other sizes (ValueError)."""
        refuse_other_shapes(checkpoint["state_dict"], self.state_dict(), where, "the sizes in the section model")

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds the settings, which a run that goes on is held to."""
        checkpoint[NOTE] = {SETTINGS: asdict(self.cfg)}

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Loss of one batch of `SceneStream`."""
        if batch["step"] < self.cfg.vision_stage.steps:
            loss, accuracies = self.heads(encode_images(self.model, batch["images"]), batch["targets"])
            scalars = {"loss": loss}
        else:
            stage = self.cfg.joint_stage
            out = joint_forward(self.model, self.tokenizer, batch, stage.evidence_layer)
            dense, accuracies = self.heads(out.visual_tokens, batch["targets"])
            loss = out.answer_loss + stage.evidence_weight * out.evidence_loss + stage.dense_weight * dense
            scalars = {"loss": loss, "loss_answer": out.answer_loss, "loss_evidence": out.evidence_loss,
                       "answer_accuracy": out.is_exact.float().mean()}  # fmt: skip
        scalars.update(zip(DENSE_NAMES, accuracies, strict=True))
        self.log_dict({f"train/{name}": value.detach() for name, value in scalars.items()}, batch_size=1)
        self.loss_of_step = loss.detach()
        return loss

    def validation_step(self, batch: dict, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Dense accuracies and, once stage 2 has begun, exact match of the answers (teacher forcing)."""
        kind, size = VAL_KINDS[dataloader_idx], len(batch["images"])
        # An answer whose every token is the argmax given the true ones before it is exactly the greedy answer.
        out = joint_forward(self.model, self.tokenizer, batch, self.cfg.joint_stage.evidence_layer)
        _, accuracies = self.heads(out.visual_tokens, batch["targets"])
        scalars = dict(zip(DENSE_NAMES, accuracies, strict=True))
        scalars["answer_accuracy"] = out.is_exact.float().mean()
        named = {f"val_{kind}/{name}": value for name, value in scalars.items()}
        self.log_dict(named, batch_size=size, add_dataloader_idx=False)

    def configure_optimizers(self) -> dict:
        cfg = self.cfg
        optimizer = MuonAdamW(self.named_parameters(), cfg.vision_stage.lr, cfg.weight_decay)
        factors = [self._lr_factor(group["is_vision"]) for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factors), "interval": "step"}}

    def _lr_factor(self, is_vision: bool):
        cfg, vision_steps = self.cfg, self.cfg.vision_stage.steps
        joint_scale = cfg.joint_stage.lr / cfg.vision_stage.lr
        joint_scale *= cfg.joint_stage.vision_lr_factor if is_vision else 1.0

        def factor(step: int) -> float:
            if step < vision_steps:
                return lr_factor(step, vision_steps, cfg.warmup_steps, cfg.min_lr_factor)
            stage = (step - vision_steps, cfg.joint_stage.steps, cfg.warmup_steps, cfg.min_lr_factor)
            return joint_scale * lr_factor(*stage)

        return factor


class PretrainData(pl.LightningDataModule):
    """Scenes made on the fly; after a resume the stream goes on at the next step."""

    def __init__(self, cfg: PretrainConfig):
        super().__init__()
        self.cfg = cfg
        self.tokenizer = build_tokenizer()

    def train_dataloader(self) -> DataLoader:
        cfg = self.cfg
        start, end_vision = self.trainer.global_step, cfg.vision_stage.steps
        builder = SceneBuilder("train", augment=True)
        vision = SceneStream(
            builder, self.tokenizer, range(start, end_vision), cfg.vision_stage.batch_size, cfg.seed, None
        )
        joint = SceneStream(
            builder,
            self.tokenizer,
            range(max(start, end_vision), end_vision + cfg.joint_stage.steps),
            cfg.joint_stage.batch_size,
            cfg.seed,
            cfg.joint_stage.conjunction_share,
            cfg.joint_stage.questions_per_scene,
        )
        stream = ChainDataset([vision, joint])
        return WorkerLoader(stream, cfg.num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        builder = SceneBuilder("val")
        size = min(32, self.cfg.val_scenes)
        steps = range(self.cfg.val_scenes // size)
        questions = self.cfg.joint_stage.questions_per_scene
        streams = [SceneStream(builder, self.tokenizer, steps, size, 0, share, questions) for share in (0.0, 1.0)]
        return [DataLoader(stream, batch_size=None) for stream in streams]
