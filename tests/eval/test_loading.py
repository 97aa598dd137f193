"""From a checkpoint to a model: every form of it, and what is said when it cannot be."""

from __future__ import annotations

import shutil

import pytest
import torch

from gp.eval import load_run, out_folder, weights_id
from gp.types import PruneOptions
from tests.support.micro_eval import micro_base
from tests.support.small_shards import small_processor


def test_file_run_folder_and_exported_parts_are_the_same_model(micro):
    models = [load_run(path)[0] for path in (micro.ckpt, micro.run, micro.run / "glimpse")]
    assert len({weights_id(model) for model in models}) == 1
    state = torch.load(micro.ckpt, weights_only=True)["state_dict"]
    for key, value in models[0].glimpse.state_dict().items():
        assert torch.equal(value, state[f"model.glimpse.{key}"])
    assert all(model.glimpse.prune_layer == 1 and not model.training for model in models)


def test_overrides_reach_model_and_config(micro):
    model, config = load_run(micro.ckpt, ["prune.max_keep_ratio=0.3", "eval.splits=[part]", "model.dtype=bfloat16"])
    assert model.options == PruneOptions(max_keep_ratio=0.3)
    assert config.eval.splits == ["part"]
    assert model.backbone.dtype == torch.bfloat16
    assert weights_id(model) == weights_id(load_run(micro.ckpt)[0])  # the trained parts stay float32


def test_parts_say_themselves_where_they_prune(micro):
    model, config = load_run(micro.run / "glimpse", ["glimpse.prune_layer=2"])
    assert model.glimpse.prune_layer == config.glimpse.prune_layer == 1


def test_out_folder(micro, tmp_path):
    _, config = load_run(micro.ckpt)
    assert out_folder(config, micro.ckpt) == out_folder(config, micro.run) == micro.run / "eval"
    assert out_folder(config, micro.run / "glimpse") == micro.run / "eval"
    alone = [tmp_path / name for name in ("one", "two")]
    for folder in alone:
        folder.mkdir()
    assert [out_folder(config, folder) for folder in alone] == [folder / "eval" for folder in alone]
    assert out_folder(config, "tiny") == out_folder(config, "tiny") == micro.run / "eval"
    config.eval.out = str(tmp_path)
    assert out_folder(config, micro.ckpt) == tmp_path


def test_no_checkpoint(micro, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"first\.ckpt: no such file or folder; there is last\.ckpt"):
        load_run(micro.run / "first.ckpt")
    with pytest.raises(FileNotFoundError, match=r"neither a run \(last\.ckpt\) nor a folder of trained parts"):
        load_run(tmp_path)


def test_no_config(micro, tmp_path):
    shutil.copy(micro.ckpt, tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError, match=rf"no config\.yaml in {tmp_path}; name the run's config with --config"):
        load_run(tmp_path / "last.ckpt")
    model, _ = load_run(tmp_path / "last.ckpt", config_path=micro.run / "config.yaml")
    assert weights_id(model) == weights_id(load_run(micro.ckpt)[0])


def test_unknown_key(micro):
    with pytest.raises(ValueError, match=r"unknown key 'eval\.pruner'; the nearest known one is 'eval\.pruners'"):
        load_run(micro.ckpt, ["eval.pruner=none"])


def test_other_base(micro, tmp_path):
    micro_base(hidden=128).save_pretrained(tmp_path / "wide")
    small_processor().save_pretrained(tmp_path / "wide")
    for ckpt in (micro.ckpt, micro.run / "glimpse"):
        with pytest.raises(ValueError, match=r"trained on another base.*: hidden_size 64 there, 128 here"):
            load_run(ckpt, [f"model.base={tmp_path / 'wide'}"])


def test_other_shape(micro):
    with pytest.raises(ValueError, match=r"last\.ckpt: vip\.hidden_size 16 there, 32 here"):
        load_run(micro.ckpt, ["vip.hidden_size=32"])


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "half"])
def test_not_a_checkpoint(micro, tmp_path, content):
    path = shutil.copytree(micro.run, tmp_path / "run") / "last.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=r"last\.ckpt: not a checkpoint of a run, or a damaged one"):
        load_run(path)


def test_code_in_a_checkpoint_is_not_run(micro, tmp_path):
    path = shutil.copytree(micro.run, tmp_path / "run") / "last.ckpt"
    torch.save({"state_dict": {}, "evil": pytest.raises}, path)
    with pytest.raises(ValueError, match="not a checkpoint of a run"):
        load_run(path)
    torch.save({"state_dict": {"model.base.weight": torch.zeros(1)}, "global_step": 1}, path)
    with pytest.raises(ValueError, match=r"holds no model\.glimpse\.\* but model\.base\.weight"):
        load_run(path)


def test_no_such_device(micro):
    with pytest.raises(ValueError, match=r"trainer\.accelerator=tpu"):
        load_run(micro.ckpt, ["trainer.accelerator=tpu"])
