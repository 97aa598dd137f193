"""The demo's command line."""

from __future__ import annotations

import importlib.util
import re
import socket

import pytest

from gp.config.table import options_of
from gp.demo.__main__ import main
from gp.demo.options import DemoConfig, load_demo_config


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(one.key in printed for one in options_of(DemoConfig))


def test_options_by_name():
    config = load_demo_config(
        ["model.base=some/base", "model.glimpse=runs/x/glimpse", "port=8000", "methods.fastv.layer=1"]
    )
    assert (config.model.base, config.glimpse(), config.port) == ("some/base", "runs/x/glimpse", 8000)
    assert config.settings() == {"fastv": {"layer": 1}} and config.host == "127.0.0.1"


def test_an_embedded_base_brings_its_glimpse_and_settings():
    config = load_demo_config(["methods.fastv.layer=1"])
    assert config.glimpse() == config.model.base
    assert config.settings()["fastv"] == {"layer": 1, "compact_cache": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prt=1", "unknown key 'prt'.*'port'"),
        ("port=0", "port"),
        ("model.dtype=int8", "model.dtype"),
        ("x", "key=value"),
    ],
)
def test_mistakes_are_one_line(given, message, capsys):
    assert main([given]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("gp.demo.__main__.find_spec", lambda name: None)
    assert main([]) == 2
    assert 'pip install "glimpse-prune[demo]"' in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs the extra demo")
def test_a_taken_port_is_said_before_the_model_is_loaded(capsys):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert main([f"port={server.getsockname()[1]}", "model.base=no/such/base"]) == 2
    assert "choose another one with port=" in capsys.readouterr().err
