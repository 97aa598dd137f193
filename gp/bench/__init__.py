"""Measurements: `python -m gp.bench NAME --help`."""
