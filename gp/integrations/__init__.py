"""Doors of other programs: each file fits gp into one of them, and is imported by that program alone."""
