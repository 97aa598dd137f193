"""`train.py` on two devices whose closing evaluation fails in one process: told once, a status, and it can go on."""

from __future__ import annotations

import pytest

from tests.support.eval_results import summary_in
from tests.support.micro_run import save_base, write_config
from tests.support.train_command import finish, start

STEPS = ("optim.max_steps=1", "trainer.val_samples=1", "trainer.paint_images=0", "trainer.devices=2")
EVALUATION = ("eval.after_training=true", "eval.pruners=[oracle]", "eval.costs=false", "eval.overlays=0")
FAILING = """
import os
from gp.eval.runner import SplitRun
stock = SplitRun.answer
def answer(self, batch):
    if os.environ["LOCAL_RANK"] == "{rank}" and self.split == "test" and "samples" in str(self.folder):
        raise {error}
    return stock(self, batch)
SplitRun.answer = answer
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("rank", "error", "status", "words"),
    [
        (1, "ValueError('no such layer')", 2, "error: evaluation after training (all is trained and saved"),
        pytest.param(1, "MemoryError('out of memory')", 1, "evaluation of split test", marks=pytest.mark.slow),
        pytest.param(0, "ValueError('no such layer')", 2, "error: evaluation after", marks=pytest.mark.slow),
    ],
)
def test_an_error_in_one_process(tmp_path, base, rank, error, status, words):
    write_config(tmp_path, base)
    patch = FAILING.format(rank=rank, error=error)
    found, out, err = finish(start(tmp_path, *STEPS, *EVALUATION, patch=patch))
    assert found == status, (found, out, err)
    told = [line for line in err.splitlines() if line.startswith(words)]
    assert len(told) == 1 and "go on with python evaluate.py" in told[0], err
    assert "gloo" not in err and "Traceback" not in err, err
    command = told[0].split("go on with python evaluate.py ")[1].split(")")[0]
    assert command.startswith("ckpt=")
    assert (tmp_path / "runs/micro/last.ckpt").is_file()


@pytest.mark.slow  # as a whole run on two processes in test_ddp.py shows, in the default selection
def test_both_processes_answer(tmp_path, base):
    write_config(tmp_path, base)
    status, out, err = finish(start(tmp_path, *STEPS, *EVALUATION))
    assert status == 0, (out, err)
    folder = tmp_path / "runs/micro/eval"
    assert [row["num_samples"] for row in summary_in(folder)] == [5, 5]
    assert len(list((folder / "samples").glob("*.rank1of2.jsonl"))) == 2
