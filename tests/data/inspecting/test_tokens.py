"""Visual tokens of an image of a given size."""

from __future__ import annotations

import pytest

from gp.config.schema import ModelConfig
from gp.data.inspecting import token_counter


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        (None, (640, 480), 23 * 17),
        (ModelConfig(base="Qwen/Qwen2.5-VL-7B-Instruct", max_pixels=28 * 28 * 100), (640, 480), 11 * 8),
        (ModelConfig(base="Qwen/Qwen2.5-VL-7B-Instruct", min_pixels=28 * 28 * 100), (28, 28), 100),
        (ModelConfig(base="llava-hf/llava-1.5-7b-hf"), (640, 480), 576),
        (ModelConfig(base="tiny"), (224, 224), 64),
    ],
)
def test_tokens(model, size, tokens):
    assert token_counter(model)(size) == tokens


def test_tokens_of_a_local_base(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"min_pixels": 3136, "max_pixels": 78400, "patch_size": 14}')
    assert token_counter(ModelConfig(base=str(tmp_path)))((640, 480)) == 11 * 8
