"""Bookmark in the training data: where every stream goes on after the last batch that was trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from gp.data.position import Position, deal_again, first_positions, from_lists, to_lists

log = logging.getLogger(__name__)
SAMPLES = "number of samples (from manifests)"


@dataclass
class Bookmark:
    """Positions of one rank's streams, one per worker. Batches that were only read ahead do not move it.

    Args:
        order: name -> value of everything that the sample order depends on, except the numbers of ranks and workers.
        positions: after the last batch that was trained on, by worker.
        next_worker: the one whose batch comes next.
        current: position after the batch that is being trained on, and the number of batches finished before it.
    """

    order: dict[str, Any]
    positions: list[Position]
    next_worker: int = 0
    current: tuple[Position, int] | None = None

    @classmethod
    def open(cls, saved: dict[str, Any], order: dict[str, Any], rank: int, world: int, workers: int) -> Bookmark:
        """Opens a rank's data where a checkpoint stopped, or at the beginning.

        Args:
            saved: a `state_dict`; empty: a new run.
            order: as above, of this run.
            rank: 0 .. world - 1.
            world: number of ranks.
            workers: streams per rank.

        Raises:
            ValueError: the checkpoint was made with another order; the message names what differs.
        """
        num_streams = workers * world
        if not saved:
            return cls(order, first_positions(num_streams)[rank::world])
        check_same_order(saved["order"], order)
        positions = from_lists(saved["streams"])
        if (saved["world"], len(positions)) == (world, num_streams):
            return cls(order, positions[rank::world], saved["next_worker"])
        log.info("resuming %d data streams as %d: what is left is dealt again", len(positions), num_streams)
        return cls(order, deal_again(positions, num_streams, order[SAMPLES])[rank::world])

    def enter(self, position: Position, batches_done: int) -> None:
        """Call just before training on the batch that ends at `position`; the previous one is then finished."""
        self.leave(batches_done)
        self.current = (position, batches_done)

    def leave(self, batches_done: int) -> None:
        """Moves past the current batch if the trainer has counted it: a step that failed half-way is not lost."""
        if self.current is None or batches_done <= self.current[1]:
            return
        position, _ = self.current
        worker = [one.stream for one in self.positions].index(position.stream)
        self.positions[worker] = position
        self.next_worker = (worker + 1) % len(self.positions)
        self.current = None

    def state_dict(self, world: int) -> dict[str, Any]:
        """Positions of all streams of all ranks as plain lists; every rank must call it."""
        ranks = _gather(to_lists(self.positions), world)
        streams = [ranks[rank][worker] for worker in range(len(self.positions)) for rank in range(world)]
        return {"order": self.order, "world": world, "next_worker": self.next_worker, "streams": streams}


def check_ranks_agree(order: dict[str, Any], world: int) -> None:
    """ValueError unless all ranks see the same data: one that found no manifest would read another rank's samples."""
    everyone = _gather(order, world)
    for rank, other in enumerate(everyone):
        for name, value in everyone[0].items():
            if other[name] != value:
                raise ValueError(f"data.train: rank 0 sees {name} {value!r}, rank {rank} sees {other[name]!r}")


def _gather(mine: Any, world: int) -> list[Any]:
    """The value of each rank."""
    everyone = [mine] * world
    if world > 1:
        torch.distributed.all_gather_object(everyone, mine)
    return everyone


def check_same_order(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Compares the order of a checkpoint with that of this run; ValueError names what differs."""
    if then.keys() != now.keys():
        raise ValueError(
            "cannot resume in the middle of the training data: another version of this code made the checkpoint and "
            "put the samples in another order; start a new run, or go on with the version that made it"
        )
    for name, value in now.items():
        if then[name] != value:
            raise ValueError(
                f"cannot resume in the middle of the training data: the checkpoint was made with {name} "
                f"{then[name]!r}, this run has {value!r}; give the same data, or start a new run"
            )
