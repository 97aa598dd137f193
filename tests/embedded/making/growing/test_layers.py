"""Which tokens are hidden where, and what the command prints."""

import numpy as np
import pytest
import torch

from gp.embedded import BASE_DIR
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.embedded.making.growing.layers import HidingReader, evidence_tokens, hidden, main


@pytest.fixture(scope="module")
def reader():
    return HidingReader(BASE_DIR)


@pytest.mark.parametrize("kind", ["color", "count", "second", "zoom"])
def test_evidence_tokens_hold_every_pixel_of_the_evidence(kind):
    sample = draw_sample(SceneBuilder("val"), kind, 12, 10, 1)
    expected = []
    for image, boxes in zip(sample.images, sample.boxes_xyxy_px, strict=True):
        pixels = np.zeros((image.height, image.width), dtype=bool)
        for x1, y1, x2, y2 in boxes:
            pixels[y1 : y2 + 1, x1 : x2 + 1] = True
        tokens = pixels.reshape(image.height // 28, 28, image.width // 28, 28).any(axis=(1, 3))
        expected.append(tokens.ravel())
    assert evidence_tokens(sample).tolist() == np.concatenate(expected).tolist()


@torch.inference_mode()
def test_hidden_tokens_are_out_of_sight(reader):
    """Behind hidden tokens the output depends on them through the layers alone at which they are seen."""
    decoder = reader.decoder
    embeds = torch.randn(1, 12, decoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    other = embeds.clone()
    other[:, 3:6] += 1
    is_hidden = torch.zeros(12, dtype=torch.bool)
    is_hidden[3:6] = True

    def outputs(first_layer):
        with hidden(decoder.layers[first_layer:], is_hidden, 6):
            return [decoder(inputs_embeds=x, use_cache=False).last_hidden_state[:, 6:] for x in (embeds, other)]

    torch.testing.assert_close(*outputs(0), rtol=0, atol=0)
    assert not torch.allclose(*outputs(1))
    torch.testing.assert_close(
        outputs(len(decoder.layers))[0], decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, 6:]
    )


def test_the_evidence_is_enough_and_random_tokens_are_not(reader):
    builder, rows = SceneBuilder("val"), {}
    for seed in range(8):
        read = reader.read(draw_sample(builder, "color", 16, 16, seed), 5, np.random.default_rng(seed))
        for key, right in read.items():
            rows.setdefault(key, []).extend(right)
    assert sum(rows[None, "all"]) >= 7
    for layer in range(5):
        assert sum(rows[layer, "evidence"]) >= 7 and sum(rows[layer, "random"]) <= 4
    assert rows[5, "random"] == rows[None, "all"]  # the answer has passed


def test_the_command_prints_a_line_for_each_layer(capsys):
    assert main(["--kind", "color", "side", "--size", "8x8", "--num-questions", "2", "--last-layer", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test 8x8 color side, n = 4"
    assert [line.partition(" 0.")[0].partition(" 1.")[0].strip() for line in lines[1:]] == [
        "un-pruned", "K = 0 evidence", "K = 0 random", "K = 1 evidence", "K = 1 random"
    ]  # fmt: skip
