"""What setup.cfg cannot say: configs/ goes into the package as gp/configs, and the README's links become absolute."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
CONFIGS = {"gp.configs": "configs", "gp.configs.bench": "configs/bench"}
PICTURES = (".png", ".jpg", ".svg")


def version() -> str:
    return re.search(r'__version__ = "(.*?)"', (HERE / "gp/version.py").read_text())[1]


def long_description() -> str:
    """The README as PyPI shows it: without the files beside it, pictures and links lead to this version's."""

    metadata = ConfigParser()
    metadata.read(HERE / "setup.cfg", encoding="utf-8")
    pages = metadata["metadata"]["url"]
    pictures = pages.replace("//github.com/", "//raw.githubusercontent.com/")

    def absolute(link: re.Match) -> str:
        place = f"{pictures}/v{version()}" if link[1].endswith(PICTURES) else f"{pages}/blob/v{version()}"
        return f"]({place}/{link[1]}{link[2] or ''})"

    text = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", absolute, text)


setup(
    packages=[*find_packages(include=["gp", "gp.*"]), *CONFIGS],
    package_dir=CONFIGS,
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
