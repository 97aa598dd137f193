"""Every metric computed by two processes with unequal shares equals one process that saw everything."""

from __future__ import annotations

import multiprocessing
import random
from functools import partial

import torch
import torch.distributed as dist

from gp.metrics import (
    SCORERS,
    AnswerScorers,
    AnswerScores,
    Calibration,
    EvidenceRecall,
    KeepRatio,
    MaskScores,
    MeanMaskIoU,
    MeanShares,
    calibration_counts,
    mask_counts,
)

WORLD = 2
WORDS = ("red", "Red.", "blue", "the blue", "4 7")


def data(count: int = 23) -> list[dict]:
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    samples = []
    for _ in range(count):
        size = rng.randint(1, 30)
        keep, evidence = torch.rand(2, size, generator=generator) > 0.6
        texts = [[rng.choice(WORDS)] for _ in range(3)]
        counts = torch.tensor([int(keep.sum())]), torch.tensor([size])
        masks = (mask_counts(keep, evidence),)
        predicted = (calibration_counts(torch.rand(size, generator=generator), evidence),)
        shares = (torch.tensor([[rng.random(), 1 / 3]], dtype=torch.double),)
        pairs = texts[:2]
        samples.append({"pairs": pairs, "masks": masks, "counts": counts, "texts": texts, "shares": shares})
        samples[-1]["predicted"] = predicted
    return samples


def measured(samples: list[dict]) -> dict[str, list[float]]:
    updates: dict = {MaskScores: "masks", EvidenceRecall: "masks", KeepRatio: "counts", AnswerScores: "texts"}
    updates[Calibration] = "predicted"
    updates[MeanMaskIoU] = "masks"
    updates[partial(MeanShares, ("one", "third"))] = "shares"
    updates[partial(AnswerScorers, tuple(SCORERS))] = "pairs"
    results = {}
    for number, (make, part) in enumerate(updates.items()):
        metric = make()
        for sample in samples:
            metric.update(*sample[part])
        value = metric.compute()
        values = value if isinstance(value, dict) else {"value": value}
        results |= {f"{number}.{part}.{name}": v.double().reshape(-1).tolist() for name, v in values.items()}
    return results


def run_rank(rank: int, store: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    share = data()[:5] if rank == 0 else data()[5:]
    results.put((rank, measured(share)))
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=run_rank, args=(rank, str(tmp_path / "store"), results)) for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    of_rank = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    expected = measured(data())
    assert len(expected) == 4 + 1 + 4 + 5 + 2 + 4 + len(SCORERS) + 1
    for rank in range(WORLD):
        assert of_rank[rank] == expected  # to the last bit
