"""The question on its way to the images: prompts, one an image, in which that image stands alone."""

from __future__ import annotations

from collections.abc import Sequence

PROMPTS = "visual_pruning_prompts"  # among a request's processor arguments: ids, one list an image
PROMPT = "visual_pruning_prompt"  # among an image's tensors: its own


def prompts_of(ids: Sequence[int], image_token: int, frame: tuple[int, int], num_images: int) -> list[list[int]]:
    """What a method that looks at the question is shown with each image of a prompt.

    vLLM encodes each image apart, perhaps in another step than its neighbours, so each has the text and no other image.

    Args:
        ids: of the prompt, with one image token an image.
        image_token: its id.
        frame: text tokens before and behind an image that belong to it; they leave with it.
        num_images: of the prompt.

    Raises:
        ValueError: another number of image tokens.
    """
    places = [place for place, token in enumerate(ids) if token == image_token]
    if len(places) != num_images:
        raise ValueError(f"the prompt has {len(places)} image tokens for {num_images} images: one for each is expected")
    before, behind = frame
    prompts = []
    for own in places:
        gone = {k for place in places if place != own for k in range(place - before, place + behind + 1)} - {own}
        prompts.append([token for k, token in enumerate(ids) if k not in gone])
    return prompts


def unfolded(ids: Sequence[int], image_token: int, count: int) -> list[int]:
    """Such a prompt with `count` image tokens for the one that it has."""
    place = list(ids).index(image_token)
    return [*ids[:place], *[image_token] * count, *ids[place + 1 :]]
