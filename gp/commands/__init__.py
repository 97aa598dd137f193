"""The commands: each reads its command line and calls one function. `train.py` and `gp-train` are two names of one."""
