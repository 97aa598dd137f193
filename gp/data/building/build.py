"""A build from options to finished shards."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gp.data.building.annotations import check_annotation_path, fingerprint, read_annotations
from gp.data.building.crew import make_crew
from gp.data.building.journal import Journal, only_build
from gp.data.building.options import BuildConfig, check_options
from gp.data.building.packer import SMALL_PX
from gp.data.building.packing import Packing, Watcher
from gp.data.building.pieces import expand_paths
from gp.data.building.publishing import already_built, publish
from gp.data.building.sampling import make_plan
from gp.data.building.sources import Source, open_source
from gp.data.manifest import ShardEntry
from gp.data.skipping import SkipCounter

log = logging.getLogger(__name__)

BUILDER_VERSION = 2  # 2: images are upright and without transparency, marked questions are mended or refused
NOT_IN_IDENTITY = ("annotations", "images", "out", "workers", "max_skipped_fraction")
CHECKPOINT_EVERY_S = 10.0
LOGGED_EACH = 1000  # a build is made once, and who mends its data wants names
LIMIT = "max_skipped_fraction"
ADVICE = (
    f"If that is expected, give a larger {LIMIT}= and run again "
    f"(dude needs {LIMIT}=0.08: 7 % of its boxes lie outside their images)"
)


def build(
    config: BuildConfig, watch: Watcher | None = None, checkpoint_every_s: float = CHECKPOINT_EVERY_S
) -> dict[str, ShardEntry]:
    """Writes the shards and their part of `manifest.json`; goes on with an unfinished build of the same options.

    Args:
        config: see `BuildConfig`.
        watch: is told how far the pass over the images is.
        checkpoint_every_s: seconds of work that a kill may cost.

    Returns:
        File name -> shard, of all shards of the build.

    Raises:
        FileNotFoundError: an annotation file, the images or a piece is not there.
        ValueError: wrong options, a damaged archive, too many unusable questions, or an output folder that holds
            something else under this name.
    """
    check_options(config)
    paths = expand_paths(config.annotations)
    for path in paths:
        check_annotation_path(path)
    source = open_source(config.images)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    with only_build(out, config.name), _libraries_set_aside():
        identity = {"options": _identity_options(config), "source": _origin(paths, source)}
        journal = Journal(out / f".{config.name}.unfinished", identity)
        done = already_built(config, identity, journal.folder)
        return _build(config, paths, source, journal, watch, checkpoint_every_s) if done is None else done


def _build(
    config: BuildConfig,
    paths: Sequence[Path],
    source: Source,
    journal: Journal,
    watch: Watcher | None,
    checkpoint_every_s: float,
) -> dict[str, ShardEntry]:
    row_skips, skips = (SkipCounter(config.max_skipped_fraction, LIMIT, LOGGED_EACH) for _ in range(2))
    crew = make_crew(config.workers)
    try:
        plan = make_plan(read_annotations(paths, row_skips), config, lambda keys: _sizes(source, keys))
        shards = Packing(config, source, plan, journal, crew, skips, checkpoint_every_s, watch).run()
    except ValueError as error:
        if f"{LIMIT} = " not in str(error):
            raise
        raise ValueError(f"{error}. {ADVICE}") from error
    finally:
        crew.close()
    rows = {"rows": row_skips.seen, "skipped": dict(sorted(row_skips.reasons.items()))}
    rows["mended"] = dict(row_skips.mended)
    for what, count in row_skips.mended.items():
        log.warning("%s: %d of %d rows", what, count, row_skips.seen)
    if small := sum(state.small for state in shards):
        log.warning("%d images have fewer than 16 visual tokens (under %d px): little can be pruned", small, SMALL_PX)
    return publish(config, plan, shards, rows, journal)


@contextmanager
def _libraries_set_aside() -> Iterator[None]:
    """Looking through all that is imported for garbage would cost more than reading the annotations."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _identity_options(config: BuildConfig) -> dict[str, Any]:
    """Options that the result depends on, files apart."""
    options = {"version": BUILDER_VERSION, **asdict(config)}
    if config.shard_mib is not None:
        del options["shard_samples"]  # has no effect then
    return {name: value for name, value in options.items() if name not in NOT_IN_IDENTITY}


def _origin(paths: Sequence[Path], source: Source) -> dict[str, Any]:
    return {"annotations": [{"name": path.name, **fingerprint(path)} for path in paths], "images": source.describe()}


def _sizes(source: Source, keys: Sequence[str]) -> Mapping[str, int]:
    """Bytes of the images that are there; a walk of its own."""
    wanted = set(keys)
    sizes: dict[str, int] = {}
    for found in source.walk(wanted):
        sizes.setdefault(found.key, found.size)
        if len(sizes) == len(wanted):
            break
    return sizes
