import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from gp.config.pretrain import PretrainConfig
from gp.embedded.making.growing.growth import grow_model, save_grown_processor
from gp.embedded.making.model import build_model
from gp.embedded.making.pretrain import save_base


@pytest.fixture(scope="session")
def seed_base(tmp_path_factory):
    """Folder of a base to grow from, of its full size, with random weights."""
    folder = tmp_path_factory.mktemp("seed_base")
    torch.manual_seed(0)
    save_base(build_model(PretrainConfig()), folder)
    return folder


@pytest.fixture(scope="session")
def first_base(seed_base):
    """The base to grow from, float32."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(seed_base, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer(seed_base, tmp_path_factory):
    """The grown tokenizer."""
    return save_grown_processor(seed_base, tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="session")
def grown(first_base, tokenizer):
    """The first base with more layers and words."""
    return grow_model(first_base, len(tokenizer), seed=0).eval()
