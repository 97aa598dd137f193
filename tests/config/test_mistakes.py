"""Settings that cannot be, through the command: one line that names source, key, what was expected and what came."""

from __future__ import annotations

import pytest

import train
from tests.support.config_files import MINIMAL, refusal

# what is given, and what the line must hold
UNKNOWN = [
    ("optim.learning_rate=1", "unknown key 'optim.learning_rate'; the nearest known one is 'optim."),
    ("optin.lr=1", "unknown key 'optin'; the nearest known one is 'optim'"),
    ("eval.prunr=[none]", "unknown key 'eval.prunr'; the nearest known one is 'eval.pruners'"),
    ("task=dance", "task must be one of gate, glimpse, grpo, pretrain, pretrain_cards, got 'dance'"),
    ("model.dtype=float8", "model.dtype must be one of float32, bfloat16, float16, got 'float8'; the nearest"),
    ("glimpse.norm=rms", "the nearest known one is 'rmsnorm'"),
    ("trainer.precision=bf16-mix", "the nearest known one is 'bf16-mixed'"),
    (
        "data.worker_start_method=thread",
        "worker_start_method must be null or one of fork, spawn, forkserver, got 'thread'",
    ),
    ("prune.anchors=[top]", "prune.anchors[0] must be one of tl, tr, bl, br, got 'top'"),
    ("eval.splits=[night]", "eval.splits ['night'] not in data.test, which has ['test']"),
    ("eval.pruners=[glimse]", "unknown pruner 'glimse'; the nearest known one is 'glimpse'"),
    ("eval.methods.fastw.layer=1", "eval.methods.fastw: no pruner 'fastw'"),
    ("eval.methods.fastv.layr=1", "eval.methods.fastv: pruner 'fastv' has no setting 'layr'"),
    ("trainer.strategy=dpd", "trainer.strategy dpd"),
]


TYPES = [
    ("optim.max_steps=many", "optim.max_steps must be null or a whole number, 1 or more, got 'many'"),
    ("optim.max_steps=1.5", "got 1.5"),
    ("data.batch_size=true", "data.batch_size must be a whole number, 1 or more, got True"),
    ("optim.lr=[1]", "optim.lr must be a number, more than 0, got [1]"),
    ("vip.taps={a: 1}", "vip.taps must be a list of 1 or more"),
    ("vip.taps=3", "vip.taps must be a list of 1 or more"),
    ("vip.taps=[[3]]", "vip.taps[0] must be a whole number, 0 or more, got [3]"),
    ("data.train={a: b}", "data.train must be a list of 1 or more"),
    ("data.test=[a]", "data.test must be a mapping of 1 or more"),
    ("data.test={a: b}", "data.test.a must be a list"),
    ("optim=3", "optim must be a section with keys of its own, got 3"),
    ("optim=null", "optim must be a section"),
    ("name=[a]", "name must be text, got ['a']"),
    ("seed=null", "seed must be a whole number in [0, 4294967295], got None"),
    ("eval.after_training=perhaps", "eval.after_training must be true or false, got 'perhaps'"),
    ("eval.methods={fastv: 3}", "eval.methods.fastv must be a mapping"),
    ("eval.methods.fastv.layer=two", "eval.methods.fastv.layer must be a whole number, got 'two'"),
    ("eval.methods.pyramid_drop.layers=3", "eval.methods.pyramid_drop.layers must be null or a list"),
]


RANGES = [
    ("optim.lr=nan", "optim.lr must be a number, more than 0, got 'nan'"),
    ("optim.lr=.nan", "got nan"),
    ("loss.dice=.inf", "loss.dice must be a number, 0 or more, got inf"),
    ("eval.methods.vscan.kept_in_llm=.nan", "eval.methods.vscan.kept_in_llm must be finite, got nan"),
    ("loss.bce=-1", "loss.bce must be a number, 0 or more, got -1"),
    ("optim.betas=[0.9,0.99,0.999]", "optim.betas must be a list of exactly 2"),
    ("optim.betas=[0.9,1]", "optim.betas[1] must be a number in [0, 1), got 1"),
    ("optim.warmup_fraction=2", "optim.warmup_fraction must be a number in [0, 1], got 2"),
    ("optim.max_steps=0", "got 0"),
    ("trainer.val_every=0", "trainer.val_every must be a whole number, 1 or more, got 0"),
    ("trainer.save_every=-5", "trainer.save_every must be"),
    ("trainer.log_every=0", "trainer.log_every must be"),
    ("trainer.devices=0", "trainer.devices must be auto, 1 or more"),
    ("trainer.devices=some", "trainer.devices must be auto, 1 or more"),
    ("trainer.gradient_clip_val=0", "trainer.gradient_clip_val must be null or"),
    ("data.bucket_batches=0", "data.bucket_batches must be a whole number, 1 or more"),
    ("data.max_skipped_fraction=3", "data.max_skipped_fraction must be a number in [0, 1]"),
    ("vip.taps=[]", "vip.taps must be a list of 1 or more"),
    ("vip.taps=[-1]", "vip.taps[0] must be a whole number, 0 or more"),
    ("vip.taps=[3,3]", "vip.taps must not name anything twice"),
    ("glimpse.prune_layer=-1", "glimpse.prune_layer must be"),
    ("prune.max_keep_ratio=2", "prune.max_keep_ratio must be null or a number in (0, 1], got 2"),
    ("prune.threshold=1", "prune.threshold must be a number in [0, 1)"),
    ("eval.budgets=[]", "eval.budgets must be a list of 1 or more"),
    ("eval.budgets=[0.0]", "eval.budgets[0] must be null or a number in (0, 1]"),
    ("eval.pruners=[]", "eval.pruners must be a list of 1 or more"),
    ("eval.num_samples=0", "eval.num_samples must be null or"),
    ("seed=-1", "seed must be a whole number in [0, 4294967295]"),
    (f"prune.min_kept={10**30}", "prune.min_kept must be a whole number, 0 or more, got 1000"),
    ("model.base=''", "model.base must be text, got ''"),
    ("name=''", "name must be text, got ''"),
]


CONTRADICTIONS = [
    ("name=../elsewhere", "name must be a folder inside runs_dir"),
    ("name=/elsewhere", "name must be a folder inside runs_dir"),
    ("name=.", "name must be a folder inside runs_dir"),
    ("glimpse.read_layers=[3]", "read after glimpse.prune_layer 2"),
    ("glimpse.layers=[1,2]", "must contain 0"),
    ("model.attn_implementation=flash_attention_2", "needs model.dtype bfloat16"),
    ("optim.epochs=1", "optim.max_steps 3 and optim.epochs 1 contradict each other"),
    ("optim.max_steps=null", "no value for optim.max_steps or optim.epochs"),
    ("vip.num_heads=3", "vip.num_heads 3 must divide vip.hidden_size 256"),
    ("data.test={a/b: [x.tar], test: [x.tar]}", "a split's name must be one without slashes, got 'a/b'"),
]


FORMS = [
    ("vip.taps", "command line: expected key=value, got 'vip.taps'"),
    ('data.test={a:["tiny:a"]}', "is not YAML"),
    ("name=${nothing}", "nothing"),
    ("name=???", "no value for name"),
]


@pytest.mark.parametrize(("given", "expected"), [*UNKNOWN, *TYPES, *RANGES, *CONTRADICTIONS, *FORMS])
def test_a_mistake_is_one_line_and_status_2(minimal, given, expected, capsys):
    line = refusal(capsys, str(minimal), given)
    assert expected in line
    key = given.partition("=")[0]
    if (given, expected) in [*TYPES, *RANGES] and not key.startswith(("trainer.devices", "eval.methods.")):
        assert line.startswith(f"error: command line: {key}")


def test_a_section_that_is_a_value_too(minimal, capsys):
    assert train.main(["--config", str(minimal), "optim.lr=1", "optim=[3]"]) == 2
    assert "command line: optim.lr=1 optim=[3] contradict each other" in capsys.readouterr().err


def test_a_choice_where_a_list_is_expected_is_not_told_to_be_itself(minimal, capsys):
    assert refusal(capsys, str(minimal), "prune.anchors=tl").endswith("each one of tl, tr, bl, br, got 'tl'")


def test_the_file_is_named_where_the_file_is_wrong(minimal, capsys):
    minimal.write_text(MINIMAL + "seed: x\n")
    assert refusal(capsys, str(minimal)).startswith(f"error: config {minimal}: seed must be")
    assert refusal(capsys, str(minimal), "seed=y").startswith("error: command line: seed must be")


def test_what_must_be_given_is_named(minimal, capsys):
    minimal.write_text(MINIMAL.replace("glimpse: {prune_layer: 2}", "").replace("base: tiny", ""))
    line = refusal(capsys, str(minimal))
    assert line == f"error: config {minimal}: no value for glimpse.prune_layer, model.base"
