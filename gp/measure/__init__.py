"""Measuring: seconds, memory, spreads of repeated figures, and the machine that they were taken on."""
