"""Facts about an installation for bug reports: `python -m gp.doctor`."""
