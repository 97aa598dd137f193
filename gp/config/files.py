"""Configs by name: those that come with gp, in a clone and in an installed package."""

from __future__ import annotations

from pathlib import Path

from gp.config.fitting import nearest

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIX = ".yaml"


def config_folder(package: Path = PACKAGE) -> Path:
    """The folder of the configs that come with gp: inside the installed package, or beside it in a clone."""
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Names that `--config` takes, sorted."""
    return sorted(path.stem for path in config_folder().glob(f"*{SUFFIX}"))


def find_config(name: str | Path) -> Path:
    """The file that `--config` means: a path if there is such a file, else the config of that name.

    Raises:
        FileNotFoundError: neither; names the configs that there are.
    """
    path, known = Path(name), config_names()
    if path.is_file():
        return path
    if str(name) in known:
        return config_folder() / f"{name}{SUFFIX}"
    if path.suffix == SUFFIX and path.stem in known and path.parent == Path("configs"):  # as the README says it
        raise FileNotFoundError(f"config {name}: no such file; --config {path.stem} is the one that comes with gp")
    if path.suffix or path.parent != Path("."):
        raise FileNotFoundError(f"config {name}: no such file")
    near = f"; the nearest one is {nearest(name, known)!r}" if known else ""
    raise FileNotFoundError(
        f"config {name}: no such file, and not one of those that come with gp: {', '.join(known)}{near}"
    )
