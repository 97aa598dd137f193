"""Single checks: what they call a problem, and what not."""

from __future__ import annotations

import platform

import pytest
import torch

from gp import window
from gp.config.schema import DataConfig, TrainConfig
from gp.doctor import devices, disk, host, kernels, libraries, question
from gp.doctor.imports import Imports
from gp.doctor.kernels import Outcome
from gp.doctor.report import NOTE, OK, PROBLEM, WARNING
from gp.embedded.scenes import Question
from gp.model import Answer

is_installed = pytest.mark.skipif(
    libraries.installed_version(libraries.DISTRIBUTION) is None, reason="gp runs here without being installed"
)


def by_name(check):
    return {line.name: line for line in check()}


def test_host_says_what_runs_here():
    lines = by_name(host.check)
    assert platform.python_version() in lines["python"].text
    assert "GiB" in lines["memory"].text and "cores" in lines["processor"].text


@is_installed
def test_libraries_against_the_window(monkeypatch):
    found = [
        window.Library("torch", "2.13.0", ">=2.9,<2.14", True),
        window.Library("transformers", "9.0", ">=5.18,<5.25", False),
        window.Library("lightning", None, ">=2.5", False),
        window.Library("Flash_Attn", None, ">=2.7", False),  # an extra, under another spelling of its name
        window.Library("gradio", "4.0", ">=5", False),
    ]
    monkeypatch.setattr(window, "check", lambda: found)
    lines = by_name(libraries.check)
    assert lines["torch"].status == OK
    assert (
        lines["transformers"].status == WARNING and "9.0 outside (tested: >=5.18,<5.25)" in lines["transformers"].text
    )
    assert lines["lightning"].status == PROBLEM and "not installed" in lines["lightning"].text
    assert lines["Flash_Attn"].status == NOTE and "optional" in lines["Flash_Attn"].text
    assert lines["gradio"].status == WARNING
    assert "flash-attn" not in lines, "one line per library"
    assert lines["pytest"].status == OK, "extras that the window does not name are there, too"


@is_installed
def test_extras_that_the_window_leaves_out_are_compared_with_setup_cfg(monkeypatch):
    monkeypatch.setattr(window, "check", lambda: [])
    monkeypatch.setattr(libraries, "installed_version", {"gradio": "4.0", "pytest": "8.5", "glimpse-prune": "0"}.get)
    lines = by_name(libraries.check)
    assert lines["gradio"].status == WARNING and "outside (wanted: >=5), optional" in lines["gradio"].text
    assert lines["pytest"].status == OK and lines["ruff"].status == NOTE


@is_installed
def test_every_library_of_setup_cfg_has_a_line():
    names = {libraries.plain(name) for name in by_name(libraries.check)}
    assert {libraries.plain(name) for name in libraries.required_names()} <= names
    assert {"flash-attn", "lmms-eval", "gradio", "sentencepiece"} <= names


def test_core_libraries_have_a_line_where_gp_is_not_installed(monkeypatch):
    monkeypatch.setattr(libraries, "DISTRIBUTION", "no-such-distribution")
    lines = by_name(libraries.check)
    assert lines["no-such-distribution"].status == WARNING and torch.__version__ in lines["torch"].text
    assert set(Imports().modules) >= {"torch", "transformers", "lightning"}


def test_imports_name_the_broken_and_the_one_that_crashes(tmp_path, monkeypatch):
    (tmp_path / "gp_broken.py").write_text("raise OSError('libcudart.so.12: cannot open\\nshared object file')")
    (tmp_path / "gp_noisy.py").write_text("print('hello', end='')")
    (tmp_path / "gp_crash.py").write_text("import os\nos.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Imports(["gp_noisy", "gp_broken", "json", "gp_crash", "csv"]) as imports:
        lines = by_name(imports.check)
    assert lines.keys() == {"gp_broken", "gp_crash"}
    assert lines["gp_broken"].text == "OSError: libcudart.so.12: cannot open"
    assert "status -6" in lines["gp_crash"].text
    assert {line.status for line in lines.values()} == {PROBLEM}


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "driver_of_nvidia", lambda: "570.86")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert by_name(devices.check)["cuda"].status == WARNING
    monkeypatch.setattr(devices, "driver_of_nvidia", lambda: None)
    assert by_name(devices.check)["cuda"].status == NOTE


def test_cuda_devices_are_described_apart(monkeypatch):
    """The second device's driver fails; the first one is there all the same."""

    def memory(index):
        if index == 1:
            raise RuntimeError("CUDA error: device is lost")
        return 3 * 2**30, 80 * 2**30

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": memory,
        "get_device_capability": lambda index: (9, 0),
        "get_device_name": lambda index: "A Card",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    lines = by_name(devices.check)
    assert lines["cuda:0"].text == "A Card, compute capability 9.0, 3.0 of 80.0 GiB free"
    assert lines["cuda:1"].status == PROBLEM and "device is lost" in lines["cuda:1"].text


def test_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = by_name(disk.check)
    assert lines["runs"].status != PROBLEM and "to be made" in lines["runs"].text
    assert not list(tmp_path.iterdir())


def test_disk_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file, in which no run can be")
    lines = by_name(disk.check)
    assert lines["runs"].status == PROBLEM and "cannot be written" in lines["runs"].text
    assert lines["shards"].status != PROBLEM


def test_disk_looks_where_runs_and_shards_go():
    assert {"runs": TrainConfig.runs_dir, "shards": DataConfig.root} == disk.PLACES


@pytest.mark.parametrize(
    ("text", "num_kept", "status"), [("4 6", 4, OK), ("4 7", 4, PROBLEM), ("", 4, PROBLEM), ("4 6", 64, PROBLEM)]
)
def test_an_answer_is_judged(text, num_kept, status):
    asked = Question("what number is on the red card ?", "4 6", (), "color")
    assert question.judge(asked, Answer(text, (), num_kept, 64), 0.1, 0.1).status == status


def outcome(tokens=(4, 6, 2), shift=0.0, dropped=()):
    logits = torch.eye(3, 8) + shift
    keep_mask = torch.ones(2, 2, dtype=torch.bool)
    for place in dropped:
        keep_mask[place] = False
    return Outcome(torch.tensor(tokens), logits, keep_mask)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (outcome(), OK),
        (outcome(shift=1e-3), OK),
        (outcome(tokens=(4, 7, 2)), PROBLEM),
        (outcome(dropped=[(0, 1)]), PROBLEM),
        (outcome(shift=float("nan")), PROBLEM),
    ],
)
def test_a_kernel_is_compared_with_eager(found, status):
    assert kernels.compare("sdpa", found, outcome()).status == status


def test_a_kernel_that_fails_stops_no_other(monkeypatch):
    def run(kernel, device, dtype):
        if kernel == "eager":
            raise RuntimeError("no kernel image is available")
        return outcome()

    monkeypatch.setattr(kernels, "run", run)
    lines = by_name(kernels.check)
    assert lines["eager"].status == PROBLEM and "no kernel image" in lines["eager"].text
    assert lines["sdpa"].status == OK and "compare" in lines["sdpa"].text
    assert lines["sdpa: math"].status == OK


def test_flash_attention_is_tried_where_it_can_run(monkeypatch):
    monkeypatch.setattr(kernels, "installed_version", lambda name: "2.8" if name == "flash-attn" else None)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert "needs a CUDA device" in kernels.describe("flash_attention_2", cpu, torch.float32, {}).text
    assert kernels.describe("flash_attention_3", cuda, torch.bfloat16, {}).status == NOTE
    monkeypatch.setattr(kernels, "run", lambda *where: outcome(tokens=(4, 7, 2)))
    assert kernels.describe("flash_attention_2", cuda, torch.bfloat16, {"eager": outcome()}).status == PROBLEM
