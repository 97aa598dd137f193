"""Answers the questions of many shards on a Ray cluster: shards in, JSON lines out, each question exactly once.

    python -m gp.integrations.ray model.base=Qwen/Qwen2.5-VL-7B-Instruct model.dtype=bfloat16 gpus=1 workers=8 \\
        model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-7B-Instruct 'shards=[gqa-*.tar]' root=/nfs/data out=/nfs/answers
    python -m gp.integrations.ray model.base=tiny model.glimpse=tiny 'shards=[tiny:test]' out=answers workers=2

Ray Data's `map_batches` deals shards to actors with a model each. A shard's answers appear as OUT/NAME.jsonl when all
are there, so an actor that dies leaves nothing behind, and the same command again goes on with the shards that lack
theirs. It ends with an error if OUT was made with other settings. Needs Ray: pip install "ray[data]". docs/clusters.md has more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from gp.runs.writing import replacing, write_text
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
    retries: int = option(3, "times that a lost actor's shard is begun again", within=FROM_0)
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
    given = {} if options.config is None else {f"config {options.config}": read_yaml(options.config)}
    config = merge_options(RayConfig, {**given, COMMAND_LINE: parse_overrides(options.settings)})
    done, before = answer_shards(config)
    print(f"{done} questions answered; {before} shards were there before; {config.out}")


def answer_shards(config: RayConfig) -> tuple[int, int]:
    """Answers all shards that have no file of answers yet.

    Returns:
        Questions that were answered now, and shards that had been answered before.

    Raises:
        OSError, ValueError: Ray is not installed, no such shard, or answers that were made with other settings.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError('ray is not installed: pip install "ray[data]"') from error
    out = Path(config.out).resolve()
    with one_writer(out):
        keep_settings(config, out)
        todo, done = left_to_do(config, out)
        if not todo:
            return 0, done
        ray.init(address=config.address, ignore_reinit_error=True, log_to_driver=False)
        try:
            told = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
                ShardAnswerer,
                fn_constructor_args=(config, str(out)),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(config.workers, len(todo))),
                num_cpus=config.cpus if not config.gpus else None,
                num_gpus=config.gpus or None,
                max_restarts=config.retries,
                max_task_retries=config.retries,
            )
            return sum(row["answered"] for row in told.iter_rows()), done
        finally:
            ray.shutdown()


def keep_settings(config: RayConfig, out: Path) -> None:
    """Writes what the answers depend on; ValueError if the folder has answers that were made otherwise."""
    place, own = out / SETTINGS, {name: value for name, value in asdict(config).items() if name in OF_THE_ANSWERS}
    own = json.loads(json.dumps(own))
    if not place.exists():
        return write_text(place, json.dumps(own, indent=1) + "\n")
    there = json.loads(place.read_text(encoding="utf-8"))
    if wrong := [name for name in OF_THE_ANSWERS if there.get(name) != own[name]]:
        raise ValueError(
            f"{place}: these answers were made with {wrong[0]}={there.get(wrong[0])}, got {own[wrong[0]]}: "
            "give the same, or another out"
        )


def left_to_do(config: RayConfig, out: Path) -> tuple[list[dict[str, str]], int]:
    """Shards without a file of answers, and how many have one."""
    found = resolve_shards(config.shards, config.root)
    shards = [str(Path(one).resolve()) if Path(one).exists() else one for one in found]
    if len(set(shards)) < len(shards):
        raise ValueError("shards: one of them is named twice")
    pairs = list(zip(shards, shard_names(shards), strict=True))
    todo = [{"shard": shard, "name": name} for shard, name in pairs if not file_of(out, name).exists()]
    return todo, len(pairs) - len(todo)


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
        self.model = load_model(config.model, "cuda" if config.gpus else "cpu")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Answers the shards of a batch and says how many questions that were."""
        pairs = zip(map(str, batch["shard"]), map(str, batch["name"]), strict=True)
        return {"answered": [self.answer(shard, name) for shard, name in pairs]}

    def answer(self, shard: str, name: str) -> int:
        """Writes one shard's file at once; a part of it is never seen."""
        count = 0
        with replacing(file_of(self.out, name)) as place, place.open("w", encoding="utf-8") as file:
            for line in self._lines(shard, name):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        return count

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
