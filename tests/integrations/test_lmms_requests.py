"""What a request of lmms-eval asks: generation as its own adapters do it, conversations with their pictures."""

import numpy as np
import pytest
from PIL import Image

from gp.integrations.lmms_requests import cut, read_conversation, read_generation

GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None, "min_p": None}


def test_greedy_unless_a_temperature_is_given():
    assert read_generation({}).options == {**GREEDY, "max_new_tokens": 128}
    # as tasks of lmms-eval have it: the temperature decides, what belongs to sampling is off without it
    asked = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 2, "do_sample": False}
    assert read_generation(asked).options == {**GREEDY, "max_new_tokens": 16, "num_beams": 2}
    sampled = read_generation({"temperature": 0.7, "top_p": 0.9, "max_gen_toks": 8}).options
    assert (sampled["do_sample"], sampled["temperature"], sampled["top_p"]) == (True, 0.7, 0.9)
    assert sampled["max_new_tokens"] == 8
    assert read_generation({"temperature": 0.7, "do_sample": False}).options == {**GREEDY, "max_new_tokens": 128}


def test_ends_of_an_answer():
    assert read_generation({"until": ["\n\n"]}).until == ()  # lmms-eval's, in every task that names none
    assert read_generation({"until": "###"}).until == ("###",)
    assert read_generation({"until": ["\n\n", "", "\n", "ASSISTANT:"]}).until == ("\n", "ASSISTANT:")
    assert read_generation({"until": None}).until == ()
    with pytest.raises(ValueError, match="until must be text or a list of texts, got 3"):
        read_generation({"until": 3})
    assert cut("4 7\nthe green card", ("card", "\n")) == "4 7"  # the first one in the answer, not in the list
    assert cut("4 7", ("\n",)) == "4 7"


def test_what_generate_has_not_is_named():
    found = read_generation({"image_aspect_ratio": "original", "num_beams": 1, "modalities": ["image"]})
    assert found.ignored == ("image_aspect_ratio", "modalities")


def test_pictures_of_a_conversation_are_read_in_their_order(tmp_path):
    Image.new("L", (8, 4), 9).save(tmp_path / "grey.png")
    array = np.zeros((2, 6, 3), dtype=np.uint8)
    content = [
        {"type": "text", "text": "is"},
        {"type": "image", "image": str(tmp_path / "grey.png")},
        {"type": "text", "text": "like"},
        {"type": "image", "image": array, "max_pixels": 4},
    ]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "short"}]},
        {"role": "user", "content": content},
    ]
    system, user = read_conversation(messages, ["<image>"])
    assert system == messages[0]
    assert [entry["type"] for entry in user["content"]] == ["text", "image", "text", "image"]
    assert [(e["image"].mode, e["image"].size) for e in user["content"] if "image" in e] == [
        ("RGB", (8, 4)),
        ("RGB", (6, 2)),
    ]


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ({"type": "video", "video": "film.mp4"}, ValueError, "tokens of images only, got video"),
        ({"type": "audio", "audio": "song.wav"}, ValueError, "tokens of images only, got audio"),
        ({"type": "text", "text": "what is <image> ?"}, ValueError, "'<image>', which stands for an image"),
        ({"type": "image", "image": "https://example.org/a.png"}, ValueError, "allow_urls=True"),
        ({"type": "image", "image": {"bytes": b""}}, TypeError, "expected a PIL image"),
    ],
)
def test_what_cannot_be_asked_is_refused(entry, error, said):
    with pytest.raises(error, match=said):
        read_conversation([{"role": "user", "content": [entry]}], ["<image>"])
