"""From shards to batches: the Visual-CoT schema, streaming, and the embedded data."""
