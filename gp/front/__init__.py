"""A small model looks, a large one answers: an OpenAI-compatible front of any server, `python -m gp.front`."""
