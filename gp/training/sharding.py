"""`trainer.strategy=fsdp2`: the frozen base in shards over all processes (FSDP2), the trained parts whole in each.

What learns is small, so it is replicated and synchronised as by DDP: losses, optimizer, checkpoints and resuming are
those of any other run. Lightning's `ModelParallelStrategy` would shard what learns, too, and write the whole base into
each checkpoint.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.distributed.device_mesh import init_device_mesh

from gp.backbones.sharded import shard
from gp.config.schema import FSDP2


class ShardedBase(DDPStrategy):
    """DDP around a module whose `model.base` is sharded before anything is moved to the device."""

    def setup(self, trainer: Any) -> None:
        module: Any = self.lightning_module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        shard(module.model.backbone.model, mesh)
        super().setup(trainer)


def strategy_of(name: str) -> str | Strategy:
    """What Lightning is given for `trainer.strategy`."""
    return ShardedBase() if name == FSDP2 else name
