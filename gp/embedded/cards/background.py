"""Photographs behind the cards."""

import numpy as np
from PIL import Image

from gp.embedded.cards.material import Material


def draw_background(
    material: Material, width: int, height: int, rng: np.random.Generator, augment: bool
) -> tuple[str, np.ndarray]:
    """A random crop of a random photograph, mirrored in half of the cases and made darker or lighter.

    Args:
        width, height: in pixels.
        augment: also permute and tint the channels.

    Returns:
        The photograph's name, and float32 [height, width, 3], about 0..255.
    """
    photo_id = int(rng.integers(len(material.photos)))
    photo = material.photos[photo_id]
    scale = float(rng.uniform(0.5, 1.0)) * min(photo.width / width, photo.height / height)
    crop_width, crop_height = scale * width, scale * height
    left = float(rng.uniform(0, photo.width - crop_width))
    top = float(rng.uniform(0, photo.height - crop_height))
    box = (left, top, left + crop_width, top + crop_height)
    image = photo.resize((width, height), Image.Resampling.BILINEAR, box=box)
    # Mirrored and permuted as bytes, then changed in place: making large float arrays anew cost more than all the rest.
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = rng.uniform(0.75, 1.15, size=1)
    if augment:
        # Ten photographs are few: permuted and tinted channels keep the tower from leaning on their colours.
        image = Image.merge("RGB", [image.getchannel(int(channel)) for channel in rng.permutation(3)])
        gain = gain * rng.uniform(0.7, 1.2, size=3)
    pixels = np.asarray(image, dtype=np.float32)
    rows = pixels.reshape(height, 3 * width)
    rows *= np.tile(np.broadcast_to(gain.astype(np.float32), 3), width)
    return material.photo_names[photo_id], pixels
