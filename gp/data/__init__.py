"""Shards, streams and batches: the Visual-CoT schema, streaming, and the embedded data."""
