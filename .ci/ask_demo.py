"""Starts the installed `gp-demo` and asks it one of its examples, as the page does. Status 0: it answered right.

python .ci/ask_demo.py
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile

from gradio_client import Client, handle_file

from gp.demo.examples import draw_examples
from gp.demo.turns import DECIDES

PATIENCE_S = 300


def main() -> int:
    """Prints question and answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = subprocess.Popen(["gp-demo", f"port={port}"], stdout=subprocess.PIPE, text=True)
    try:
        address = demo.stdout.readline().split()[1]  # "open http://... in a browser"
        example = draw_examples(tempfile.mkdtemp())[0]
        pictures = [{"image": handle_file(path), "caption": None} for path in example.pictures]
        asked = Client(address, verbose=False).submit(
            pictures, example.question, "glimpse", DECIDES, 0.5, 0.1, api_name="/ask"
        )
        pruned, unpruned, *_ = asked.result(timeout=PATIENCE_S)
    finally:
        demo.terminate()
        demo.wait(60)
    answers = [str(chat[-1]["content"]) for chat in (pruned, unpruned)]
    print(f"{address}: {example.question} pruned {answers[0]}, un-pruned {answers[1]}, right {example.answer}")
    return int(not all(example.answer in answer for answer in answers))


if __name__ == "__main__":
    sys.exit(main())
