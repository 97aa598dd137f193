"""What all stages share: their checkpoints state the settings, and are held to their shapes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from gp.config.pretrain_cards import CardsPretrainConfig
from gp.runs.checkpoint import refuse_other_shapes
from gp.runs.resuming import NOTE, SETTINGS


class CardsStage(pl.LightningModule):
    """A stage of the pretraining on cards.

    Attributes:
        loss_of_step: of the last step, for `FiniteNumbers`.
    """

    def __init__(self, cfg: CardsPretrainConfig):
        super().__init__()
        self.cfg = cfg
        self.loss_of_step = torch.zeros(())

    def check_checkpoint(self, checkpoint: dict[str, Any], where: str | Path) -> None:
        """Refuses weights of other names or shapes (ValueError)."""
        refuse_other_shapes(checkpoint["state_dict"], self.state_dict(), where, "the base that init names")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the settings, which a run that goes on is held to."""
        checkpoint[NOTE] = {SETTINGS: asdict(self.cfg)}
