"""Images dealt to prompts by their numbers of tokens."""

from __future__ import annotations

import pytest
import torch

from gp.backbones.layout import deal_images, refuse_right_padding

CPU = torch.device("cpu")


def test_images_go_to_the_prompts_whose_tokens_they_fill():
    layout = deal_images([(2, 3), (1, 4), (2, 2), (1, 1)], [10, 0, 4, 1], CPU)
    assert layout.rows == (0, 0, 2, 3)
    assert layout.prompt_sizes == [10, 0, 4, 1] and layout.num_prompts == 4


def test_a_batch_without_images():
    assert deal_images([], [0, 0], CPU).prompt_sizes == [0, 0]


@pytest.mark.parametrize(
    ("grids", "per_row", "numbers"),
    [([(2, 3)], [5], r"\b5 .*\b1 images .*\b6"), ([(2, 3), (1, 2)], [4, 4], r"prompt 0: .*2 x 3")],
)
def test_tokens_that_do_not_fit_are_refused_with_their_numbers(grids, per_row, numbers):
    with pytest.raises(ValueError, match=numbers):
        deal_images(grids, per_row, CPU)


def test_right_padding_is_refused_left_padding_is_not():
    left = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool()
    refuse_right_padding(left)
    with pytest.raises(ValueError, match=r"padding_side = 'left'"):
        refuse_right_padding(left.flip(1))
