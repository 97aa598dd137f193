"""Paths of the resources that ship with the package: the embedded model and the material of its scenes.

    BASE_DIR      a complete Qwen2.5-VL-architecture folder (config, fp16 weights, tokenizer, processor)
    BASE2_DIR     its second generation: larger images, two of them, more kinds of question
    GLIMPSE_DIR   a trained glimpse for the first one
    GLIMPSE2_DIR  a trained glimpse for the second one
    MATERIAL_DIR  digit scans and photographs from which scenes are drawn; licences in its LICENSES.md
    EMBEDDED_BASES, EMBEDDED_GLIMPSES   their folders by the names that users give: "tiny", "tiny2"

How they were made: `docs/embedded_model.md`.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

BASE_DIR = _HERE / "base"
BASE2_DIR = _HERE / "base2"
GLIMPSE_DIR = _HERE / "glimpse"
GLIMPSE2_DIR = _HERE / "glimpse2"
MATERIAL_DIR = _HERE / "material"
EMBEDDED_BASES = {"tiny": BASE_DIR, "tiny2": BASE2_DIR}
EMBEDDED_GLIMPSES = {"tiny": GLIMPSE_DIR, "tiny2": GLIMPSE2_DIR}
