"""The last step of a build: shards get their names, the manifest is told, the traces of work are removed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from gp.data.building.journal import Journal, refuse_other
from gp.data.building.options import BuildConfig
from gp.data.building.sampling import Plan, set_names
from gp.data.building.shard_file import ShardState
from gp.data.manifest import MANIFEST, Manifest, ShardEntry, read_manifest, update_manifest


def already_built(config: BuildConfig, identity: dict[str, Any], unfinished: Path) -> dict[str, ShardEntry] | None:
    """The shards of the same build if they are all there; None if none of this name is.

    Args:
        config: `out`, `name` and `splits`.
        identity: options and sources, as they are written into the manifest.
        unfinished: folder of the journal; while it is there the build is not over.

    Raises:
        ValueError: the folder holds shards of these names made with other options, or from no known build, or some
            of the same build are missing or damaged.
    """
    if unfinished.exists():
        return None
    out, sets = Path(config.out), set_names(config)
    present = [path for name in sets for path in sorted(out.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"))]
    if not present:
        return None
    manifest = read_manifest(out) or Manifest({}, {})
    remedy = f"delete {', '.join(f'{name}-*.tar' for name in sets)} there, or give another name= or out="
    entries = {name: entry for name, entry in manifest.shards.items() if entry.set in sets}
    if unknown := [path for path in present if path.name not in entries]:
        raise ValueError(f"{unknown[0]}: {out / MANIFEST} does not know this shard; {remedy}")
    for name in sets:
        there = {key: manifest.sets.get(name, {}).get(key) for key in identity}
        there["source"] = {key: (there["source"] or {}).get(key) for key in identity["source"]}
        refuse_other(there, identity, f"{out / MANIFEST} has a set {name}", remedy)
    for name, entry in entries.items():
        size = (out / name).stat().st_size if (out / name).is_file() else None
        if size != entry.bytes:
            got = "it is missing" if size is None else f"the file has {size}"
            raise ValueError(f"shard {out / name}: {out / MANIFEST} says {entry.bytes} bytes, {got}; {remedy}")
    return entries


def publish(
    config: BuildConfig,
    plan: Plan,
    shards: list[ShardState],
    rows: dict[str, Any],
    journal: Journal,
) -> dict[str, ShardEntry]:
    """Renames the ended shards to their names and writes the manifest; may be repeated after a kill at any point.

    Args:
        config: `out`, `name` and `splits`.
        plan: the set of each shard.
        shards: their states, in the plan's order.
        rows: number in the annotation files, and number skipped before any image was looked at.
        journal: its folder holds the shards, and is removed in the end.
    """
    out = Path(config.out)
    entries: dict[str, ShardEntry] = {}
    counts: Counter[str] = Counter()
    for number, (name, state) in enumerate(zip(plan.shard_sets, shards)):
        temporary = journal.shard_path(number)
        if not state.images:  # none of its images can be used
            temporary.unlink(missing_ok=True)
            continue
        file = f"{name}-{counts[name]:06d}.tar"
        counts[name] += 1
        if temporary.exists():
            os.replace(temporary, out / file)
        entries[file] = ShardEntry(name, state.samples, state.images, state.bytes, state.sha256)
    for name in set_names(config):
        mine = {file: entry for file, entry in entries.items() if entry.set == name}
        states = [state for shard_set, state in zip(plan.shard_sets, shards) if shard_set == name]
        update_manifest(out, name, mine, _info(mine, states, journal.identity, rows))
    journal.remove()
    return entries


def _info(
    entries: dict[str, ShardEntry], states: list[ShardState], identity: dict[str, Any], rows: dict[str, Any]
) -> dict[str, Any]:
    skipped = sum((state.skipped for state in states), Counter())  # planned, and could not be used
    return {
        "samples": sum(entry.samples for entry in entries.values()),
        "images": sum(entry.images for entry in entries.values()),
        "complete": True,
        "source": {**identity["source"], **rows},
        "options": identity["options"],
        "skipped": dict(sorted(skipped.items())),
        "small_images": sum(state.small for state in states),
    }
