"""Every command that a page or config gives can be what it says: its options, configs, modules and files exist."""

from __future__ import annotations

import pytest

from tests.support.documented import ROOT, check, commands_in

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("notebooks", "spaces")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    wrong = []
    for command in commands_in(page.read_text()):
        try:
            check(command)
        except (Exception, SystemExit) as error:
            wrong.append(f"{command}: {str(error) or capsys.readouterr().err}")
    assert not wrong, "\n".join(wrong)


def test_most_pages_have_some():
    found = {str(page.relative_to(ROOT)): len(commands_in(page.read_text())) for page in PAGES}
    assert found["README.md"] > 10 and found["docs/commands.md"] > 20 and sum(found.values()) > 120


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --config configs/tinny.yaml",
        "python train.py --config configs/tiny.yaml optim.lrr=1",
        "python evaluate.py ckpt=runs/tiny pruner=fastvv budgets=0.1",
        "python evaluate.py ckpt=runs/tiny bench=viscott",
        "python -m gp.benches prefill",
        "python -m gp.bench prefil",
        "python -m gp.bench prefill presets=mid",
        "python -m gp.serve model.bas=tiny",
        "python -m gp.integrations.ray model.base=tiny shard=[tiny:test] out=answers",
        "python -m gp.demo ports=1",
        "python shards/buld.py name=x",
        "python shards/build.py nam=x annotations=a images=b",
        "python -m pytest tests/nowhere",
        'pip install -e ".[deve]"',
        ".ci/run newer",
        "make tests",
    ],
)
def test_a_wrong_one_is_found(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert commands_in(f"    {command}\n") == [command]
    with pytest.raises((ValueError, OSError, SystemExit, AssertionError)):
        check(command)
