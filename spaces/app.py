"""The demo as a Space of the Hub. The same page on your own machine: `python -m gp.demo`."""

from gp.demo.options import load_demo_config
from gp.demo.page import LOOK
from gp.demo.serving import make_page

# Any option of `python -m gp.demo --help` but host and port, for example
#   "model.base=Qwen/Qwen2.5-VL-7B-Instruct", "model.glimpse=ashun989/GlimpsePrune_Qwen2.5-VL-7B-Instruct"
SETTINGS: list[str] = []

demo = make_page(load_demo_config(SETTINGS))

if __name__ == "__main__":
    demo.launch(**LOOK)  # a Space says itself where it listens
