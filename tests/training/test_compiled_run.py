"""`trainer.compile=true` through `train.py`: the weights of the plain run, and runs that go on.

The graph, forward and backward, is captured as in any run and then run by PyTorch itself (`aot_eager`), not by code
that takes minutes to make; that this gives the same is shown in `tests/engine/test_compiled_suffix.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import train
from gp.engine.compiled_suffix import CompiledSuffix
from tests.support.micro_run import save_base, write_config
from tests.support.train_command import checkpoint

STEPS = (
    *("trainer.val_every=100", "trainer.save_every=100", "trainer.val_samples=1", "eval.after_training=false"),
    *("optim.warmup_fraction=0", "optim.final_lr_fraction=1"),  # the same rates, however many steps are meant
)


def call(folder: Path, steps: int, *overrides: str) -> None:
    """Trains up to a step, without a warning that it is not compiled."""
    arguments = ["--config", str(folder / "micro.yaml"), *STEPS, "ckpt=auto", f"optim.max_steps={steps}", *overrides]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "trainer.compile", UserWarning)
        assert train.main(arguments) == 0


@pytest.mark.slow
def test_the_weights_of_a_plain_run_also_when_it_goes_on(tmp_path, monkeypatch):
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(CompiledSuffix.__init__, "__defaults__", (counter, None))
    base = save_base(tmp_path / "base")
    plain, whole, broken = (tmp_path / name for name in ("plain", "whole", "broken"))
    for folder in (plain, whole, broken):
        write_config(folder, base)
    graphs = []
    for folder, *given in (plain, 6), (whole, 6, "trainer.compile=true"), (broken, 3, "trainer.compile=true"):
        call(folder, *given)
        graphs.append(counter.frame_count)
    call(broken, 6, "trainer.compile=true")
    assert [*graphs, counter.frame_count] == [0, 1, 2, 3]  # one a start
    expected, found, gone_on = (checkpoint(folder) for folder in (plain, whole, broken))
    assert expected["global_step"] == found["global_step"] == gone_on["global_step"] == 6
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=0, atol=1e-4)
        assert torch.equal(gone_on["state_dict"][name], found["state_dict"][name]), name
