"""Callbacks, each with a trainer that is only what it looks at."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from rich.console import Console

from gp.boxes import WHOLE_IMAGE
from gp.data.sample import Sample
from gp.training.callbacks import KeptRatio, LastCheckpoint, PaintKept, Performance, TrainingProgress
from gp.training.callbacks.progress import describe
from gp.training.schedule import Length


class Writer:
    """Keeps what TensorBoard would be told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def add_histogram(self, tag, values, step) -> None:
        self.calls.append((tag, [round(float(v), 4) for v in values], step))

    def add_image(self, tag, image, step, dataformats) -> None:
        self.calls.append((tag, image, step))

    def add_text(self, tag, text, step) -> None:
        self.calls.append((tag, text, step))


class Events(TensorBoardLogger):
    """TensorBoard's logger without files."""

    def __init__(self) -> None:
        self.writer = Writer()

    @property
    def experiment(self) -> Writer:
        return self.writer


def trainer(**changes) -> SimpleNamespace:
    """A trainer at optimizer step 0 that logs every second step and takes two micro-batches a step."""
    given = {
        "loggers": [Events()],
        "is_last_batch": False,
        "is_global_zero": True,
        "sanity_checking": False,
        "accumulate_grad_batches": 2,
        "log_every_n_steps": 2,
        "global_step": 0,
        "max_steps": 4,
        "state": SimpleNamespace(fn="fit"),
        "strategy": SimpleNamespace(
            root_device=torch.device("cpu"), reduce_boolean_decision=lambda decision, all: decision
        ),
        "world_size": 1,
        "fit_loop": SimpleNamespace(state_dict=dict),
        "datamodule": None,
        "callback_metrics": {},
    }
    return SimpleNamespace(**{**given, **changes})


def run_steps(callback, fake, num_steps: int, outputs=None, module=None, batch=None) -> None:
    """Calls `on_train_batch_end` as Lightning does: the optimizer step is counted before its last micro-batch's."""
    for batch_idx in range(2 * num_steps):
        fake.global_step = (batch_idx + 1) // 2
        callback.on_train_batch_end(fake, module, outputs(batch_idx) if outputs else None, batch, batch_idx)


def counts(batch_idx: int) -> dict[str, torch.Tensor]:
    return {"num_kept": torch.tensor([batch_idx, 2]), "num_visual": torch.tensor([10, 8])}


def test_histogram_of_the_prompts_of_each_logging_step():
    fake = trainer()
    run_steps(KeptRatio(), fake, 4, counts)
    # steps 2 and 4, numbered from 0, with the prompts of both of their micro-batches
    assert fake.loggers[0].writer.calls == [
        ("train/keep_ratio_hist", [0.2, 0.25, 0.3, 0.25], 1),
        ("train/keep_ratio_hist", [0.6, 0.25, 0.7, 0.25], 3),
    ]


@pytest.mark.parametrize("changes", [{"is_global_zero": False}, {"loggers": []}])
def test_only_the_first_process_with_a_logger_writes(changes):
    fake = trainer(**changes)
    run_steps(KeptRatio(), fake, 2, counts)
    paint = PaintKept(2)
    paint.on_validation_start(fake, None)
    paint.on_validation_batch_end(fake, None, painted_outputs(), batch(), 0)
    assert not fake.loggers or fake.loggers[0].writer.calls == []


def sample(number: int, size: tuple[int, int] = (80, 40)) -> Sample:
    """Annotated at 80 x 40 px, whatever the size of the image."""
    image = Image.new("RGB", size, (250, 250, 250))
    return Sample(f"s/{number}", image, "what ?", "red", ((40, 0, 79, 19),), 80, 40, "small", "val")


def batch(count: int = 2) -> SimpleNamespace:
    return SimpleNamespace(samples=[sample(number) for number in range(count)], frames=[WHOLE_IMAGE] * count)


def painted_outputs(count: int = 2) -> dict:
    mask = torch.tensor([[True, True], [False, False]])
    return {"keep_masks": [mask] * count, "answers": ["blue"] * count}


def test_the_first_images_are_painted_at_every_validation():
    fake, paint = trainer(global_step=7), PaintKept(3)
    for _ in range(2):
        paint.on_validation_start(fake, None)
        for index in range(3):
            paint.on_validation_batch_end(fake, None, painted_outputs(), batch(), index)
    tags = [call[0] for call in fake.loggers[0].writer.calls if isinstance(call[1], np.ndarray)]
    assert tags == ["val/kept/0", "val/kept/1", "val/kept/2"] * 2
    assert {call[2] for call in fake.loggers[0].writer.calls} == {6}
    text = next(call[1] for call in fake.loggers[0].writer.calls if isinstance(call[1], str))
    assert all(part in text for part in ("what ?", "right: red", "model: blue", "2 of 4 tokens"))


def test_painted_images_are_small_and_boxes_follow_the_image():
    fake, paint = trainer(), PaintKept(1)
    paint.on_validation_start(fake, None)
    large = sample(0, size=(1600, 800))
    given = SimpleNamespace(samples=[large], frames=[WHOLE_IMAGE])  # twenty times the size that the boxes are for
    paint.on_validation_batch_end(fake, None, painted_outputs(1), given, 0)
    image = fake.loggers[0].writer.calls[0][1]
    caption = image[224:]  # below the picture, black on white
    assert image.shape[1:] == (448, 3) and 18 * 4 <= len(caption) < 18 * 6 and caption.min() < 60
    assert tuple(image[0, 224]) == (255, 221, 0) and tuple(image[50, 100]) == (250, 250, 250)
    assert image[200, 100].max() < 120


def test_tokens_are_painted_where_the_model_saw_them():
    """The grid reaches as far again beyond the right border: only its left column lies on the image."""
    fake, paint = trainer(), PaintKept(1)
    paint.on_validation_start(fake, None)
    given = SimpleNamespace(samples=[sample(0)], frames=[(0.0, 0.0, 2.0, 1.0)])
    outputs = {"keep_masks": [torch.tensor([[True, False], [False, False]])], "answers": ["blue"]}
    paint.on_validation_batch_end(fake, None, outputs, given, 0)
    image = fake.loggers[0].writer.calls[0][1]
    assert (image[5, [5, 30]] == 250).all() and image[30, :80].max() < 120


def test_no_images_are_painted_if_none_are_asked_for():
    fake, paint = trainer(), PaintKept(0)
    paint.on_validation_start(fake, None)
    paint.on_validation_batch_end(fake, None, painted_outputs(), batch(), 0)
    assert fake.loggers[0].writer.calls == []


class Saving(SimpleNamespace):
    """A trainer whose checkpoints hold the step, and that can fail half-way."""

    def save_checkpoint(self, path) -> None:
        path.write_text(f"step {self.global_step}")
        if self.fails:
            raise OSError("disk full")


def test_the_last_checkpoint_is_written_every_few_steps_and_at_the_end(tmp_path):
    fake = Saving(**vars(trainer()), fails=False)
    callback = LastCheckpoint(tmp_path / "last.ckpt", every=2)
    seen = []
    for number in range(1, 4):
        fake.global_step = number
        callback.on_train_batch_end(fake, None, None, None, 2 * number - 1)
        seen.append((tmp_path / "last.ckpt").read_text() if (tmp_path / "last.ckpt").exists() else None)
    callback.on_train_end(fake, None)
    assert seen == [None, "step 2", "step 2"] and (tmp_path / "last.ckpt").read_text() == "step 3"
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    fake = Saving(**vars(trainer(global_step=2)), fails=False)
    callback = LastCheckpoint(tmp_path / "last.ckpt", every=2)
    callback.on_train_batch_end(fake, None, None, None, 3)
    fake.fails, fake.global_step = True, 4
    with pytest.raises(OSError, match="disk full"):
        callback.on_train_batch_end(fake, None, None, None, 7)
    assert (tmp_path / "last.ckpt").read_text() == "step 2"


def test_an_error_within_a_step_leaves_the_step_before(tmp_path):
    fake = Saving(**vars(trainer(global_step=2)), fails=False)
    callback = LastCheckpoint(tmp_path / "last.ckpt", every=2)
    callback.on_exception(fake, None, ValueError("before the first step"))
    assert "nothing was saved" in callback.how_to_go_on()
    callback.on_train_batch_end(fake, None, None, None, 3)
    fake.global_step = 3
    callback.on_train_batch_end(fake, None, None, None, 5)
    callback.on_before_optimizer_step(fake, None, None)
    callback.on_exception(fake, None, ValueError("within the optimizer"))
    assert "last.ckpt holds step 2: go on with ckpt=last" in callback.how_to_go_on()
    callback.on_train_batch_end(fake, None, None, None, 5)
    callback.on_exception(fake, None, ValueError("after it"))
    assert "last.ckpt holds step 3" in callback.how_to_go_on() and (tmp_path / "last.ckpt").read_text() == "step 3"


class Trained(SimpleNamespace):
    """A batch of three prompts with 5 + 2 + 3 tokens, and answers with 1 + 2 + 1; the rest is padding."""

    def __init__(self) -> None:
        prompts, answers = (torch.tensor(lengths)[:, None] for lengths in ([5, 2, 3], [1, 2, 1]))
        super().__init__(
            sent={"attention_mask": (torch.arange(5) < prompts).long()}, answer_mask=torch.arange(2) < answers
        )

    def __len__(self) -> int:
        return 3


def test_times_and_rates_leave_validation_out(monkeypatch):
    logged: list[dict] = []
    module = SimpleNamespace(log_dict=lambda figures, **options: logged.append(figures))
    fake, performance = trainer(train_dataloader=SimpleNamespace(waited_s=1.0)), Performance()
    clock = iter([0.0, 10.0, 13.0, 14.0, 20.0])  # start, validation from and to, step 2, step 4
    monkeypatch.setattr("gp.measure.stopwatch.time.perf_counter", lambda: next(clock))
    performance.on_train_start(fake, module)
    performance.on_validation_start(fake, module)
    performance.on_validation_end(fake, module)
    fake.train_dataloader.waited_s = 3.2
    run_steps(performance, fake, 4, module=module, batch=Trained())
    figures = [{**logged[number], **logged[number + 1]} for number in (0, 2)]
    assert [one["perf/step_s"] for one in figures] == [(14 - 3) / 2, (20 - 14) / 2]
    assert [one["perf/samples_per_s"] for one in figures] == [4 * 3 / 11, 4 * 3 / 6]
    assert [one["perf/tokens_per_s"] for one in figures] == [4 * 14 / 11, 4 * 14 / 6]
    assert [one["perf/data_wait"] for one in figures] == pytest.approx([2.2 / 11, 0])
    assert all(1 < one["perf/peak_mib"] < 1e6 for one in figures)


METRICS = {
    "train/loss": torch.tensor(0.4123),
    "train/keep_ratio": torch.tensor(0.053),
    "val/keep_ratio": torch.tensor(0.06),
    "val/mask_iou": torch.tensor(0.91),
    "val/answer_accuracy": torch.tensor(0.985),
}


def test_figures_in_words():
    assert describe(METRICS, "train") == "loss 0.412, kept 5.3 %"
    assert describe(METRICS, "val") == "kept 6.0 %, mask IoU 0.910, answers right 98.5 %"
    assert describe({}, "val") == ""


def test_plain_lines(capsys):
    fake, progress = trainer(callback_metrics=METRICS), TrainingProgress()
    progress.length = Length(max_steps=4, per_step=3, num_samples=6)
    progress.on_train_start(fake, None)
    run_steps(progress, fake, 4)
    progress.on_validation_end(fake, None)
    progress.on_train_end(fake, None)
    progress.on_validation_end(fake, None)  # the one after training
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["train step 2/4", "train step 4/4", *["val step 4/4"] * 2]
    assert "  epoch 1.00/2  loss 0.412, kept 5.3 %  " in lines[0] and lines[2].endswith("answers right 98.5 %")


def test_other_processes_are_silent(capsys):
    fake, progress = trainer(callback_metrics=METRICS), TrainingProgress()
    progress.disable()
    progress.on_train_start(fake, None)
    run_steps(progress, fake, 4)
    progress.on_validation_end(fake, None)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar_with_loss_and_kept_ratio():
    out = io.StringIO()
    progress = TrainingProgress(Console(file=out, force_terminal=True, width=140))
    fake = trainer(callback_metrics=METRICS)
    progress.on_train_start(fake, None)
    run_steps(progress, fake, 1)
    progress.on_validation_batch_end(fake, None, None, None, 0)
    progress.on_validation_end(fake, None)
    run_steps(progress, fake, 2)
    progress.on_train_end(fake, None)
    text = out.getvalue()
    assert "2/4" in text and "loss 0.412, kept 5.3 %" in text and "val step 1/4  kept 6.0 %, mask IoU 0.910" in text
    progress.on_train_end(fake, None)  # twice is harmless
