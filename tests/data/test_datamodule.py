"""The DataModule under Lightning's Trainer: what a resumed run sees, on any number of workers and ranks."""

from __future__ import annotations

import json
import warnings
from itertools import chain, islice
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from gp.config.schema import DataConfig
from gp.data.batch import Collator
from gp.data.datamodule import GlimpseDataModule
from tests.support.small_shards import add_manifest, number_of, small_processor, write_shards

SIZES = [5, 3, 6, 4, 2, 4]
TOTAL = sum(SIZES)
BAD = 7


class Recorder(L.LightningModule):
    """Writes down the samples of every batch that it is trained on."""

    def __init__(self, fail_at: int | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained, self.validated = [], []
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        if len(self.trained) == self.fail_at:
            raise RuntimeError("half-way")
        assert batch.samples[0].image is None
        self.trained.append([number_of(sample) for sample in batch.samples])
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        assert batch.samples[0].image is not None
        self.validated += [number_of(sample) for sample in batch.samples]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def collator():
    return Collator(small_processor())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    add_manifest(write_shards(root, SIZES, bad={BAD}), SIZES)
    return root


@pytest.fixture(scope="module")
def folder_without_manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    write_shards(root, SIZES, bad={BAD})
    return root


def make(folder, collator, seed=0, **changes) -> GlimpseDataModule:
    shards = [f"s{{0..{len(SIZES) - 1}}}.tar"]
    given = {"root": str(folder), "train": shards, "val": shards, "test": {"easy": shards}, "batch_size": 2}
    given |= {"eval_batch_size": 4, "num_workers": 0, "shuffle_buffer": 3, "max_skipped_fraction": 0.1}
    return GlimpseDataModule(DataConfig(**{**given, **changes}), collator, seed=seed)


def make_trainer(folder, steps: int, **options) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    given = {"accelerator": "cpu", "devices": 1, "use_distributed_sampler": False, "limit_val_batches": 0}
    given |= {"max_steps": steps, "max_epochs": -1, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=folder, **{**quiet, **given, **options})


def run(datamodule, trainer, ckpt_path=None, module=None) -> list[list[int]]:
    module = module or Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    return module.trained


def checkpoint_after(steps: int, folder, collator, tmp_path, **changes):
    path = tmp_path / "stop.ckpt"
    trainer = make_trainer(tmp_path, steps)
    seen = run(make(folder, collator, **changes), trainer)
    trainer.save_checkpoint(path)
    return seen, path


@pytest.mark.parametrize(("workers", "precision"), [(0, "bf16-mixed"), (2, "32-true")])
def test_resumed_run_goes_on_with_the_very_next_sample(folder, collator, tmp_path, workers, precision):
    whole = run(make(folder, collator, num_workers=workers), make_trainer(tmp_path, 25, precision=precision))
    before, path = checkpoint_after(9, folder, collator, tmp_path, num_workers=workers)
    after = run(make(folder, collator, num_workers=workers), make_trainer(tmp_path, 25, precision=precision), path)
    assert before == whole[:9]
    assert after == whole[9:]
    assert BAD not in chain(*whole)


def test_resuming_twice(folder, collator, tmp_path):
    whole = run(make(folder, collator, num_workers=2), make_trainer(tmp_path, 9))
    seen, path = checkpoint_after(3, folder, collator, tmp_path, num_workers=2)
    for steps in (4, 9):
        trainer = make_trainer(tmp_path, steps)
        seen = seen + run(make(folder, collator, num_workers=2), trainer, path)
        path = tmp_path / f"{steps}.ckpt"
        trainer.save_checkpoint(path)
    assert seen == whole


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("kind", ["folder", "folder_without_manifest"])
def test_other_number_of_workers_loses_and_repeats_nothing(request, kind, collator, tmp_path, workers):
    folder = request.getfixturevalue(kind)
    before, path = checkpoint_after(7, folder, collator, tmp_path, num_workers=2, batch_size=1)
    datamodule = make(folder, collator, num_workers=workers, batch_size=1)
    seen = list(chain(*before, *run(datamodule, make_trainer(tmp_path, 60), path)))
    good = sorted(set(range(TOTAL)) - {BAD})
    assert sorted(set(seen)) == good
    if kind == "folder":  # each stream has a fair share of what was left: nobody begins the next epoch at once
        assert len(set(seen[:19])) == 19
    if workers == 0:  # one stream: the rest of the old epoch comes first, then a whole new one
        assert sorted(seen[: len(good)]) == sorted(seen[len(good) : 2 * len(good)]) == good


def test_batch_that_failed_is_not_lost(folder, collator, tmp_path):
    whole = run(make(folder, collator), make_trainer(tmp_path, 8))
    trainer, path = make_trainer(tmp_path, 8), tmp_path / "failed.ckpt"
    module = Recorder(fail_at=5)
    with pytest.raises(RuntimeError, match="half-way"):
        run(make(folder, collator), trainer, module=module)
    trainer.save_checkpoint(path)
    assert module.trained + run(make(folder, collator), make_trainer(tmp_path, 8), path) == whole


def test_checkpoint_loads_with_weights_only(folder, collator, tmp_path):
    _, path = checkpoint_after(2, folder, collator, tmp_path)
    state = torch.load(path, weights_only=True)["GlimpseDataModule"]
    assert json.loads(json.dumps(state)) == state


EARLIER = {  # written by a run of 10 steps before positions had their present names: 7 of two workers, 3 of three
    "order": {
        "seed": 0,
        "data.shuffle_buffer": 3,
        "data.bucket_batches": 1,
        "data.batch_size (with data.bucket_batches)": None,
        "number of shards": 6,
        "number of samples (from manifests)": 24,
        "digest of the shards' names and samples": "747edb7743a98591",
    },
    "world": 1,
    "next_worker": 0,
    "streams": [
        [[0, 0, 2, 5, 9], [1, 0, 3, 0, None]],
        [[0, 0, 2, 10, 12], [0, 1, 2, 3, 6], [1, 1, 3, 0, None]],
        [[0, 1, 2, 7, 12], [1, 2, 3, 0, None]],
    ],
}


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (3, [4, 9, 20, 8, 13, 12, 6, 16, 21, 10, 15, 23, 10, 4, 22, 9, 20, 17, 12, 2]),
        (0, [4, 8, 6, 10, 9, 13, 16, 15, 20, 12, 21, 23, 22, 9, 10, 11, 8, 12, 21, 20]),
    ],
)
def test_a_checkpoint_of_before_goes_on_with_the_samples_that_came_then(folder, collator, workers, expected):
    """The samples that the version which wrote it went on with, on as many workers and on one stream."""
    datamodule = make(folder, collator, num_workers=workers, batch_size=1)
    datamodule.load_state_dict(EARLIER)
    batches = islice(datamodule.train_dataloader(), len(expected))
    assert [number_of(sample) for batch in batches for sample in batch.samples] == expected
    again = make(folder, collator, num_workers=3, batch_size=1)
    again.load_state_dict(EARLIER)
    again.train_dataloader()
    assert again.state_dict() == EARLIER


@pytest.mark.parametrize(
    ("changes", "message"), [({"seed": 1}, "seed 0, this run has 1"), ({"train": ["s0.tar"]}, "number of shards 6"),
                             ({"shuffle_buffer": 9}, "data.shuffle_buffer 3"),
                             ({"bucket_batches": 4}, "data.bucket_batches 1, this run has 4")]
)  # fmt: skip
def test_resuming_in_another_order_is_refused(folder, collator, tmp_path, changes, message):
    datamodule = make(folder, collator)
    datamodule.train_dataloader()
    other = make(folder, collator, **changes)
    other.load_state_dict(datamodule.state_dict())
    with pytest.raises(ValueError, match=message):
        other.train_dataloader()


def test_a_manifest_that_appeared_or_changed_is_other_data(folder, folder_without_manifest, collator):
    datamodule = make(folder_without_manifest, collator)
    datamodule.train_dataloader()
    other = make(folder, collator)
    other.load_state_dict(datamodule.state_dict())
    with pytest.raises(ValueError, match=r"number of samples .*None, .*24"):
        other.train_dataloader()


def test_a_checkpoint_of_an_older_version_is_refused_in_words(folder, collator):
    datamodule = make(folder, collator)
    old = {"seed": 0, "data.shuffle_buffer": 3, "number of shards": 6, "digest of the shards' names": "0"}
    datamodule.load_state_dict({"order": old, "world": 1, "next_worker": 0, "streams": [[[0, 0, 1, 5]]]})
    with pytest.raises(ValueError, match="another version of this code"):
        datamodule.train_dataloader()


def test_ranks_that_see_other_data_do_not_start(folder, collator, monkeypatch):
    """As if the second rank had found no manifest: it would read samples of the first."""

    def gather(everyone, mine):
        everyone[:] = [mine, {**mine, "number of samples (from manifests)": None}]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    datamodule = make(folder, collator)
    datamodule.trainer = SimpleNamespace(global_rank=0, world_size=2)
    with pytest.raises(ValueError, match=r"rank 0 .*number of samples .*24, rank 1 .*None"):
        datamodule.train_dataloader()


def test_samples_of_an_epoch(folder, folder_without_manifest, collator):
    assert make(folder, collator).num_train_samples() == TOTAL
    assert make(folder_without_manifest, collator).num_train_samples() is None
    assert make(folder, collator, num_workers=99).fit_workers(2) == TOTAL // 2
    assert make(folder_without_manifest, collator, num_workers=99).fit_workers(2) == len(SIZES) // 2


def test_bucketed_batches_by_the_tokens_that_the_collator_counts(folder, collator, tmp_path):
    whole = run(make(folder, collator, bucket_batches=3), make_trainer(tmp_path, 12))
    assert sorted(chain(*whole)) == [n for n in range(TOTAL) if n != BAD]
    before, path = checkpoint_after(5, folder, collator, tmp_path, bucket_batches=3)
    assert before + run(make(folder, collator, bucket_batches=3), make_trainer(tmp_path, 12), path) == whole


def test_moved_folder_is_the_same_data(folder, collator, tmp_path):
    add_manifest(write_shards(tmp_path, SIZES, bad={BAD}), SIZES)
    datamodule = make(folder, collator)
    datamodule.train_dataloader()
    moved = make(tmp_path, collator)
    moved.load_state_dict(datamodule.state_dict())
    moved.train_dataloader()


def test_validation_in_training_sees_everything_once_each_time(folder, collator, tmp_path):
    module = Recorder()
    trainer = make_trainer(tmp_path, 4, limit_val_batches=None, val_check_interval=2, check_val_every_n_epoch=None)
    run(make(folder, collator), trainer, module=module)
    assert module.validated == [n for n in range(TOTAL) if n != BAD] * 2


def test_loaders_without_a_trainer(folder, collator):
    datamodule = make(folder, collator)
    batches = list(datamodule.test_dataloader("easy"))
    assert [number_of(s) for b in batches for s in b.samples] == [n for n in range(TOTAL) if n != BAD]
    assert batches[0].position is None
    done = [s.number for b in batches[:2] for s in b.samples]
    loaders = [datamodule.eval_loader(["s{0..5}.tar"], rank, 3, done) for rank in range(3)]
    rest = [batch for loader in loaders for batch in loader]
    assert sorted(number_of(s) for b in rest for s in b.samples) == [4, 5, 6, *range(8, TOTAL)]  # beside a bad one
    with pytest.raises(ValueError, match="no split 'hard', only easy"):
        datamodule.test_dataloader("hard")
    assert len(next(iter(datamodule.train_dataloader()))) == 2


@pytest.mark.parametrize("counted", [True, False])
def test_a_part_of_the_validation_is_of_all_its_sets(folder, folder_without_manifest, collator, counted):
    """Counted by the manifest or, without one, by reading: the same draw, of the first shard as of the last."""
    datamodule = make(folder if counted else folder_without_manifest, collator)
    datamodule.val_samples = 16
    ids = [sample.id for batch in datamodule.val_dataloader() for sample in batch.samples]
    assert len(ids) == 15 and {key.split("/")[0] for key in ids} == {f"s{index}" for index in range(len(SIZES))}
    assert ids == [s.id for b in make_drawn(folder, collator, 16) for s in b.samples]


def make_drawn(folder, collator, num_samples: int):
    return make(folder, collator, seed=5).eval_loader(["s{0..5}.tar"], num_samples=num_samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_skips_of_an_evaluation_are_counted_over_its_workers(folder, collator, workers):
    loader = make(folder, collator, num_workers=workers).test_dataloader("easy")
    list(loader)
    assert (loader.skips.seen, dict(loader.skips.reasons)) == (TOTAL, {"image does not open": 1})
    strict = make(folder, collator, num_workers=workers, max_skipped_fraction=0.04).test_dataloader("easy")
    with pytest.raises(ValueError, match=r"max_skipped_fraction = 0\.04 .*1 of 24 .*image"):
        list(strict)


def test_missing_shards_are_found_before_training(folder, collator):
    with pytest.raises(FileNotFoundError, match=r"gone\.tar"):
        make(folder, collator, val=["gone.tar"]).prepare_data()


def test_two_ranks_under_lightnings_launcher(folder, collator, tmp_path):
    """Each rank its own samples in training and in validation; one checkpoint holds both places and resumes both.

    One process can go on with it too: it reads what the two had left.
    """
    whole = two_ranks(folder, collator, tmp_path / "whole", 6)
    before = two_ranks(folder, collator, tmp_path / "a", 3)
    after = two_ranks(folder, collator, tmp_path / "b", 6, tmp_path / "a" / "end.ckpt")
    for rank in range(2):
        assert before[rank]["trained"] + after[rank]["trained"] == whole[rank]["trained"]
    first = [set(chain(*result["trained"][:2])) for result in whole]
    assert not first[0] & first[1]
    validated = [result["validated"] for result in whole]
    assert sorted(validated[0] + validated[1]) == [n for n in range(TOTAL) if n != BAD]
    assert len(torch.load(tmp_path / "a" / "end.ckpt", weights_only=True)["GlimpseDataModule"]["streams"]) == 4
    done = list(chain(*before[0]["trained"], *before[1]["trained"]))
    left = TOTAL - 1 - len(done)
    alone = run(make(folder, collator, batch_size=1), make_trainer(tmp_path, 3 + left), tmp_path / "a" / "end.ckpt")
    assert sorted([*done, *chain(*alone)]) == [n for n in range(TOTAL) if n != BAD]


def two_ranks(folder, collator, out, steps: int, ckpt_path=None) -> list[dict]:
    out.mkdir()
    options = {"devices": 2, "strategy": "ddp_fork", "limit_val_batches": None, "val_check_interval": steps}
    trainer = make_trainer(out, steps, callbacks=[WriteDown(out)], check_val_every_n_epoch=None, **options)
    run(make(folder, collator, num_workers=2, batch_size=1), trainer, ckpt_path)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


class WriteDown(L.Callback):
    """Brings what a forked rank saw back to the test."""

    def __init__(self, out):
        self.out = out

    def on_fit_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.out / "end.ckpt")
        seen = {"trained": pl_module.trained, "validated": pl_module.validated[-TOTAL:]}
        (self.out / f"{trainer.global_rank}.json").write_text(json.dumps(seen))


def test_endless(folder, collator):
    batches = islice(iter(make(folder, collator).train_dataloader()), 30)
    assert all(len(batch) == 2 for batch in batches)
