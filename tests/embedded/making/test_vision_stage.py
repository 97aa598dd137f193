"""The batched vision tower against the stock one."""

import torch
from PIL import Image

from gp.embedded.making.model import build_processor
from gp.embedded.making.vision_stage import encode_images


def test_batched_tower_equals_stock(joint_case):
    model, batch = joint_case
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch["images"]]
    inputs = build_processor().image_processor(images, return_tensors="pt")
    with torch.no_grad():
        expected = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        actual = encode_images(model, batch["images"])
    torch.testing.assert_close(actual.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)
