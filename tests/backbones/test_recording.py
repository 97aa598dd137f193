"""Recording a module's calls in one thread while another uses it."""

from __future__ import annotations

import threading

import torch

from gp.backbones.recording import record_calls


def test_a_call_of_another_thread_is_not_recorded_and_not_disturbed():
    module = torch.nn.Linear(2, 2)
    with record_calls([module]) as calls:
        (hook,) = module._forward_pre_hooks.values()
        # torch calls it without kwargs in the instant in which it is known, but not yet that it wants them
        thread = threading.Thread(target=lambda: (hook(module, (torch.ones(2),)), module(torch.zeros(2))))
        thread.start()
        thread.join()
        assert calls == [None]
        module(torch.ones(2))
        assert calls[0][0][0].tolist() == [1, 1]
    assert not module._forward_pre_hooks
