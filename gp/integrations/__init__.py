"""Engines of others that prune with gp's methods."""
