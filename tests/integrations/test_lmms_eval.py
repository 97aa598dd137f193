"""Model `gp` inside lmms-eval, through its command line and its protocol: the same answers as evaluate.py and `ask`.

Runs where lmms-eval is installed (docs/lmms.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import gp
import gp.integrations.lmms_tasks as tasks
from gp.data.card_shards import CardSplit, ensure_card_shards
from gp.embedded.cards.questions import ask
from gp.embedded.cards.scene import SceneBuilder

pytest.importorskip("lmms_eval")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NUM_QUESTIONS = int(os.environ.get("GP_LMMS_QUESTIONS", "96"))
LAUNCH = (
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
)  # of processes, whatever they run on
OWN = """
include: {template}
task: own
test_split: test
dataset_kwargs: {{data_files: {{test: own.jsonl}}}}
generation_kwargs: {{max_new_tokens: 4, until: []}}
"""


def run(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(folder: Path, *model_args: str, launcher: tuple[str, ...] = ()) -> tuple[dict, list[dict]]:
    """Results and samples of the task `own`, through the command line of lmms-eval; a launcher starts the processes."""
    out = folder / "-".join((*model_args, f"{len(launcher)}"))
    said = run(
        *(
            *launcher,
            "-m",
            "lmms_eval",
            "--model",
            "gp",
            "--model_args",
            ",".join(("base=tiny", "glimpse=tiny", *model_args)),
        ),
        *("--include_path", folder / "tasks", "--tasks", "own", "--batch_size", "16"),
        *("--log_samples", "--output_path", out),
        HF_HOME=str(folder / "hf"),
        **({"ACCELERATE_USE_CPU": "true"} if launcher else {}),
    )
    assert len([*out.rglob("*_samples_own.jsonl")]) == 1, said  # lmms-eval ends with status 0 after an error, too
    (results,) = out.rglob("*_results.json")
    (samples,) = out.rglob("*_samples_own.jsonl")
    return json.loads(results.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with a task over shards of its own, what evaluate.py says about them, and its answers by method."""
    folder = tmp_path_factory.mktemp("lmms")
    ensure_card_shards(folder / "data/small", "test@8x8", {"test": CardSplit("test", ("color",), NUM_QUESTIONS, 2)})
    (folder / "tasks").mkdir()
    template = Path(tasks.__file__).parent / "_shards_template_yaml"
    (folder / "tasks/own.yaml").write_text(OWN.format(template=template))
    row = {"shards": ["small/*/*.tar"], "root": str(folder / "data")}
    (folder / "tasks/own.jsonl").write_text(json.dumps(row) + "\n")
    run(
        *("evaluate.py", "--config", "configs/tiny.yaml", "ckpt=tiny", f"data.root={folder / 'data'}"),
        *(
            "data.test={own: [small/*/*.tar]}",
            "eval.splits=[own]",
            "pruner=none,glimpse",
            f"out={folder / 'eval'}",
        ),
        *("data.eval_batch_size=16", "data.num_workers=0", "eval.costs=false", "eval.overlays=0"),
    )
    rows = {row["pruner"]: row for row in json.loads((folder / "eval/summary.json").read_text())}
    lines = {
        pruner: [
            json.loads(line) for line in (folder / f"eval/samples/own-{pruner}-own.jsonl").read_text().splitlines()
        ]
        for pruner in rows
    }
    return folder, rows, lines


@pytest.mark.parametrize("pruner", ["glimpse", "none"])
def test_the_same_answers_as_evaluate(evaluated, pruner):
    folder, rows, lines = evaluated
    results, samples = asked(folder, f"pruner={pruner}", "threshold=0.4")
    assert len(samples) == rows[pruner]["num_samples"] == NUM_QUESTIONS
    by_number = {line["number"]: line for line in lines[pruner]}
    for sample in samples:
        line, (counts,) = by_number[sample["doc_id"]], sample["token_counts"]
        assert (sample["filtered_resps"], sample["exact_match"]) == (line["prediction"], float(line["correct"]))
        assert (counts["visual_tokens"], counts["visual_tokens_kept"]) == (line["num_visual"], line["num_kept"])
        assert counts["output_tokens"] == line["num_new_tokens"]
    assert results["results"]["own"]["exact_match,none"] == pytest.approx(rows[pruner]["answer_accuracy"], abs=1e-6)
    assert results["throughput"]["avg_keep_ratio"] == pytest.approx(rows[pruner]["keep_ratio"], abs=1e-6)
    assert rows[pruner]["answer_accuracy"] > 0.5 and (rows[pruner]["keep_ratio"] < 0.5) == (pruner == "glimpse")


def test_two_processes_answer_each_question_once(evaluated):
    """accelerate starts both; lmms-eval deals the documents out and gathers the samples."""
    folder, rows, lines = evaluated
    results, samples = asked(folder, "pruner=glimpse", "threshold=0.4", launcher=LAUNCH)
    by_number = {line["number"]: line["prediction"] for line in lines["glimpse"]}
    assert {sample["doc_id"]: sample["filtered_resps"] for sample in samples} == by_number
    assert len(samples) == NUM_QUESTIONS
    expected = rows["glimpse"]["answer_accuracy"]
    assert results["results"]["own"]["exact_match,none"] == pytest.approx(expected, abs=1e-6)


# ---- its protocol, without a task of lmms-eval ------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat():
    from lmms_eval.models import get_model

    return get_model("gp").create_from_arg_string(
        "base=tiny,glimpse=tiny,max_keep_ratio=0.25", {"batch_size": "3", "max_batch_size": None, "device": "cpu"}
    )


@pytest.fixture(scope="module")
def scenes():
    builder = SceneBuilder("test")
    drawn = [builder.build(seed, "color", 8, 8) for seed in range(5)]
    rng = np.random.default_rng(0)
    return [SimpleNamespace(image=one.image, questions=[ask(rng, one, "color") for _ in range(2)]) for one in drawn]


def requests_of(chat, conversations, **generation_kwargs) -> list:
    """Requests as lmms-eval makes them: an argument tuple each, documents in the model's `task_dict`."""
    chat.task_dict["talk"] = {"test": conversations}
    how = {"until": ["\n\n"], "max_new_tokens": 6, **generation_kwargs}
    return [
        SimpleNamespace(args=("", lambda doc: doc, dict(how), i, "talk", "test")) for i in range(len(conversations))
    ]


def question(scene, number: int = 0) -> list[dict]:
    content = [{"type": "image", "url": scene.image}, {"type": "text", "text": scene.questions[number].text}]
    return [{"role": "user", "content": content}]


def test_a_batch_equals_ask(chat, scenes):
    found = chat.generate_until(requests_of(chat, [question(scene) for scene in scenes]))
    for one, scene in zip(found, scenes, strict=True):
        alone = chat.model.ask(scene.image, scene.questions[0].text, max_keep_ratio=0.25, max_new_tokens=6)
        counts = one.token_counts
        assert one.text.strip() == alone.text
        assert (counts.visual_tokens_kept, counts.visual_tokens) == (alone.num_kept, alone.num_visual)
        assert counts.input_tokens > counts.visual_tokens > counts.visual_tokens_kept > 0


def test_images_and_turns_of_a_conversation(chat, scenes):
    """Two images in one question, a second turn, and a question without an image, in one batch."""
    two = question(scenes[0])
    two[0]["content"].insert(1, {"type": "image", "url": scenes[1].image})
    turns = [
        *question(scenes[2]),
        {"role": "assistant", "content": [{"type": "text", "text": scenes[2].questions[0].answer}]},
        {"role": "user", "content": [{"type": "text", "text": scenes[2].questions[1].text}]},
    ]
    blind = [{"role": "user", "content": [{"type": "text", "text": "what number is on the red card ?"}]}]
    found = chat.generate_until(requests_of(chat, [two, turns, blind]))
    one_image = chat.generate_until(requests_of(chat, [question(scenes[0])]))[0].token_counts.visual_tokens
    visual = [one.token_counts.visual_tokens for one in found]
    assert visual == [2 * one_image, one_image, 0]
    asked_both = chat.model.ask(
        [scenes[0].image, scenes[1].image], scenes[0].questions[0].text, max_keep_ratio=0.25, max_new_tokens=6
    )
    assert (found[0].text.strip(), found[0].token_counts.visual_tokens_kept) == (asked_both.text, asked_both.num_kept)
    talk = chat.model.chat(scenes[2].image, max_keep_ratio=0.25, max_new_tokens=6)
    assert talk.ask(scenes[2].questions[0].text).text == scenes[2].questions[0].answer  # else two conversations
    second = talk.ask(scenes[2].questions[1].text)
    assert (found[1].text.strip(), found[1].token_counts.visual_tokens_kept) == (second.text, second.num_kept)


def test_until_ends_an_answer(chat, scenes):
    """Answers are two digits with a space: the space ends them, and no token behind it is made."""
    whole = chat.generate_until(requests_of(chat, [question(scene) for scene in scenes]))
    ended = chat.generate_until(requests_of(chat, [question(scene) for scene in scenes], until=[" ", "\n\n"]))
    assert all(" " in one.text.strip() for one in whole)
    assert [one.text for one in ended] == [one.text.partition(" ")[0] for one in whole]
    assert max(one.token_counts.output_tokens for one in ended) < max(one.token_counts.output_tokens for one in whole)


def test_results_keep_the_order_of_the_requests(chat, scenes):
    mixed = requests_of(chat, [question(scene) for scene in scenes])
    for number, request in enumerate(mixed):
        request.args[2]["max_new_tokens"] = 6 if number % 2 else 5
    backwards = chat.generate_until(mixed[::-1])
    assert [one.text for one in backwards] == [one.text for one in chat.generate_until(mixed)][::-1]


def test_what_cannot_be_answered_names_its_document(chat, scenes):
    film = [{"role": "user", "content": [{"type": "video", "url": "film.mp4"}]}]
    with pytest.raises(ValueError, match="task talk, split test, document 1: gp prunes the tokens of images only"):
        chat.generate_until(requests_of(chat, [question(scenes[0]), film]))
    with pytest.raises(NotImplementedError, match="generate_until, not of loglikelihood"):
        chat.loglikelihood([])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("base=tiny,treshold=0.4", "nearest known one is 'threshold'"),
        ("base=tiny,pruner=random", "budget|num_keep"),
        ("base=tiny,budget=1.5", r"\(0, 1\]"),
    ],
)
def test_mistakes_show_before_a_question_is_asked(arguments, said):
    from lmms_eval.models import get_model

    with pytest.raises(ValueError, match=said):
        get_model("gp").create_from_arg_string(arguments, {"batch_size": 1, "device": "cpu"})


def test_a_batch_size_that_is_none():
    from lmms_eval.models import get_model

    with pytest.raises(ValueError, match="batch_size: expected a whole number from 1, got 'auto'"):
        get_model("gp").create_from_arg_string("base=tiny", {"batch_size": "auto", "device": "cpu"})


def test_a_method_by_name_with_its_settings():
    from lmms_eval.models import get_model

    made = get_model("gp").create_from_arg_string(
        "base=tiny,pruner=fastv,layer=2,compact_cache=True,budget=0.5", {"batch_size": 2, "device": "cpu"}
    )
    image = Image.new("RGB", (224, 224))
    content = [{"type": "image", "url": image}, {"type": "text", "text": "what number is on the red card ?"}]
    (found,) = made.generate_until(requests_of(made, [[{"role": "user", "content": content}]]))
    alone = gp.from_pretrained("tiny").ask(
        image, "what number is on the red card ?", pruner="fastv", layer=2, compact_cache=True, budget=0.5
    )
    assert found.token_counts.visual_tokens_kept == alone.num_kept == alone.num_visual // 2
