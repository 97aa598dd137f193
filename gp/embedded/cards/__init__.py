"""Scenes of numbered cards over photographs, of any size in visual tokens, with grounded questions of many kinds.

Everything is a pure function of (split, layout, size, seed); splits share no digit scan, no photograph and no seed.
"""
