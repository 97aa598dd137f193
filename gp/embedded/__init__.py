"""Paths of the resources that ship with the package: the embedded model and the material of its scenes.

    BASE_DIR      a complete Qwen2.5-VL-architecture folder (config, fp16 weights, tokenizer, processor)
    GLIMPSE_DIR   a trained glimpse for it
    MATERIAL_DIR  digit scans and photographs from which scenes are drawn; licences in its LICENSES.md
    EMBEDDED_BASES, EMBEDDED_GLIMPSES   their folders by the name that users give: "tiny"

How they were made: `docs/embedded_model.md`.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

BASE_DIR = _HERE / "base"
GLIMPSE_DIR = _HERE / "glimpse"
MATERIAL_DIR = _HERE / "material"
EMBEDDED_BASES = {"tiny": BASE_DIR}
EMBEDDED_GLIMPSES = {"tiny": GLIMPSE_DIR}
