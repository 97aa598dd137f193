"""From the demo's options to a page that is served."""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from pathlib import Path

import gradio as gr
import torch

from gp.demo.answering import reply_to
from gp.demo.examples import Example, draw_examples
from gp.demo.options import DemoConfig
from gp.demo.page import LOOK, build
from gp.images import read_images
from gp.loading import from_pretrained
from gp.measure.machine import device_name
from gp.model import GlimpseModel
from gp.pruners import NoPruner


def serve(config: DemoConfig) -> None:
    """Serves the page until it is interrupted.

    Raises:
        OSError: the address or port cannot be had.
        ValueError: what `gp.from_pretrained` raises.
    """
    check_port(config.host, config.port)
    page = make_page(config)
    _, address, _ = page.launch(
        server_name=config.host,
        server_port=config.port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=["gradio"],
        **LOOK,
    )
    print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
    page.block_thread()


def make_page(config: DemoConfig) -> gr.Blocks:
    """Loads the model, warms it up and builds its page; raises what `gp.from_pretrained` raises."""
    model = load_model(config)
    folder = Path(tempfile.mkdtemp(prefix="gp-demo-"))
    gr.set_static_paths([folder])
    examples = draw_examples(folder)
    warm_up(model, examples[0])
    return build(model, examples, config.max_new_tokens, device_name(model.device))


def load_model(config: DemoConfig) -> GlimpseModel:
    """The model of the options, on its device; raises what `gp.from_pretrained` raises."""
    device = config.model.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = config.model.dtype or ("float32" if device == "cpu" else None)
    attention = config.model.attn_implementation
    model = from_pretrained(config.model.base, config.glimpse(), dtype=dtype, attn_implementation=attention)
    model.pruner_settings = config.settings()
    return model.to(device)


def warm_up(model: GlimpseModel, example: Example) -> None:
    """Asks once, so that the first visitor's times are not those of loading kernels."""
    pictures = read_images(list(example.pictures))
    for pruner in (NoPruner(), model.find_pruner(None)):
        deque(reply_to(model, pictures, [], example.question, pruner, model.options, 2), maxlen=0)


def check_port(host: str, port: int) -> None:
    """OSError if the port is taken, which is found before the model is loaded."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"{host}, port {port}: {error.strerror}; choose another one with port=...") from error
