"""Processes of one command: those that torchrun or SLURM started, and those that Lightning starts."""

from __future__ import annotations

import os
import threading
import time

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from gp.config import TrainerConfig

LOOK_EVERY_S = 0.5


def follow_launcher(settings: TrainerConfig) -> None:
    """Sets devices and machines to what torchrun or SLURM has started; without them nothing changes.

    A config that says one device would make each of several processes believe that it is alone.

    Args:
        settings: `devices` (their number per machine) and `num_nodes` are set.

    Raises:
        ValueError: tasks of SLURM that cannot be as many on each machine.
    """
    if TorchElasticEnvironment.detect():
        world, on_each = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        world, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", 1))
        on_each = world // nodes
    else:
        return
    if world % on_each:
        raise ValueError(f"{world} processes were started, {on_each} on this machine: expected as many on each machine")
    settings.devices, settings.num_nodes = on_each, world // on_each


def end_with_launcher(trainer: pl.Trainer) -> None:
    """Ends a process that Lightning started as soon as the first one is gone, however it went.

    The first one ends the others if one of them fails; nobody would end them after a SIGKILL of the first one, and
    they would go on beside those of the next command.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, LightningEnvironment) or environment.local_rank() == 0:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def own_environment() -> list[SLURMEnvironment] | None:
    """SLURM's without Lightning's own requeuing: a job is put back by SLURM or by its script, and goes on."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None


def leave() -> None:
    """Leaves the group of processes at the end of a command."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
