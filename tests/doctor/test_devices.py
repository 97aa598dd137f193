"""GPUs: seen or not, healthy or not."""

from __future__ import annotations

import torch

from gp.doctor import devices
from gp.doctor.report import NOTE, PROBLEM, WARNING
from tests.support.doctor_lines import by_name


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
