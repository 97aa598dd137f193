"""Adapters on disk, alone and in one folder with the glimpse that belongs to them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import gp
from gp.backbones.adapters import adapter_weights, new_adapter
from gp.config import GlimpseConfig, VIPConfig, load_config
from gp.formats import publish
from gp.formats.adapter_folder import CONFIG, WEIGHTS, save_adapter
from gp.loading import from_pretrained, load_base
from gp.pruners import GlimpsePruner
from tests.support.bases import BASES
from tests.support.hub_cache import put_in_cache
from tests.support.hub_client import Hub
from tests.support.micro_run import save_base, write_config
from tests.support.tiny_models import tiny_inputs

pytest.importorskip("peft")
VIP = VIPConfig(hidden_size=16, cond_size=16, num_heads=2, taps=[3, 1])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


def adapted(base, seed=0):
    model = from_pretrained(base)
    model.base = new_adapter(model.backbone, 4, 8)
    generator = torch.Generator().manual_seed(seed)
    for _, weight in adapter_weights(model.base):
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    model.glimpse = GlimpsePruner.build(model.backbone, GlimpseConfig(prune_layer=2), VIP).eval()
    return model


@pytest.fixture(scope="module")
def both(base, tmp_path_factory):
    """A folder with glimpse and adapter, and the model that it was saved from."""
    model = adapted(base)
    return model, model.save_pretrained(tmp_path_factory.mktemp("both") / "plus")


def weights_of(model):
    return {name: weight.detach() for name, weight in adapter_weights(model.base)}


@pytest.mark.parametrize("family", BASES)
def test_alone_and_back(family, tmp_path):
    model = from_pretrained(BASES[family](tmp_path / "base"))
    model.base = new_adapter(model.backbone, 2, 4)
    for number, (_, weight) in enumerate(adapter_weights(model.base)):
        weight.data.fill_(0.01 * number)
    save_adapter(tmp_path / "adapter", model.adapter, model.backbone)
    loaded = from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter")
    there, here = weights_of(model), weights_of(loaded)
    assert there.keys() == here.keys() and all(torch.equal(there[key], here[key]) for key in there)
    assert sum(loaded.trainable().values()) == 0
    narrow = from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter", dtype="bfloat16")
    assert all(weight.dtype == torch.bfloat16 for weight in weights_of(narrow).values())


def test_of_a_hub_id_at_a_revision(base, both, tmp_path):
    """Through the call and through a config; the id and the revision out of a cache, without a network."""
    put_in_cache(tmp_path, "someone/plus", both[1])
    hub = {"cache_dir": str(tmp_path), "local_files_only": True}
    loaded = from_pretrained(base, adapter="someone/plus", adapter_revision="v1", **hub)
    assert all(torch.equal(weight, weights_of(loaded)[name]) for name, weight in weights_of(both[0]).items())
    with pytest.raises(OSError, match=r"v2|local"):
        from_pretrained(base, adapter="someone/plus", adapter_revision="v2", **hub)


def test_a_config_names_id_and_revision(base, tmp_path, monkeypatch):
    asked = []

    def load_adapter(name, backbone, revision, hub):
        asked.append((name, revision))
        return backbone.model

    monkeypatch.setattr("gp.loading.load_adapter", load_adapter)
    write_config(tmp_path, base)
    over = ["model.adapter=someone/plus", "model.adapter_revision=v1"]
    load_base(load_config(tmp_path / "micro.yaml", over))
    assert asked == [("someone/plus", "v1")]


def test_peft_reads_what_we_write(base, both):
    from peft import PeftModel

    model, folder = both
    stock = from_pretrained(base).base
    theirs = PeftModel.from_pretrained(stock, str(folder))
    there = dict(adapter_weights(theirs))
    assert there.keys() == weights_of(model).keys()
    assert all(torch.equal(weight, there[name].detach()) for name, weight in weights_of(model).items())


def test_one_folder_holds_both(base, both):
    model, folder = both
    loaded = gp.from_pretrained(base, glimpse=folder)
    inputs = tiny_inputs([([(2, 4)], 6)])
    assert loaded.adapter is not None and loaded.glimpse.prune_layer == 2
    assert all(torch.equal(weight, weights_of(loaded)[name]) for name, weight in weights_of(model).items())
    card = (folder / "README.md").read_text()
    assert "neither works\nwithout the other" in card and "unchanged" not in card
    assert inputs["input_ids"].shape[0] == 1
    with pytest.raises(ValueError, match="leave out adapter="):
        gp.from_pretrained(base, glimpse=folder, adapter=folder)


def test_upload_sends_both(both, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(publish, "HfApi", lambda: hub)
    both[0].push_to_hub("me/plus")
    assert sorted(hub.files) == ["README.md", CONFIG, WEIGHTS, "config.json", "glimpse.safetensors"]


def test_refuses_one_without_the_other(base, both, tmp_path):
    _, folder = both
    alone = tmp_path / "glimpse"
    shutil.copytree(folder, alone)
    for name in (CONFIG, WEIGHTS):
        (alone / name).unlink()
    with pytest.raises(ValueError, match="trained on a base with an adapter, and this base has none"):
        gp.from_pretrained(base, glimpse=alone)
    assert gp.from_pretrained(base, glimpse=alone, adapter=folder).adapter is not None
    with pytest.raises(ValueError, match="this base has no adapter: load both"):
        gp.prune(from_pretrained(base).base, folder)
    only = tmp_path / "adapter"
    save_adapter(only, (other := adapted(base, seed=9)).adapter, other.backbone)
    with pytest.raises(FileNotFoundError, match="pass it as adapter="):
        gp.from_pretrained(base, glimpse=only)
    with pytest.raises(ValueError, match="another adapter"):
        gp.from_pretrained(base, glimpse=alone, adapter=only)
    (only / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {WEIGHTS}"):
        gp.from_pretrained(base, adapter=only)


def test_refuses_another_base(both, tmp_path):
    with pytest.raises(ValueError, match="another base of the same sizes"):
        gp.from_pretrained(save_base(tmp_path / "other", seed=1), glimpse=both[1])
    small = save_base(tmp_path / "small", layers=3)
    with pytest.raises(ValueError, match="num_layers 4 there, 3 here"):
        gp.from_pretrained(small, adapter=both[1])


def test_reads_names_of_older_transformers(base, both, tmp_path):
    """In released folders the decoder's layers are `model.layers`, and the file says nothing of the base."""
    model, folder = both
    weights = load_file(folder / WEIGHTS)
    old = {name.replace("model.language_model.layers", "model.layers"): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    released = tmp_path / "released"
    released.mkdir()
    save_file(old, released / WEIGHTS, metadata={"format": "pt"})
    given = json.loads((folder / CONFIG).read_text())
    given["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    (released / CONFIG).write_text(json.dumps(given))
    loaded = gp.from_pretrained(base, adapter=released)
    assert all(torch.equal(weight, weights_of(loaded)[name]) for name, weight in weights_of(model).items())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"peft_type": "IA3"}, "peft_type must|expected peft_type 'LORA'"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias 'all' is not read"),
        ({"r": None}, "r must be a number"),
        ({"r": 2}, r"is \(4, .*there, \(2, "),
    ],
)
def test_refuses_what_it_does_not_read(base, both, tmp_path, change, said):
    shutil.copytree(both[1], tmp_path / "adapter")
    path = tmp_path / "adapter" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=said):
        gp.from_pretrained(base, adapter=tmp_path / "adapter")


def test_refuses_tensors_elsewhere(base, both, tmp_path):
    """Layers of a vision tower, too, however they are called."""
    shutil.copytree(both[1], tmp_path / "adapter")
    path = tmp_path / "adapter" / WEIGHTS
    weights = load_file(path)
    tower = "base_model.model.model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({**weights, tower: torch.zeros(4, 64)}, path)
    with pytest.raises(ValueError, match=r"q_proj\.lora_A\.weight is no LoRA weight of a decoder layer"):
        gp.from_pretrained(base, adapter=tmp_path / "adapter")
    save_file({**weights, "base_model.model.lm_head.lora_A.weight": torch.zeros(4, 64)}, path)
    with pytest.raises(ValueError, match=r"lm_head\.lora_A\.weight is no LoRA weight of a decoder layer"):
        gp.from_pretrained(base, adapter=tmp_path / "adapter")
    first = next(iter(weights))
    save_file({name: value for name, value in weights.items() if name != first}, path)
    with pytest.raises(ValueError, match="is missing there"):
        gp.from_pretrained(base, adapter=tmp_path / "adapter")
