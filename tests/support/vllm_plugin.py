"""Stock vLLM with the plug-in, found by its entry point as after `pip install`, and requests for it."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from torch import Tensor

from gp.asking import chat_inputs
from gp.embedded.cards.samples import draw_sample
from gp.embedded.cards.scene import SceneBuilder
from gp.integrations.vllm import ARCHITECTURES, CPU_WORKER
from gp.integrations.vllm.settings import KEY
from gp.model import GlimpseModel
from gp.types import PruneOptions

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "gp/embedded/base"
LIMITS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2048, "limit_mm_per_prompt": {"image": 4}}
FEW_TOKENS = 48  # of a scheduler step: prompts of more are prefilled in chunks
ENGINES = {
    "prefixes kept, prompts in chunks": {
        "enable_prefix_caching": True,
        "max_num_batched_tokens": FEW_TOKENS,
        "max_num_seqs": 8,
        "block_size": 32,  # of the tokens that a prompt can share with an earlier one
    },
    "prefixes forgotten, prompts whole": {"enable_prefix_caching": False, "enable_chunked_prefill": False},
}

Request = tuple[Sequence[Image], str]  # pictures, question


def write_entry_points(folder: Path) -> Path:
    """Writes what pip would of the package's entry points, into a folder for `sys.path`; returns the folder."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    info = folder / "glimpse_prune-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: glimpse-prune\nVersion: 0\n")
    groups = setup["options.entry_points"].items()
    (info / "entry_points.txt").write_text("\n".join(f"[{name}]{points}" for name, points in groups))
    return folder


def requests() -> list[Request]:
    """Scenes of several sizes and shapes, two pictures in a prompt, one picture twice in one prompt, and in two."""
    builder = SceneBuilder("test")
    kinds = [("color", 16, 16), ("conjunction", 10, 14), ("color", 14, 9), ("first", 9, 8), ("second", 8, 12)]
    samples = [draw_sample(builder, kind, rows, columns, seed) for seed, (kind, rows, columns) in enumerate(kinds)]
    asked = [(one.images, one.question.text) for one in samples]
    (picture,), question = asked[0]
    return [*asked, ([picture, picture], question), ([picture], "what number is on the red card ?")]


def engine(base: Path = BASE, pruning: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """vLLM's engine on a base; with `pruning` the plug-in's model."""
    from vllm import LLM

    if pruning is not None:
        model_type = json.loads((Path(base) / "config.json").read_text())["model_type"]
        arguments["hf_overrides"] = {"architectures": [ARCHITECTURES[model_type]], KEY: pruning}
        arguments.setdefault("worker_cls", CPU_WORKER)
    return LLM(str(base), **{**LIMITS, **arguments})


@contextmanager
def running(site: Path, **arguments: Any) -> Iterator[Any]:
    """An engine as `engine` makes it, in this process, with the plug-in found in the new folder `site`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(write_entry_points(site)))
        patch.setenv("PYTHONPATH", f"{site}:{ROOT}")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process: half the start
        made = engine(**arguments)
        yield made
        made.llm_engine.engine_core.shutdown()
        del made
        forget_devices()


def prompt(processor: Any, request: Request) -> dict[str, Any]:
    """A request as vLLM takes it: text with one marker an image."""
    pictures, question = request
    content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return {"prompt": text, "multi_modal_data": {"image": list(pictures)}}


def generate(engine: Any, prompts: Sequence[dict[str, Any]], pruning: dict[str, Any] | None = None) -> list[Any]:
    """vLLM's greedy outputs, all requests at once; `pruning` overrides the engine's for them."""
    from vllm import SamplingParams

    override = {} if pruning is None else {"mm_processor_kwargs": {KEY: pruning}}
    return engine.generate([{**one, **override} for one in prompts], SamplingParams(temperature=0, max_tokens=6))


def answers(engine: Any, prompts: Sequence[dict[str, Any]], pruning: dict[str, Any] | None = None) -> list[list[int]]:
    """Ids of these answers."""
    return [list(one.outputs[0].token_ids) for one in generate(engine, prompts, pruning)]


def decided(model: GlimpseModel, request: Request, budget: float) -> list[Tensor]:
    """What the glimpse keeps of each picture, shown alone with the question; bool [h, w] each."""
    pictures, question = request
    alone = [chat_inputs(model.processor, [picture], [question]) for picture in pictures]
    return [model.prefill(one, "glimpse", PruneOptions(fixed_keep_ratio=budget)).keep_masks[0] for one in alone]


def before_first_layer(model: GlimpseModel, plain: GlimpseModel, request: Request, budget: float) -> list[int]:
    """Ids of the greedy answer of a decoder that sees those tokens alone, from its first layer on, where they were.

    Args:
        model: with the glimpse.
        plain: the same base without one, whose `oracle` drops before the first layer.
    """
    pictures, question = request
    inputs, masks = chat_inputs(plain.processor, pictures, [question]), decided(model, request, budget)
    kept = [int(mask.sum()) for mask in masks]
    how = {"pruner": "oracle", "evidence_masks": masks, "num_keep": kept, "budget_scope": "image"}
    out = plain.generate(**inputs, **how, do_sample=False, max_new_tokens=6)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def forget_devices() -> None:
    """Lets another engine start in this process."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


@cache
def processor() -> Any:
    """The base's stock processor."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(BASE)
