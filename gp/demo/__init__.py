"""A page in the browser that asks one question twice, pruned and un-pruned. Needs the extra `demo` (gradio).

python -m gp.demo        the embedded model, on this machine alone
"""
