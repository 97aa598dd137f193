"""Compaction against `gather`, entry by entry."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from gp.engine.compaction import compact, drop, flat_index, select_rows
from gp.types import Prompt, VisualLayout


@pytest.mark.parametrize("heads", [(), (3,)], ids=["hidden states", "cache"])
@pytest.mark.parametrize("contiguous", [True, False])
def test_whole_vectors_by_a_flat_index(heads, contiguous):
    torch.manual_seed(0)
    states = torch.randn(2, 7, *heads, 4).movedim(1, -2)  # [B, heads, S, d]
    states = states.contiguous() if contiguous else states
    index = torch.tensor([[6, 0, 3], [1, 1, 5]])
    expected = torch.stack([row[..., picked, :] for row, picked in zip(states, index)])
    assert torch.equal(select_rows(states, flat_index(index, states.shape[:-1])), expected)


def test_rows_are_padded_on_the_left_again_and_know_whether_they_are():
    """Two prompts of one length; their images (2 tokens each) keep 1 and 2, then 1 and 1 tokens."""
    hidden = torch.arange(10.0).view(2, 5, 1)
    for alive, positions, has_padding in [
        ([0, 1, 1, 1], [0, 2, 3, 4, 0, 1, 2, 3, 4], True),
        ([0, 1, 1, 0], [0, 2, 3, 4, 0, 1, 3, 4], False),
    ]:
        prompt = Prompt(
            hidden=hidden,
            attention_mask=torch.ones(2, 5, dtype=torch.bool),
            position_ids=torch.arange(5).expand(1, 2, -1),
            visual_id=torch.tensor([[-1, 0, 1, -1, -1], [-1, 2, 3, -1, -1]]),
            layout=VisualLayout(((1, 2), (1, 2)), (0, 1), 2),
        )
        drop(prompt, torch.tensor(alive).bool(), num_appended=0)
        assert prompt.has_padding is has_padding is not bool(prompt.attention_mask.all())
        real = prompt.attention_mask
        assert not real[0, 0] or not has_padding  # the shorter row, on the left
        assert prompt.position_ids[0][real].tolist() == positions
        row = torch.tensor([0] * 4 + [1] * (len(positions) - 4))
        assert torch.equal(prompt.hidden[real][:, 0], (5 * row + torch.tensor(positions)).float())
        assert prompt.visual_id[prompt.visual_id >= 0].tolist() == [n for n in range(4) if alive[n]]
        assert (prompt.visual_id[~real] == -1).all()


def test_layers_of_other_lengths_are_compacted_too():
    cache = DynamicCache()
    for layer in range(2):
        cache.update(torch.randn(2, 2 + layer, 6, 3), torch.randn(2, 2 + layer, 6, 3), layer)
    before = [(layer.keys, layer.values) for layer in cache.layers]
    index = torch.tensor([[0, 2, 5], [1, 3, 4]])
    compact(cache, index)
    for layer, pair in zip(cache.layers, before):
        for now, old in zip((layer.keys, layer.values), pair):
            wanted = index[:, None, :, None].expand(-1, old.shape[1], -1, 3)
            assert torch.equal(now, old.gather(2, wanted))
