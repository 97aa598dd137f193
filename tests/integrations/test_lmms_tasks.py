"""The tasks that ship with the package: they name files that are there, and ask what the shards ask."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import gp.integrations.lmms_tasks
from gp.data.card_shards import CARD_SPLITS
from gp.data.sample import BadSample, parse_record
from gp.data.shards import read_records
from gp.integrations.lmms_tasks.utils import documents, process_results
from tests.support.small_shards import fields, image_bytes, write_tar

FOLDER = Path(gp.integrations.lmms_tasks.__file__).parent
TASKS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_task_names_what_is_there(path):
    class Loader(yaml.SafeLoader):
        """Reads `!function` as the text behind it."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task = yaml.load(path.read_text(), Loader)
    whole = yaml.load((FOLDER / task["include"]).read_text(), Loader)
    named = {name for name in whole.values() if isinstance(name, str) and name.startswith("utils.")}
    assert all(hasattr(gp.integrations.lmms_tasks.utils, name.removeprefix("utils.")) for name in named)
    assert len(named) == 3 and task["task"] == path.stem
    rows = [json.loads(line) for line in (FOLDER / task["dataset_kwargs"]["data_files"]["test"]).open()]
    assert [row["root"] for row in rows] == ["data"]
    assert all(entry.removeprefix("tiny:") in CARD_SPLITS for row in rows for entry in row["shards"])


def test_documents_are_the_questions_of_the_shards(tmp_path):
    two = [fields(question=text, answer="Red") for text in ("what is here ?", "what is big ?")]
    shard = write_tar(
        tmp_path / "a-000000.tar",
        {
            "0.jpg": image_bytes(),
            "0.json": json.dumps(two).encode(),
            "1.jpg": image_bytes(color=(0, 0, 200)),
            "1.json": json.dumps(fields(answer="blue")).encode(),
        },
    )
    found = list(documents([shard]))
    samples = [parse_record(record) for record in read_records(shard, "a-000000")]
    assert [(doc["id"], doc["question"], doc["answer"]) for doc in found] == [
        (sample.id, sample.question, sample.answer) for sample in samples
    ]
    for doc, sample in zip(found, samples, strict=True):
        shown = Image.open(io.BytesIO(doc["image"]["bytes"])).convert("RGB")
        assert np.array_equal(np.asarray(shown), np.asarray(sample.image))
    assert process_results(found[0], ["the red."]) == {"exact_match": 1.0}
    assert process_results(found[2], ["red"]) == {"exact_match": 0.0}


def test_a_bad_question_is_named(tmp_path):
    shard = write_tar(tmp_path / "a-000000.tar", {"0.jpg": image_bytes(), "0.json": b"{}"})
    with pytest.raises(BadSample, match="key 0: missing field"):
        list(documents([shard]))
