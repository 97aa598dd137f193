"""A `GlimpseModel` stands where a transformers model stood: attributes, forward, generate, pipeline, copies."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, TextIteratorStreamer, pipeline

import gp
from gp.backbones import CACHE
from gp.pruners import METHODS, RankingPruner
from tests.support.bases import BASES
from tests.support.glimpses import micro_glimpse
from tests.support.ragged import RAGGED, rows_alone
from tests.support.tiny_models import FAMILIES, IMAGE_PAD, Family, random_masks, tiny_answers

pytestmark = pytest.mark.core
GREEDY = {"max_new_tokens": 5, "do_sample": False}
SCENE, QUESTION = "docs/images/scene.png", "what number is on the green card ?"
PROMPTS = RAGGED[:3]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def base(family):
    return family.make(layers=8)


@pytest.fixture(scope="module")
def model(base):
    return micro_glimpse(base, 3)


@pytest.fixture(scope="module")
def prompts(family):
    return family.fit(PROMPTS)


@pytest.fixture(scope="module")
def tiny():
    return gp.from_pretrained("tiny", glimpse="tiny")


def with_answers(inputs: dict, lengths: list[int], side: str = "left") -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Whole sequences, padded on one side; their labels, which name the answers only; and the answers' ids."""
    ids, mask = tiny_answers(lengths)
    rows, labels = [], []
    for row, (answer, real) in enumerate(zip(ids, mask)):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        rows.append(torch.cat([prompt, answer[real]]))
        labels.append(torch.cat([torch.full_like(prompt, -100), answer[real]]))
    longest = max(map(len, rows))

    def padded(values: list[torch.Tensor], filling: int) -> torch.Tensor:
        sides = [(0, longest - len(one)) if side == "right" else (longest - len(one), 0) for one in values]
        return torch.stack([torch.nn.functional.pad(v, s, value=filling) for v, s in zip(values, sides)])

    whole = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    whole |= {"input_ids": padded(rows, 0), "attention_mask": padded([torch.ones_like(one) for one in rows], 0)}
    if "mm_token_type_ids" in inputs:
        whole["mm_token_type_ids"] = (whole["input_ids"] == IMAGE_PAD).long()
    return whole, padded(labels, -100), ids


# ---- attributes -------------------------------------------------------------------------------------------------


def test_what_other_code_asks_of_a_model(base, model):
    assert (model.device, model.dtype) == (base.device, base.dtype)
    assert model.config is base.config and model.generation_config is base.generation_config
    assert model.can_generate() and model.main_input_name == base.main_input_name
    assert model.input_modalities == base.input_modalities and model.num_parameters() == base.num_parameters()
    assert not hasattr(model, "hf_device_map") and not hasattr(model, "_no_such_thing")
    with pytest.raises(AttributeError, match="generatee"):
        _ = model.generatee


def test_its_generation_config_is_the_bases(family):
    model = gp.prune(family.make())
    model.generation_config = GenerationConfig(max_new_tokens=2, pad_token_id=0)
    inputs = family.inputs(family.fit(PROMPTS))
    assert model.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 2


# ---- forward ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["none", None])
def test_forward_keeping_everything_equals_stock(family, base, model, prompts, pruner):
    inputs = family.inputs(prompts)
    out = model(**inputs, pruner=pruner, threshold=0.0)
    expected = base(**inputs).logits
    real = inputs["attention_mask"].bool()
    assert torch.equal(out.attention_mask, real) and out.num_kept == out.num_visual
    torch.testing.assert_close(out.logits[real], expected[real], atol=2e-4, rtol=1e-4)
    assert torch.equal(out.visual_id >= 0, inputs["input_ids"].eq(IMAGE_PAD) & real)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("everything", [False, True])
def test_the_loss_is_stocks(family, base, model, prompts, side, everything):
    whole, labels, _ = with_answers(family.inputs(prompts), [3, 1, 4], side)
    if everything:  # as those have it who train on whole sequences
        labels = whole["input_ids"].masked_fill(whole["attention_mask"].cumsum(1) < 2, -100)
        labels = labels.masked_fill(whole["attention_mask"] == 0, -100)
    out = model(**whole, labels=labels, pruner="none")
    expected = base(**whole, labels=labels)
    torch.testing.assert_close(out.loss, expected.loss, atol=1e-5, rtol=1e-5)
    real = whole["attention_mask"].bool()
    assert int(out.attention_mask.sum()) == int(real.sum())
    for row, (mine, theirs) in enumerate(zip(out.logits, expected.logits)):
        torch.testing.assert_close(mine[out.attention_mask[row]], theirs[real[row]], atol=2e-4, rtol=1e-4)
        assert torch.equal(out.labels[row, out.attention_mask[row]], labels[row, real[row]])


@pytest.mark.parametrize("name", METHODS)
def test_logits_of_an_answer_are_those_of_generating_it(family, model, prompts, name):
    """The prompt is pruned by what stands before the answer, and the answer's tokens see what is left."""
    if name == "downsample" and model.backbone.one_image_size:
        prompts = prompts[:1]
    inputs = family.inputs(prompts)
    how = {"pruner": name, "evidence_masks": random_masks([grid for grids, _ in prompts for grid in grids])}
    if issubclass(METHODS[name], RankingPruner):
        how["fixed_keep_ratio"] = 0.6
    made = model.generate(**inputs, **how, **GREEDY, return_dict_in_generate=True, output_logits=True)
    answers = made.sequences[:, -5:]
    whole = {**inputs, "input_ids": made.sequences}
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(answers)], 1)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), answers], 1)
    if (answers == IMAGE_PAD).any():
        pytest.skip("a random model answered with the image token, which is text there")
    out = model(**whole, labels=labels, **how)
    assert out.num_kept == made.num_kept
    torch.testing.assert_close(out.logits[:, -6:-1], torch.stack(made.logits, 1), atol=2e-4, rtol=1e-4)
    by_hand = torch.nn.functional.cross_entropy(torch.stack(made.logits, 1).flatten(0, 1), answers.flatten())
    torch.testing.assert_close(out.loss, by_hand, atol=1e-4, rtol=1e-4)


def test_labels_of_dropped_tokens_are_gone(family, model, prompts):
    inputs = family.inputs(prompts)
    labels = torch.arange(inputs["input_ids"].numel()).view_as(inputs["input_ids"]) % 60
    labels[:, -2:] = torch.tensor([3, 4])
    last_visual = (inputs["input_ids"] == IMAGE_PAD).long().cumsum(1).argmax(1)
    for row, place in enumerate(last_visual):  # no label between the images and the answer
        labels[row, place + 1 : -2] = -100
    out = model(**inputs, labels=labels, num_keep=3)
    assert out.num_kept == (3, 3, 0)
    kept, number = torch.cat([mask.flatten() for mask in out.keep_masks]), 0
    for row, ids in enumerate(inputs["input_ids"]):
        expected = []
        for place, token in enumerate(ids.tolist()):
            if not inputs["attention_mask"][row, place]:
                continue
            visual, number = token == IMAGE_PAD, number + (token == IMAGE_PAD)
            if not visual or kept[number - 1]:
                expected.append(int(labels[row, place]))
        expected[0] = -100  # nothing predicts it
        assert out.labels[row, out.attention_mask[row]].tolist() == expected


def test_forward_per_row_equals_rows_alone(family, model, prompts):
    whole, labels, _ = with_answers(family.inputs(prompts), [3, 1, 4])
    together = model(**whole, labels=labels, pruner="fastv", budget=[0.5, 0.8, 0.6])
    for row, (single, budget) in enumerate(zip(rows_alone(whole, prompts), [0.5, 0.8, 0.6])):
        alone = model(
            **single, labels=labels[row : row + 1, -single["input_ids"].shape[1] :], pruner="fastv", budget=budget
        )
        real = together.attention_mask[row]
        torch.testing.assert_close(
            alone.logits[0, alone.attention_mask[0]], together.logits[row, real], atol=2e-4, rtol=1e-4
        )


def test_forms_of_the_output(family, model, prompts):
    inputs = family.inputs(prompts)
    out = model(inputs["input_ids"], **{k: v for k, v in inputs.items() if k != "input_ids"})
    assert out.loss is None and out[CACHE].get_seq_length() == out.attention_mask.shape[1]
    assert model(**inputs, use_cache=False)[CACHE] is None
    assert model(**inputs, logits_to_keep=2).logits.shape[1] == 2
    assert torch.equal(model(**inputs, return_dict=False)[0], out.logits)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"labels": torch.zeros(1, 2, dtype=torch.long)},
            r"labels must be a tensor of the shape of input_ids.*\[1, 2\]",
        ),
        ({"labels": [[1, 2]]}, "got labels list"),
        ({"position_ids": torch.zeros(1)}, "forward: position_ids does not work"),
        ({"output_hidden_states": True}, "logits only"),
        ({"inputs_embeds": torch.zeros(1)}, "pass input_ids"),
        ({"label": torch.zeros(1)}, "unknown option 'label'; the nearest known one is 'labels'"),
        ({"pixel_values_videos": torch.zeros(1)}, "videos are not pruned"),
        ({"input_ids": None}, r"input_ids must be integers of shape \[prompts, tokens\], got NoneType"),
    ],
    ids=str,
)
def test_what_forward_cannot_do(family, model, prompts, how, message):
    with pytest.raises(ValueError, match=message):
        model(**{**family.inputs(prompts), **how})


# ---- generate, as stock is called -------------------------------------------------------------------------------


def test_ids_by_position_and_as_inputs(family, base, model, prompts):
    inputs = family.inputs(prompts)
    ids, rest = inputs["input_ids"], {k: v for k, v in inputs.items() if k != "input_ids"}
    expected = base.generate(ids, **rest, **GREEDY)
    config = GenerationConfig(**GREEDY, pad_token_id=0)
    for out in (
        model.generate(ids, **rest, pruner="none", **GREEDY),
        model.generate(inputs=ids, **rest, pruner="none", **GREEDY),
        model.generate(ids, config, **rest, pruner="none"),
    ):
        assert torch.equal(out, expected)
    with pytest.raises(ValueError, match="inputs and input_ids"):
        model.generate(ids, **inputs)


def test_entries_that_are_none_are_no_videos(family, base, model, prompts):
    inputs = {**family.inputs(prompts), "pixel_values_videos": None, "video_grid_thw": None}
    assert model.generate(**inputs, **GREEDY).shape == base.generate(**family.inputs(prompts), **GREEDY).shape
    assert model.prefill(inputs).num_kept == model.prefill(family.inputs(prompts)).num_kept
    for door in (model.prefill, lambda inputs: model.generate(**inputs), lambda inputs: model(**inputs)):
        with pytest.raises(ValueError, match="video_grid_thw: videos are not pruned yet"):
            door({**inputs, "video_grid_thw": torch.ones(1, 3)})


def test_a_prompt_that_ends_with_an_image_goes_on_where_stock_does(family, base, model):
    """Behind the greatest position on any axis, as stock's forward pass over the whole sequence counts.

    (Stock's `generate` goes on on each axis by itself there, and so differs from its own forward pass.)
    """
    for grid in [(6, 2), (2, 6)]:
        inputs = family.inputs(family.fit([([grid], 0)]))
        inputs = {k: v[:, :-1] if v.shape == inputs["input_ids"].shape else v for k, v in inputs.items()}
        how = {**GREEDY, "return_dict_in_generate": True, "output_logits": True, "suppress_tokens": [IMAGE_PAD]}
        out = model.generate(**inputs, pruner="none", **how)
        whole = {**inputs, "input_ids": out.sequences}
        whole = {k: v for k, v in whole.items() if k not in ("attention_mask", "mm_token_type_ids")}
        if "mm_token_type_ids" in inputs:
            whole["mm_token_type_ids"] = (out.sequences == IMAGE_PAD).long()
        expected = base(**whole).logits[:, -6:-1]
        torch.testing.assert_close(torch.stack(out.logits, 1), expected, atol=2e-4, rtol=1e-4)
        full, few = model.prefill(inputs, "none"), model.prefill(inputs, "random", gp.PruneOptions(num_keep=1))
        assert torch.equal(full.next_position, few.next_position)


@pytest.mark.slow
def test_the_base_may_be_compiled(family, prompts):
    model = micro_glimpse(family.make())
    inputs = family.inputs(prompts)
    expected = model.generate(**inputs, **GREEDY)
    for layer in model.backbone.text_model.layers:
        layer.compile(backend="eager")
    assert torch.equal(model.generate(**inputs, **GREEDY), expected)


def test_copies_and_pickles_answer_alike(family, prompts):
    """Pickled before its first call: stock LLaVA hooks its tower then, in a way that no pickle takes."""
    model, inputs = micro_glimpse(family.make()), family.inputs(prompts)
    pickled = pickle.dumps(model)
    expected = model.generate(**inputs, **GREEDY)
    for other in (copy.deepcopy(model), pickle.loads(pickled)):
        assert other.base is not model.base and other.backbone.model is other.base
        assert torch.equal(other.generate(**inputs, **GREEDY), expected)


def test_moving_and_casting_reaches_base_and_parts(family, prompts):
    model = micro_glimpse(family.make())
    for dtype, move in [(torch.bfloat16, lambda: model.to(torch.bfloat16)), (torch.float16, model.half)]:
        assert move() is model and model.dtype == dtype
        assert {p.dtype for p in model.parameters()} == {dtype}
        out = model.generate(**family.inputs(prompts), **GREEDY, return_dict_in_generate=True, output_logits=True)
        assert out.logits[0].dtype == torch.float32 or out.logits[0].dtype == dtype
    assert model.train().training and not model.base.training and model.glimpse.training
    assert not model.eval().glimpse.training


# ---- through the embedded base ----------------------------------------------------------------------------------


def chat(question: str = QUESTION) -> list[dict]:
    content = [{"type": "image", "image": Image.open(SCENE)}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def processed(model: gp.GlimpseModel) -> dict:
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return model.processor.apply_chat_template(chat(), **how)


def test_a_processors_output_goes_to_the_models_device(tiny):
    ids = tiny.generate(**processed(tiny).to(tiny.device), max_new_tokens=8)
    assert tiny.processor.batch_decode(ids, skip_special_tokens=True)[0].endswith("5 3")


def test_a_pipeline_of_transformers(tiny):
    pipe = pipeline("image-text-to-text", model=tiny, processor=tiny.processor)
    how = {"max_new_tokens": 8, "return_full_text": False}
    assert pipe(text=chat(), **how)[0]["generated_text"] == " 5 3"
    both = pipe(text=[chat(), chat()], **how, batch_size=2, generate_kwargs={"budget": 0.1})
    assert [one[0]["generated_text"] for one in both] == [" 5 3"] * 2
    full = pipe(text=chat(), max_new_tokens=8)[0]["generated_text"]
    assert full[-1] == {"role": "assistant", "content": " 5 3"}
    assert "float32" in repr(pipe)


def test_tokens_stream_from_a_thread(tiny):
    streamer = TextIteratorStreamer(tiny.processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(tiny.generate, **processed(tiny), streamer=streamer, max_new_tokens=8)
        assert "".join(streamer) == "5 3"
        done.result()


# ---- ask --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BASES)
def loaded(request, tmp_path_factory) -> gp.GlimpseModel:
    return gp.from_pretrained(BASES[request.param](tmp_path_factory.mktemp(request.param) / "base"))


def noise(seed: int, height: int = 56, width: int = 112) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_paths_arrays_and_pictures_are_one(loaded, tmp_path):
    array = noise(0)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "scene.png")
    shown = [array, torch.from_numpy(array), picture, tmp_path / "scene.png", str(tmp_path / "scene.png")]
    answers = [loaded.ask(one, "what is here ?", max_new_tokens=4) for one in shown]
    assert all(one == answers[0] for one in answers)


@pytest.mark.parametrize("pruner", ["none", "fastv", "visionzip", "vscan", "cdpruner", "downsample"])
@pytest.mark.parametrize("count", [1, 2])
def test_several_questions_are_a_batch_of_single_ones(loaded, pruner, count):
    images, questions = [noise(seed) for seed in range(count)], ["what is here ?", "red ?", "what is big blue here ?"]
    how = {"pruner": pruner, "max_new_tokens": 4, "budget": 0.7}
    together = loaded.ask(images, questions, **how)
    for question, answer in zip(questions, together, strict=True):
        alone = loaded.ask(images, question, **how)
        assert alone == answer and len(answer.keep_masks) == count
        assert all(torch.equal(*masks) for masks in zip(alone.keep_masks, answer.keep_masks, strict=True))


def test_images_are_seen_once_for_all_questions(loaded, monkeypatch):
    seen = []
    encode = type(loaded.backbone).encode_images
    monkeypatch.setattr(
        type(loaded.backbone), "encode_images", lambda *a, **k: seen.append(encode(*a, **k)) or seen[-1]
    )
    one = loaded.ask(noise(0), "what is here ?", max_new_tokens=1)
    loaded.ask(noise(0), ["what is here ?", "red ?", "blue ?"], max_new_tokens=1)
    assert [len(features.embeds) for features in seen] == [one.num_visual] * 2


def test_no_images_and_no_questions(loaded):
    answer = loaded.ask([], "what is here ?", max_new_tokens=2)
    assert (answer.num_kept, answer.num_visual, answer.keep_masks) == (0, 0, ())
    assert loaded.ask(noise(0), []) == []
    with pytest.raises(ValueError, match="about no image"):
        answer.overlay()


def test_budgets_of_each_question(tiny):
    kept = [answer.num_kept for answer in tiny.ask(SCENE, [QUESTION] * 4, num_keep=[[9], [2], None, [64]])]
    assert kept == [9, 2, 3, 64]
    kept = [
        answer.num_kept
        for answer in tiny.ask(SCENE, [QUESTION] * 3, options=[gp.PruneOptions(num_keep=n) for n in (1, 5, 7)])
    ]
    assert kept == [1, 5, 7]


@pytest.mark.parametrize(
    ("images", "question", "message"),
    [
        (SCENE, None, "question must be text, or a list of texts; got NoneType"),
        (SCENE, 7, "got int"),
        (SCENE, ["what ?", None], "got a list with NoneType"),
        (None, "what ?", r"expected a PIL image, a path, or a uint8 array \[height, width, 3\].*got None"),
        (3, "what ?", "got int"),
        ([SCENE, b"abc"], "what ?", "got bytes"),
        ([[SCENE]], "what ?", "got list of str"),
    ],
)
def test_wrong_types_say_what_was_expected(tiny, images, question, message):
    with pytest.raises(TypeError, match=message):
        tiny.ask(images, question)


def test_a_question_stands_for_no_image(loaded):
    for marker in loaded.processor.markers():
        with pytest.raises(ValueError, match=r"a question holds .*, which stands for an image or a video"):
            loaded.ask(noise(0), ["what ?", f"{marker} what ?"])


def test_one_answer_to_a_question(tiny):
    with pytest.raises(ValueError, match="for more of them call generate"):
        tiny.ask(SCENE, QUESTION, num_return_sequences=2)


def test_an_answer_shows_what_was_kept(tiny, tmp_path):
    answer = tiny.ask(SCENE, QUESTION)
    assert str(answer) == "Answer(text='5 3', num_kept=3, num_visual=256)"
    bright = np.asarray(answer.overlay()).mean(2) > 0.6 * np.asarray(Image.open(SCENE).convert("RGB")).mean(2)
    assert bright.shape == (448, 448) and abs(bright.mean() - 3 / 256) < 0.02
    assert Image.open(answer.save(tmp_path / "kept.png")).size == (448, 448)
    assert answer.save(str(tmp_path / "kept.jpg")) == Path(tmp_path / "kept.jpg")
    with pytest.raises(ValueError, match="unknown file extension"):
        answer.save(tmp_path / "kept.txt")
