"""Answers the questions of many shards on a Ray cluster: shards in, JSON lines out, each question exactly once.

    python -m gp.integrations.ray model.base=Qwen/Qwen2.5-VL-7B-Instruct model.dtype=bfloat16 gpus=1 workers=8 \\
        model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-7B-Instruct 'shards=[gqa-*.tar]' root=/nfs/data out=/nfs/answers
    python -m gp.integrations.ray model.base=tiny model.glimpse=tiny 'shards=[tiny:test]' out=answers workers=2

Ray Data's `map_batches` deals shards to actors with a model each. A shard's answers appear as OUT/NAME.jsonl when all
are there, so whatever is killed leaves no part of a file, and the same command again answers the other shards alone. A
damaged shard stops no other one, and is named at the end. Needs Ray: pip install "glimpse-prune[ray]".
More: docs/clusters.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from gp import cli
from gp.config.load import COMMAND_LINE, merge_options, parse_overrides, read_yaml
from gp.config.option import option
from gp.config.reference import describe_schema
from gp.config.schema import FROM_0, FROM_1
from gp.data.sample import parse_record
from gp.data.shards import read_records, resolve_shards, shard_names
from gp.runs.lock import one_writer
from gp.runs.writing import write_text
from gp.serve.options import ServedModel

SETTINGS = "settings.json"
OF_THE_ANSWERS = ("model", "pruner", "prune", "max_new_tokens")  # what must be the same when a folder is gone on with


@dataclass
class RayConfig:
    """All settings of `gp.integrations.ray`."""

    model: ServedModel
    shards: list[str] = option(MISSING, "shards as data.test takes them: paths, wildcards, braces, tiny:SPLIT")
    out: str = option(MISSING, "folder of the answers; all machines must see it")
    root: str = option("data", "folder of relative shards; all machines must see it")
    workers: int = option(1, "actors, each with a model of its own", within=FROM_1)
    gpus: float = option(0, "GPUs of each actor; 0: it computes on CPUs", within=FROM_0)
    cpus: float = option(1, "CPUs of each actor, and its threads if it has no GPU", within=FROM_1)
    address: str | None = option(None, "of a Ray cluster, e.g. auto; null: Ray on this machine alone")
    max_new_tokens: int = option(64, "of an answer", within=FROM_1)
    pruner: str | None = option(None, "method; null: glimpse, or none without trained parts")
    prune: dict[str, Any] = option({}, "pruning options and settings of the method: prune.max_keep_ratio=0.1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers all shards; returns the exit status, see `gp.cli.run`."""
    description = f"{__doc__}\noptions, each as key=value or in the file:\n\n{describe_schema(RayConfig)}"
    usage = "model.base=BASE shards=[...] out=FOLDER [key=value ...] [--config FILE]"
    parser = cli.settings_parser("gp.integrations.ray", usage, description)
    parser.add_argument("--config", type=Path, help="a YAML file of options; the command line wins")
    cli.add_traceback(parser)
    options = parser.parse_intermixed_args(arguments)
    return cli.run(lambda: command(options), options.traceback, "run the same command again to go on")


def command(options: argparse.Namespace) -> None:
    """Reads the options, answers, and says what there is."""
    config = load_ray_config(options.config, options.settings)
    done, before = answer_shards(config)
    print(f"{done} questions answered; {before} shards were there before; {config.out}")


def load_ray_config(path: Path | None, overrides: Sequence[str]) -> RayConfig:
    """A YAML file, or none, and `key=value` overrides -> the options; ValueError names a wrong key or value."""
    given = {} if path is None else {f"config {path}": read_yaml(path)}
    return merge_options(RayConfig, {**given, COMMAND_LINE: parse_overrides(overrides)})


def answer_shards(config: RayConfig) -> tuple[int, int]:
    """Answers all shards that have no file of answers yet.

    Returns:
        Questions that were answered now, and shards that had been answered before.

    Raises:
        OSError, ValueError: Ray is not installed, no such shard, answers that were made with other settings, or, after
            all other shards were answered, a damaged shard or a model that does not load.
    """
    need_ray()
    out = Path(config.out).resolve()
    shards = named_shards(config)
    with one_writer(out):
        keep_settings(config, shards, out)
        todo = {name: shard for name, shard in shards.items() if not file_of(out, name).exists()}
        for stray in out.glob("*.jsonl.*"):  # of a killed actor, between writing and renaming
            stray.unlink(missing_ok=True)
        told = on_ray(config, todo, out) if todo else []
    if wrong := [one["wrong"] for one in told if one["wrong"]]:
        others = f" ({len(wrong)} of {len(todo)} shards were not answered)" if len(todo) > 1 else ""
        raise ValueError(wrong[0] + others)
    return sum(one["answered"] for one in told), len(shards) - len(todo)


def need_ray() -> None:
    """ValueError without Ray, before anything is written."""
    if find_spec("ray") is None:
        raise ValueError('ray is not installed: pip install "glimpse-prune[ray]"')


def on_ray(config: RayConfig, todo: Mapping[str, str], out: Path) -> list[dict[str, Any]]:
    """Has actors answer shards; what `ShardAnswerer` says of each."""
    import ray

    ray.init(address=config.address, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        rows = [{"name": name, "shard": shard} for name, shard in todo.items()]
        told = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardAnswerer,
            fn_constructor_args=(config, str(out)),
            batch_size=1,
            # one shard at a time, so that the last ones are not queued behind a busy actor
            compute=ray.data.ActorPoolStrategy(size=min(config.workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=None if config.gpus else config.cpus,
            num_gpus=config.gpus or None,
        )
        return list(told.iter_rows())
    except ray.exceptions.RayError as error:
        raise ValueError(f"Ray gave up: {cli.one_line(error)}") from error
    finally:
        ray.shutdown()


def keep_settings(config: RayConfig, shards: Mapping[str, str], out: Path) -> None:
    """Writes what the answers depend on; ValueError if the folder has answers that were made otherwise.

    Shards may be added; a file's name must go on to mean the same shard.
    """
    place, own = out / SETTINGS, {name: value for name, value in asdict(config).items() if name in OF_THE_ANSWERS}
    own = json.loads(json.dumps(own))
    there = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {**own, "shards": {}}
    remedy = "give the same, or another out"
    if wrong := [name for name in OF_THE_ANSWERS if there.get(name) != own[name]]:
        name = wrong[0]
        raise ValueError(f"{place}: these answers were made with {name}={there.get(name)}, got {own[name]}: {remedy}")
    name_of = {shard: name for name, shard in there["shards"].items()}
    for name, shard in shards.items():
        if there["shards"].get(name, shard) != shard or name_of.get(shard, name) != name:
            before = there["shards"].get(name) or f"{shard} as {name_of[shard]}"
            raise ValueError(f"{place}: these answers were made from {before}, got {shard} as {name}: {remedy}")
    write_text(place, json.dumps({**own, "shards": {**there["shards"], **shards}}, indent=1) + "\n")


def named_shards(config: RayConfig) -> dict[str, str]:
    """Name -> path or url of each shard; ValueError if one is named twice."""
    found = resolve_shards(config.shards, config.root)
    shards = [str(Path(one).resolve()) if Path(one).exists() else one for one in found]
    if len(set(shards)) < len(shards):
        raise ValueError(f"shards: {next(one for one in shards if shards.count(one) > 1)} is named twice")
    return dict(zip(shard_names(shards), shards, strict=True))


def file_of(out: Path, name: str) -> Path:
    """The file of a shard's answers; folders of its name become part of the file's."""
    return out / f"{name.replace('/', '--')}.jsonl"


class ShardAnswerer:
    """An actor: a model, which answers one shard after the other.

    Args:
        config: options of the command.
        out: folder of the answers.
    """

    def __init__(self, config: RayConfig, out: str) -> None:
        import torch

        from gp.serve.loading import load_model

        if not config.gpus:
            torch.set_num_threads(max(1, int(config.cpus)))
        self.config, self.out = config, Path(out)
        self.wrong: str | None = None
        try:
            self.model = load_model(config.model, "cuda" if config.gpus else "cpu")
        except cli.MISTAKES as error:  # raised here it would reach the user as Ray's many lines, after retries
            self.wrong = cli.one_line(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Answers the shards of a batch; says of each how many questions it had, or what is wrong with it."""
        pairs = zip(map(str, batch["shard"]), map(str, batch["name"]), strict=True)
        told = [self.tell(shard, name) for shard, name in pairs]
        return {"answered": [count for count, _ in told], "wrong": [wrong for _, wrong in told]}

    def tell(self, shard: str, name: str) -> tuple[int, str]:
        """Answers a shard; the number of its questions and "", or 0 and what is wrong."""
        try:
            return (0, self.wrong) if self.wrong else (self.answer(shard, name), "")
        except cli.MISTAKES as error:
            return 0, cli.one_line(error)

    def answer(self, shard: str, name: str) -> int:
        """Writes one shard's file at once; a part of it is never seen."""
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines(shard, name)]
        place = file_of(self.out, name)
        own = place.with_name(f"{place.name}.{uuid.uuid4().hex}")  # an actor thought lost may be at the same shard
        write_text(own, "".join(lines))
        os.replace(own, place)
        return len(lines)

    def _lines(self, shard: str, name: str) -> Iterator[dict[str, Any]]:
        how = {**self.config.prune, "pruner": self.config.pruner, "max_new_tokens": self.config.max_new_tokens}
        for record in read_records(shard, name):
            sample = parse_record(record)
            said = self.model.ask(sample.image, sample.question, **how)
            yield {
                "id": sample.id,
                "question": sample.question,
                "answer": said.text,
                "expected": sample.answer,
                "visual_tokens_kept": said.num_kept,
                "visual_tokens": said.num_visual,
            }


if __name__ == "__main__":
    # actors find the class by this module's name, not by that of the command
    from gp.integrations.ray import main as named

    sys.exit(named())
