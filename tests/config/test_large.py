"""Options of bases that are larger than a card: what goes together, and what is refused."""

from __future__ import annotations

import pytest

from gp.config import load_config
from gp.front.options import load_front_config
from gp.loading import from_pretrained
from gp.serve import loading
from gp.serve.loading import load_model
from gp.serve.options import ServedModel, load_serve_config

TINY = "configs/tiny.yaml"


def test_a_device_map_takes_one_process():
    config = load_config(TINY, ["model.device_map=auto", "model.quantization=nf4"])
    assert config.trainer.devices == 1 and config.model.quantization == "nf4"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["model.device_map=auto", "trainer.devices=2"], "one process have all devices; got trainer.devices 2"),
        (["model.device_map=auto", "trainer.num_nodes=2"], "trainer.num_nodes 2"),
        (["model.device_map=auto", "trainer.strategy=fsdp2"], "trainer.strategy fsdp2"),
        (["model.device_map=cuda"], "model.device_map must be null or one of auto, balanced, sequential"),
        (["model.quantization=int3"], "model.quantization must be null or one of int8, int4, nf4"),
        (["model.quantization=int4"], "bfloat16 only, got model.dtype float32"),
        (["trainer.strategy=fsdp2"], "fsdp2 and eval.after_training true"),
        (["trainer.strategy=fsdp2", "eval.after_training=false", "model.quantization=int8"], "cut into shards"),
        (["trainer.strategy=fsdp2", "eval.after_training=false", "optim.ema=0.9"], "average is taken"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load_config(TINY, given)


@pytest.mark.parametrize("load", [load_serve_config, load_front_config])
def test_servers_refuse_what_a_run_refuses(load):
    given = ["model.base=tiny", "model.quantization=int4"]
    with pytest.raises(ValueError, match=r"bfloat16 only, got model\.dtype float32"):
        load(None, [*given, "upstream=http://here/v1"][: None if load is load_front_config else 2])


@pytest.mark.parametrize(
    ("device", "more", "message"),
    [
        ("gpu", {}, "'gpu' is no device: give cpu, cuda:0"),
        ("cuda:64", {}, "no device cuda:64: this installation of torch sees"),
        ("cpu", {"quantization": "int4"}, "int4 has no kernels for a CPU; int8 has"),
    ],
)
def test_a_server_says_what_a_device_cannot_do(device, more, message):
    with pytest.raises(ValueError, match=message):
        load_model(ServedModel("tiny", **more), device)


def test_a_server_places_its_base(monkeypatch):
    given = {}

    def noting(base, **options):
        given.update(options)
        return from_pretrained(base)

    monkeypatch.setattr(loading, "from_pretrained", noting)
    load_model(ServedModel("tiny", device_map="balanced", fast_tower=True, max_pixels=12544), "cpu")
    assert (given["device_map"], given["fast_tower"], given["max_pixels"]) == ("balanced", True, 12544)
    assert "min_pixels" not in given and "quantization_config" not in given


def test_a_server_quantizes_its_base():
    pytest.importorskip("torchao")
    layer = load_model(ServedModel("tiny", quantization="int8"), "cpu").backbone.text_model.layers[0]
    assert type(layer.mlp.up_proj.weight.data).__name__ == "Int8Tensor"


def test_a_server_with_a_device_map_has_one_worker():
    given = ["model.base=tiny", "model.device_map=auto"]
    assert load_serve_config(None, given).model.device_map == "auto"
    with pytest.raises(ValueError, match="one worker have all devices, got devices=cuda:0,cuda:1"):
        load_serve_config(None, [*given, "devices=cuda:0,cuda:1"])
    with pytest.raises(ValueError, match="one worker have all devices, got workers=2: leave workers out"):
        load_serve_config(None, [*given, "workers=2"])
