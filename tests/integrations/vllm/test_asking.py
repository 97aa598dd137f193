"""Prompts in which one image stands alone, by hand."""

from __future__ import annotations

import pytest

from gp.integrations.vllm.asking import prompts_of, unfolded

IMAGE, START, END = 9, 7, 8


def test_each_image_has_the_text_and_no_other_image():
    ids = [1, START, IMAGE, END, 2, START, IMAGE, END, 3]
    first, second = prompts_of(ids, IMAGE, (1, 1), 2)
    assert first == [1, START, IMAGE, END, 2, 3]
    assert second == [1, 2, START, IMAGE, END, 3]


def test_a_frame_that_two_images_share_stays_with_the_image():
    assert prompts_of([IMAGE, 5, IMAGE, 5, 1], IMAGE, (0, 1), 2) == [[IMAGE, 5, 1], [IMAGE, 5, 1]]
    assert prompts_of([IMAGE, IMAGE, 5, 1], IMAGE, (1, 1), 2) == [[IMAGE, 1], [IMAGE, 5, 1]]


def test_one_image_leaves_the_prompt_as_it_is():
    assert prompts_of([1, START, IMAGE, END, 3], IMAGE, (1, 1), 1) == [[1, START, IMAGE, END, 3]]


def test_unfolding():
    assert unfolded([1, IMAGE, 3], IMAGE, 3) == [1, IMAGE, IMAGE, IMAGE, 3]


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_image_tokens_is_refused(count):
    with pytest.raises(ValueError, match=f"the prompt has {count} image tokens for 1 images"):
        prompts_of([1, *[IMAGE] * count], IMAGE, (1, 1), 1)
