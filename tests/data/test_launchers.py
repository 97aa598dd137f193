"""Two processes with two workers each, however both are started: every sample exactly once."""

from __future__ import annotations

import json
import os
import socket
import warnings
from itertools import chain

import lightning as L
import pytest
import torch

from gp.config.schema import DataConfig
from gp.data.datamodule import GlimpseDataModule
from tests.support.killing import start, wait
from tests.support.light_collator import LightCollator
from tests.support.small_shards import add_manifest, number_of, write_shards

SIZES = [9, 3, 12]
TOTAL = sum(SIZES)
STEPS = TOTAL // 2


class Recorder(L.LightningModule):
    """Writes down the samples that it is trained on and those that it is validated on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained += [number_of(sample) for sample in batch.samples]
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated += [number_of(sample) for sample in batch.samples]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    add_manifest(write_shards(root, SIZES), SIZES)
    return root


def fit(folder, out, environment: dict[str, str], start_method: str | None, validate: bool, **options) -> None:
    """One rank of two (with `ddp_fork`: both)."""
    os.environ.update(environment)
    config = DataConfig(
        root=str(folder),
        train=["s*.tar"],
        val=["s*.tar"],
        test={},
        eval_batch_size=5,
        num_workers=2,
        worker_start_method=start_method,
        shuffle_buffer=4,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        val_check_interval=STEPS,
        check_val_every_n_epoch=None,
        limit_val_batches=None if validate else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[WriteDown(out)],
        default_root_dir=out,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Recorder(), datamodule=GlimpseDataModule(config, LightCollator(), seed=3))


class WriteDown(L.Callback):
    def __init__(self, out):
        self.out = out

    def on_fit_end(self, trainer, module):
        seen = {"world": trainer.world_size, "trained": module.trained, "validated": module.validated}
        (self.out / f"{trainer.global_rank}.json").write_text(json.dumps(seen))


def check(out, validated: bool) -> None:
    ranks = [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert [len(rank["trained"]) for rank in ranks] == [STEPS, STEPS]
    assert sorted(chain(*(rank["trained"] for rank in ranks))) == list(range(TOTAL))
    if validated:
        assert sorted(chain(*(rank["validated"] for rank in ranks))) == list(range(TOTAL))


@pytest.mark.parametrize(
    ("start_method", "validate"),
    [
        ("fork", True),
        ("spawn", False),  # half as many processes to start
        pytest.param("spawn", True, marks=pytest.mark.slow),
        pytest.param("forkserver", True, marks=pytest.mark.slow),
    ],
)
def test_start_methods_of_workers(folder, tmp_path, start_method, validate):
    process = start(fit, folder, tmp_path, {}, start_method, validate, strategy="ddp_fork", devices=2)
    assert wait(process) == 0
    check(tmp_path, validate)


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def torchrun(rank: int, port: str) -> dict[str, str]:
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    return {**there, **ranks, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def slurm(rank: int, port: str) -> dict[str, str]:
    """One task on each of two nodes."""
    job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "test", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "2"}
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"}
    return {**job, **tasks, "SLURM_NODEID": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


@pytest.mark.parametrize(("launcher", "devices", "num_nodes"), [(torchrun, 2, 1), (slurm, 1, 2)])
def test_launchers(folder, tmp_path, launcher, devices, num_nodes):
    free = port()
    options = {"strategy": "ddp", "devices": devices, "num_nodes": num_nodes}
    ranks = [start(fit, folder, tmp_path, launcher(rank, free), None, True, **options) for rank in range(2)]
    assert [wait(rank) for rank in ranks] == [0, 0]
    check(tmp_path, True)
