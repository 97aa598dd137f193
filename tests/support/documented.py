"""Commands as the pages give them, and a dry run of each: options, configs, modules and files exist; nothing starts."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

from gp.__main__ import COMMANDS
from gp.bench.__main__ import make_parser as bench_parser
from gp.commands import check_shards, evaluate, shards, train
from gp.commands.build_shards import parse as parse_build
from gp.config import load_config
from gp.config.files import config_folder, config_names, find_config
from gp.config.load import COMMAND_LINE, merge_options, parse_overrides
from gp.config.scoring import ScoreConfig
from gp.data.building import load_build_config
from gp.data.inspecting import load_check_config
from gp.demo.options import load_demo_config
from gp.eval.benches import find_bench
from gp.flags import as_flags
from gp.front.options import load_front_config
from gp.integrations.ray import load_ray_config
from gp.runs.sweep import members_of
from gp.serve.options import load_serve_config

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r"(?:python(?:3)? (?!-c|-m (?!gp|pytest))|torchrun |gp-\w|\.ci/run|make |pip install )")
SCRIPTS = {
    "train.py": "train",
    "evaluate.py": "evaluate",
    "shards/build.py": "build",
    "shards/check.py": "check",
    "shards/build_tiny.py": "tiny",
    "gp-train": "train",
    "gp-evaluate": "evaluate",
    "gp-bench": "bench",
    "gp-demo": "demo",
}
SHARDS = {name: module.rpartition(".")[2].removesuffix("_shards") for name, module in shards.COMMANDS.items()}
MODULES = {module.removesuffix(".__main__"): name for name, module in COMMANDS.items()} | {"gp.integrations.ray": "ray"}


def commands_in(text: str) -> list[str]:
    """The command lines of a page or of a config's head: in indented and fenced blocks, without their comments."""
    text = re.sub(r"\\\n#?\s*", " ", text)
    lines = re.findall(r"^(?: {4,}|#\s+)(.*)$", text, re.MULTILINE)
    for block in re.findall(r"^```(?:bash|console|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines += block.splitlines()
    parts = [
        part.strip() for line in lines for part in re.split(r" && |; (?:do )?", re.split(r"\s{2,}#|\s# ", line)[0])
    ]
    parts = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part) for part in parts]
    return [part for part in parts if PROGRAM.match(part)]


def check(command: str) -> None:
    """Raises (ValueError, OSError, SystemExit, AssertionError) if a command cannot be what its page says."""
    words = shlex.split(re.sub(r" > \S+$", "", command).replace("$", ""))
    if words[0] == "torchrun":
        words = ["python", *words[words.index("--nproc_per_node") + 2 :]]
    if words[0] in ("python", "python3"):
        words = words[1:]
    if words[0] == "-m":
        _check_module(words[1], words[2:])
    elif words[0] == "gp-shards":
        _run(SHARDS[words[1]], words[2:]) if words[1:] else None
    elif words[0] in SCRIPTS:
        _run(SCRIPTS[words[0]], words[1:])
    elif words[0] == ".ci/run":
        assert all(f"install_{leg}()" in (ROOT / ".ci/run").read_text() for leg in words[1:] if leg[0] != "-"), words
    elif words[0] == "make":
        assert all(re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.M) for name in words[1:]), words
    elif words[0] == "pip":
        _check_extras(words[2:])
    else:
        assert (ROOT / words[0]).is_file(), f"{words[0]}: no such file"


def _check_module(module: str, words: list[str]) -> None:
    if module == "gp":
        if words and words[0] not in ("-h", "--help"):
            _run(SHARDS[words[1]], words[2:]) if words[0] == "shards" else _run(words[0], words[1:])
    elif module in MODULES:
        _run(MODULES[module], words)
    elif module == "pytest":
        missing = [word for word in words if "/" in word and not (ROOT / word.partition("::")[0]).exists()]
        assert not missing, f"no such tests: {missing}"
    else:
        assert find_spec(module), f"no such module: {module}"


def _check_extras(words: list[str]) -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = {one for word in words for extras in re.findall(r"\[([\w,]+)\]", word) for one in extras.split(",")}
    assert named <= set(config["options.extras_require"]) or not words[0].startswith((".", "-e", "glimpse")), named


def _run(name: str, words: list[str]) -> None:
    if words in ([], ["--help"], ["..."]) or "--help" in words:
        return
    CHECKS[name](words)


def _check_train(words: list[str]) -> None:
    options = train.parse(words)
    for member in members_of(options.overrides):
        load_config(_shipped(options.config), member.overrides)


def _check_evaluate(words: list[str]) -> None:
    options = evaluate.parse(words)
    score, rest = evaluate.take("score", options.settings)
    if score is not None:
        merge_options(ScoreConfig, {COMMAND_LINE: parse_overrides(rest)})
        return
    bench, rest = evaluate.take("bench", rest)
    if bench and (not bench.endswith(".yaml") or (ROOT / bench).exists()):
        find_bench(bench, config_folder() / "bench")
    for key in evaluate.CALIBRATION:
        _, rest = evaluate.take(key, rest)
    ckpt, overrides = evaluate.split_settings(rest)
    assert ckpt or options.config
    load_config(_shipped(options.config or []), overrides)


def _shipped(paths: list[Path]) -> list[Path]:
    """The configs that gp brings; a reader's own does not exist. Without any, options are tried on `tiny`."""
    ours = [find_config(path) for path in paths if str(path).startswith("configs/") or str(path) in config_names()]
    return ours or [find_config("tiny")]


def _check_build(words: list[str]) -> None:
    options = parse_build(words)
    if options.config is None:
        load_build_config(None, options.options)


def _check_check(words: list[str]) -> None:
    options = check_shards.parse(words)
    named = [text for text in options.options if "=" not in text]
    load_check_config(options.config, [text for text in options.options if "=" in text], named)


def _check_bench(words: list[str]) -> None:
    parser = bench_parser()
    parser.parse_args(as_flags(parser, words))


def _check_flags(name: str):
    def look(words: list[str]) -> None:
        unknown = [word for word in words if word.startswith("--") and word not in FLAGS[name]]
        assert not unknown, f"{name}: unknown {unknown}"

    return look


def _settings(load):
    """Of commands whose words are settings, apart from a file that the reader writes."""

    def look(words: list[str]) -> None:
        load([word for word in words if "=" in word])

    return look


FLAGS = {"convert": ("--base",), "doctor": ("--json", "--traceback"), "tiny": ("--root",)}
CHECKS = {
    "train": _check_train,
    "evaluate": _check_evaluate,
    "build": _check_build,
    "check": _check_check,
    "tiny": _check_flags("tiny"),
    "build_tiny": _check_flags("tiny"),
    "bench": _check_bench,
    "demo": _settings(load_demo_config),
    "ray": _settings(lambda settings: load_ray_config(None, settings)),
    "serve": _settings(lambda settings: load_serve_config(None, ["model.base=tiny", *settings])),
    "front": _settings(
        lambda settings: load_front_config(None, ["model.base=tiny", "upstream=http://x/v1", *settings])
    ),
    "convert": _check_flags("convert"),
    "doctor": _check_flags("doctor"),
}
