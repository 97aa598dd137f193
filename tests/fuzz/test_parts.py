"""Mutated folders of trained parts and checkpoints: loaded as they were written, or one error that names the file."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from gp.convert import main as convert
from gp.formats.glimpse_folder import load_glimpse, save_glimpse
from gp.runs.checkpoint import read_checkpoint
from tests.parity import Case, load_qwen
from tests.support.glimpses import micro_glimpse
from tests.support.micro_eval import write_run
from tests.support.mutations import as_text, changed, damaged, outcomes
from tests.support.tiny_models import tiny_qwen

pytestmark = pytest.mark.slow

CASE = Path(__file__).parents[1] / "golden/q03_batch3_left_padding"


def mutated_tensors(parts: dict, rng: random.Random) -> dict:
    """Trained parts with one tensor changed."""
    parts = {name: dict(part) if isinstance(part, dict) else part for name, part in parts.items()}
    inner = rng.choice([part for part in (*parts.values(), parts) if isinstance(part, dict) and part])
    name = rng.choice(sorted(inner))
    value, kind = inner[name], rng.randrange(6)
    if kind == 0:
        del inner[name]
    elif kind == 1:
        inner[f"{name}x"] = inner.pop(name)
    elif kind == 2 or not isinstance(value, torch.Tensor):
        inner[name] = rng.choice([None, 3, "x", [], {}, torch.zeros(0)])
    elif kind == 3:
        inner[name] = value.to(torch.int64)
    elif kind == 4:
        inner[name] = torch.full_like(value, float("nan"))
    else:
        inner[name] = value[None]
    return parts


def finite(pruner) -> bool:
    return all(value.isfinite().all() and value.is_floating_point() for value in pruner.state_dict().values())


def test_our_folders(tmp_path):
    model = micro_glimpse(tiny_qwen())
    good = save_glimpse(tmp_path / "good", model.glimpse, model.backbone, model.options)
    expected = model.glimpse.state_dict()

    def attempt(rng: random.Random) -> str:
        folder = tmp_path / "g"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        config, weights = folder / "config.json", folder / "glimpse.safetensors"
        if rng.random() < 0.7:
            given = json.loads(config.read_text())
            if rng.random() < 0.7:
                del given["sha256"]  # as earlier versions wrote it
            config.write_bytes(as_text(changed(given, rng), rng))
        else:
            weights.write_bytes(damaged(weights.read_bytes(), rng))
            if rng.random() < 0.5:
                given = json.loads(config.read_text())
                del given["sha256"]
                config.write_text(json.dumps(given))
        pruner, _ = load_glimpse(folder, model.backbone)
        assert finite(pruner) and pruner.state_dict().keys() == expected.keys()
        return "loaded"

    assert outcomes("our folders", attempt)["refused"] > 100


def test_published_folders_and_conversion(tmp_path, capsys):
    backbone = load_qwen(Case.read(CASE)).backbone
    parts = torch.load(CASE / "modules/new_modules_gp.pt", weights_only=True)

    def attempt(rng: random.Random) -> str:
        folder, out = tmp_path / "p", tmp_path / "out"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(CASE / "modules", folder)
        kind = rng.randrange(3)
        if kind == 0:
            given = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_bytes(as_text(changed(given, rng), rng))
        elif kind == 1:
            path = folder / "new_modules_gp.pt"
            path.write_bytes(damaged(path.read_bytes(), rng))
        else:
            torch.save(mutated_tensors(parts, rng), folder / "new_modules_gp.pt")
        status = convert([str(folder), str(out)])
        error = capsys.readouterr().err
        assert status in (0, 2) and "Traceback" not in error
        if status == 2:
            assert str(folder) in error and not out.exists(), error
        else:
            load_glimpse(out, backbone)
        assert finite(load_glimpse(folder, backbone)[0])
        return "loaded"

    counts = outcomes("published folders", attempt)
    assert counts["refused"] > 100


def test_checkpoints(tmp_path):
    good = write_run(tmp_path).ckpt
    data = good.read_bytes()
    expected = read_checkpoint(good)["state_dict"]

    def attempt(rng: random.Random) -> str:
        path = tmp_path / "c.ckpt"
        path.write_bytes(damaged(data, rng))
        found = read_checkpoint(path)["state_dict"]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        return "loaded as written"

    assert outcomes("checkpoints", attempt)["refused"] > 200
