"""Measuring: time, peak memory, and the machine that figures were taken on."""
