"""Imports of the libraries, tried in a second process beside the other checks.

One that crashes, as one compiled for another version of torch may, takes only that process along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from gp.doctor.libraries import installed_version, required_names
from gp.doctor.report import OK, PROBLEM, Line

MODULES = {"pyyaml": "yaml", "pillow": "PIL", "flash-attn": "flash_attn"}  # where it is not the distribution's name
COMPILED_EXTRAS = ["flash-attn"]  # the extras that break
TIMEOUT_S = 60
MARK = "gp.doctor imported "
SCRIPT = f"""
import importlib, json, sys
for name in sys.argv[1:]:
    reason = None
    try:
        importlib.import_module(name)
    except BaseException as error:
        reason = type(error).__name__ + ": " + (str(error).strip().splitlines() or ["no message"])[0]
    print("\\n{MARK}" + json.dumps([name, reason]), flush=True)
"""


class Imports:
    """A process that imports modules one after the other, from `start` to the end of the `with` block.

    Args:
        modules: their names; None: of gp's libraries that are installed.
    """

    def __init__(self, modules: Sequence[str] | None = None) -> None:
        self.modules = installed_modules() if modules is None else list(modules)

    def __enter__(self) -> Imports:
        command = [sys.executable, "-c", SCRIPT, *self.modules]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def check(self) -> Iterator[Line]:
        """Waits for the process; yields a problem per module that could not be imported, or one line if all could."""
        output, _ = self.process.communicate(timeout=TIMEOUT_S)
        found = [json.loads(line.removeprefix(MARK)) for line in output.splitlines() if line.startswith(MARK)]
        broken = [Line(name, reason, PROBLEM) for name, reason in found if reason is not None]
        yield from broken
        if len(found) < len(self.modules):
            ended = f"importing it ended the process with status {self.process.returncode}"
            yield Line(self.modules[len(found)], ended, PROBLEM)
        elif not broken:
            yield Line("import", f"all {len(found)}: {', '.join(self.modules)}", OK)


def installed_modules() -> list[str]:
    """Modules of gp's own libraries that are installed; of extras only compiled ones."""
    names = [name for name in [*required_names(), *COMPILED_EXTRAS] if installed_version(name) is not None]
    return [MODULES.get(name, name) for name in names]
