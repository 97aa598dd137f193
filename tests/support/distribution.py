"""A package that brings a pruning method and a backbone, as pip would install it: a module and its metadata."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import torch
from gp.backbones.qwen2_5_vl import Qwen2_5_VL
from gp.pruners import RankingPruner


class FromTheLeft(RankingPruner):
    """The first tokens of each image, or the last."""

    name = "from_the_left"
    stages = (-1,)

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.last = last

    @classmethod
    def for_model(cls, backbone, prune_layer, last: bool = False):
        return cls(last)

    def scores(self, view):
        order = torch.arange(view.layout.num_tokens, device=view.prompt.hidden.device).float()
        return order if self.last else -order


class Broken:
    pass


class Other(Qwen2_5_VL):
    model_type = "other_vl"
'''
ENTRY_POINTS = """
[gp.pruners]
from_the_left = brings_methods:FromTheLeft
broken = brings_methods:Broken
missing = brings_nothing:At.All

[gp.backbones]
other_vl = brings_methods:Other
"""


def write_distribution(folder: Path) -> Path:
    """Writes it into a folder that is put on `sys.path` (or `PYTHONPATH`); returns the folder."""
    info = folder / "brings_methods-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "brings_methods.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder
