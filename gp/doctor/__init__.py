"""What a bug report needs to know about an installation: `python -m gp.doctor`."""
