"""Calls that wait for the device are found, others are not."""

from __future__ import annotations

import pytest
import torch

from gp.backbones.vision_index import VisionIndex
from gp.bench.host_syncs import HostSyncs
from gp.types import PruneOptions
from tests.support.glimpses import micro_glimpse
from tests.support.tiny_models import FAMILIES

KEEP = PruneOptions(fixed_keep_ratio=0.5)


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("item", lambda x: x.sum().item()),
        ("bool", lambda x: bool(x.any())),
        ("int", lambda x: int(x.sum())),
        ("tolist", lambda x: x.tolist()),
        ("boolean index", lambda x: x[x > 1]),
        ("repeat_interleave", lambda x: torch.repeat_interleave(x, x)),
    ],
)
def test_calls_that_wait_are_found(kind, run):
    x = torch.tensor([1, 2, 3])
    with HostSyncs() as syncs:
        run(x)
    assert [place.split(" ", 1)[1] for place in syncs.calls] == [kind]


@pytest.mark.parametrize("options", [PruneOptions(), KEEP], ids=["threshold", "budget"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefill_waits_for_the_device_once_at_most(name, padded, options):
    """When it drops tokens by a threshold: for the lengths of the rows. An exact budget tells them beforehand."""
    family = FAMILIES[name]
    model = micro_glimpse(family.make())
    inputs = family.inputs(family.fit([([(4, 6)], 9), ([(4, 6)], 12 if padded else 9)]))
    with HostSyncs(host=inputs.values()) as syncs:
        model.prefill(inputs, options=options)
    assert syncs.in_package("gp") == (options is not KEEP)
    others = {place.split(":")[0] for place in syncs.calls} - {"gp/engine/compaction.py"}
    # this tower interpolates its position embeddings by a grid on the device
    assert others == ({"transformers/vision_utils.py"} if name == "qwen3_vl" else set())


def test_what_came_from_the_host_can_be_read_until_it_is_moved():
    x = torch.tensor([1, 2, 3])
    with HostSyncs(host=[x]) as syncs:
        (x + torch.arange(3)).tolist()
        assert not syncs.calls
        moved = VisionIndex(x, {"position_ids": x}).arguments(torch.device("cpu"))["position_ids"]  # in gp
        (moved > 1).any().item()
        x.sum().item()
    assert [place.split(" ", 1)[1] for place in syncs.calls] == ["item"] and syncs.calls.total() == 1


def test_calls_that_do_not_wait_are_not_found():
    x = torch.tensor([1, 2, 3])
    with HostSyncs() as syncs:
        x[torch.tensor([0, 2])] + torch.where(x > 1, x, 0).sum()
        torch.repeat_interleave(x, 2)
    assert not syncs.calls
