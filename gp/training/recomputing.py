"""Whether the layers of glimpse and answer run a second time in the backward pass: memory against time."""

from __future__ import annotations

import math

import torch

from gp.backbones import Backbone
from gp.data.batch import Batch
from gp.engine.teacher_forcing import kept_bytes
from gp.measure.machine import GIB, memory_gib

SHARE = 1 / 4  # of the free memory that keys and values may take; the rest of a step's bill needs room, too


def recomputes(setting: str, backbone: Backbone, batch: Batch) -> bool:
    """What `trainer.recompute` means for a batch.

    Args:
        setting: `always`, `never`, or `auto`: unless there is room for what the layers would hold.
        backbone: on its device.
        batch: the micro-batch.
    """
    if setting != "auto":
        return setting == "always"
    rows, length = batch.sent["input_ids"].shape
    return kept_bytes(backbone, rows, length + batch.answer_ids.shape[1] + 1) > SHARE * free_bytes(backbone.device)


def free_bytes(device: torch.device) -> float:
    """Memory that a step can still take; infinite where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    available = memory_gib()[1]
    return math.inf if available is None else available * GIB
