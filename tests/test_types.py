"""A prompt's visual tokens, positions and padding, by hand."""

from __future__ import annotations

import torch

from tests.support.views import prompt_of_rows

# token 1 was dropped; row 0 is padded
ROWS, VISUAL = [[0, 1, 1, 1], [1, 1, 1, 1]], [[-1, -1, 0, -1], [-1, 2, 3, -1]]


def test_visual_tokens_are_gathered_by_number_and_spread_to_their_places():
    prompt = prompt_of_rows(ROWS, VISUAL, num_tokens=4)
    values = torch.arange(16.0).view(2, 4, 2)
    assert prompt.gather_visual(values, -1.0).tolist() == [[4, 5], [-1, -1], [10, 11], [12, 13]]
    spread = prompt.spread_visual(torch.tensor([5, 6, 7, 8]))
    assert spread[prompt.is_visual].tolist() == [5, 7, 8]


def test_appended_tokens_follow_the_last_position_on_every_axis():
    prompt = prompt_of_rows(ROWS, VISUAL, num_tokens=4)
    prompt.position_ids = torch.tensor([[[0, 0, 1, 2], [0, 1, 1, 7]], [[0, 0, 3, 2], [0, 1, 4, 7]]])
    prompt.append(torch.ones(2, 1))
    assert prompt.position_ids[:, :, 4:].tolist() == [[[3, 4], [8, 9]]] * 2
    assert prompt.hidden[:, 4:].eq(1).all() and prompt.attention_mask[:, 4:].all()
    assert prompt.visual_id[:, 4:].eq(-1).all()
    assert prompt.lengths == prompt.attention_mask.sum(1).tolist() == [5, 6]
    assert prompt.has_padding and prompt.padding_mask is prompt.attention_mask


def test_a_batch_without_padding_has_no_padding_mask():
    prompt = prompt_of_rows([[1, 1], [1, 1]])
    assert not prompt.has_padding and prompt.padding_mask is None
