"""Benches: named files that say which splits are evaluated, and how each is asked and scored.

A bench is a part of a config: `data.test` with the shards of its splits, `eval.splits` with their order, `eval.sets`
with what they say of themselves. So every mistake in one is reported as in any config, and the command line
overrides it.
"""

from __future__ import annotations

from pathlib import Path

from gp.config.fitting import nearest

SUFFIXES = (".yaml", ".yml")


def find_bench(name: str, folder: Path) -> Path:
    """The file of a bench.

    Args:
        name: of a file in the folder, without suffix; or the path of a file.
        folder: of the benches that have names.

    Raises:
        ValueError: no such name; names the nearest known one.
        FileNotFoundError: no such file.
    """
    if name.endswith(SUFFIXES):
        if not Path(name).is_file():
            raise FileNotFoundError(f"bench {name}: no such file")
        return Path(name)
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        near = f"; the nearest known one is {nearest(name, known)!r}" if known else ""
        raise ValueError(
            f"bench: unknown bench {name!r}, known are {', '.join(known)}, or a path that ends in .yaml{near}"
        )
    return folder / f"{name}.yaml"
