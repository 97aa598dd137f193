"""Converts trained parts between the published format and ours.

python -m gp.convert PUBLISHED_FOLDER OUT                  # published -> ours
python -m gp.convert OUR_FOLDER OUT base=BASE_FOLDER       # ours -> published
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from gp import cli
from gp.flags import KeyValueHelp, as_flags
from gp.formats import published
from gp.formats.adapter_folder import CONFIG as ADAPTER_CONFIG
from gp.formats.adapter_folder import WEIGHTS as ADAPTER_WEIGHTS
from gp.formats.adapter_folder import has_adapter
from gp.formats.glimpse_folder import WEIGHTS, read_config, read_weights, write_config, write_weights
from gp.formats.reading import BaseShape, check_weights, read_object
from gp.runs.differences import refuse_other_base
from gp.runs.writing import write_text

ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def to_ours(source: Path, target: Path) -> None:
    """Published folder -> ours; the base's name stays open, its shape is taken from the folder's own config."""
    glimpse, vip, options = published.read_config(source)
    weights, base = published.read_weights(source), published.read_base(source)
    config = source / "config.json"
    check_weights(weights, BaseShape.read(base, f"{config}: "), glimpse, vip, f"{source / published.WEIGHTS}: ")
    target.mkdir(parents=True, exist_ok=True)
    write_weights(target, weights)
    write_config(target, base, glimpse, vip, options, {"converted_from": source.name})


def to_published(source: Path, target: Path, base: Path) -> None:
    """Our folder -> published; the original repeats the base's own config in its file, so that is needed too."""
    there, glimpse, vip, options = read_config(source)
    if glimpse.twig:
        raise ValueError(f"{source}: has a twig (glimpse.twig {glimpse.twig}), which the published format cannot hold")
    weights = read_weights(source)
    shape = BaseShape.read(there, f"{source / 'config.json'}: base.")
    check_weights(weights, shape, glimpse, vip, f"{source / WEIGHTS}: ")
    base_config = read_object(base / "config.json")
    here = published.base_of(base_config, f"{base / 'config.json'}: ")
    refuse_other_base(there, {key: value for key, value in here.items() if key != "name"}, source)
    config = published.make_config(base_config, glimpse, vip, options)
    target.mkdir(parents=True, exist_ok=True)
    published.write_weights(weights, target)
    write_text(target / "config.json", json.dumps(config, indent=2) + "\n")


def convert(source: Path, target: Path, base: Path | None) -> None:
    """Converts whichever way `source` asks for; an adapter in it goes along.

    Raises:
        FileNotFoundError, ValueError: no such folder, or not one of trained parts; no base where it is needed, or
            another than the one that the parts were trained on. Nothing is written then.
    """
    if target.resolve() == source.resolve():
        raise ValueError(f"{target}: the folder to write is the folder to read, whose config.json would be lost")
    if has_adapter(source) and (missing := [name for name in ADAPTER_FILES if not (source / name).is_file()]):
        raise FileNotFoundError(f"adapter {source}: no {missing[0]} in it")
    if published.is_reference_folder(source):
        to_ours(source, target)
    elif base is None:
        raise ValueError("ours -> published needs base=FOLDER: the original repeats the base's config in its file")
    else:
        to_published(source, target, base)
    if has_adapter(source):
        for name in ADAPTER_FILES:  # in both formats they are peft's own
            shutil.copyfile(source / name, target / name)
    print(f"wrote {target}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts; returns the exit status, see `gp.cli.run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=KeyValueHelp)
    parser.add_argument("source", type=Path, help="folder with trained parts, in either format")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--base", type=Path, help="folder of the base (its config.json), needed for ours -> published")
    cli.add_traceback(parser)
    options = parser.parse_args(as_flags(parser, arguments))
    return cli.run(lambda: convert(options.source, options.target, options.base), options.traceback)


if __name__ == "__main__":
    sys.exit(main())
