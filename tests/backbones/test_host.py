"""What is read on the host, and what the vision tower is told instead of computing it."""

from __future__ import annotations

import torch

from gp.backbones import on_host
from gp.backbones.host import copy_together
from gp.backbones.vision_index import VisionIndex
from tests.support.tiny_models import FAMILIES

QWENS = ["qwen2_5_vl", "qwen3_vl"]
PROMPTS = [([(4, 6), (3, 5)], 9), ([(2, 2)], 5)]


def test_tensors_come_over_together():
    tensors = [
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([True, False]),
        torch.tensor([2**40]),
        torch.zeros(0, 3).int(),
    ]
    copies = copy_together(tensors)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copies, tensors, strict=True))


def test_what_is_on_the_host_stays_as_it_is():
    inputs = FAMILIES["llava"].inputs([([(5, 5)], 4)])
    assert all(on_host(inputs)[key] is value for key, value in inputs.items())


def test_lengths_stay_on_the_host_unless_the_kernel_reads_them():
    grid, device = torch.tensor([[1, 8, 12]]), torch.device("meta")
    config = FAMILIES["qwen2_5_vl"].make().config.vision_config
    places = {name: x.device.type for name, x in VisionIndex.from_grid(grid, config).arguments(device).items()}
    assert places == {"position_ids": "meta", "cu_seqlens": "cpu", "window_index": "meta", "cu_window_seqlens": "cpu"}
    config._attn_implementation = "flash_attention_2"
    arguments = VisionIndex.from_grid(grid, config).arguments(device)
    greatest = {name: arguments.pop(name) for name in list(arguments) if name.startswith("max_")}
    assert {x.device.type for x in arguments.values()} == {"meta"}
    # in patches: an image of 8 x 12, windows of 4 x 4
    assert greatest == {"max_seqlen": 96, "max_window_seqlen": 16}
