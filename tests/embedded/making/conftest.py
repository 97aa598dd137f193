import pytest

from gp.embedded.making.model import build_model, build_tokenizer
from gp.embedded.making.scene_stream import SceneStream
from gp.embedded.making.scenes import SceneBuilder
from tests.support.micro_making import micro_config


@pytest.fixture(scope="module")
def joint_case():
    """A random micro model and a batch with questions of unequal lengths."""
    model = build_model(micro_config("unused"))
    stream = SceneStream(SceneBuilder("train", augment=True), build_tokenizer(), range(1), 3, 0, 0.5, 4)
    return model, stream.batch(0)
