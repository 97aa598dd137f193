import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.embedded import BASE_DIR
from gp.embedded.making.growing.growth import grow_model, save_grown_processor


@pytest.fixture(scope="session")
def first_base():
    """The first embedded base as it ships, float32."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """The grown tokenizer."""
    return save_grown_processor(BASE_DIR, tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="session")
def grown(first_base, tokenizer):
    """The first base with more layers and words."""
    return grow_model(first_base, len(tokenizer), seed=0).eval()
