"""The prefill engine: one run through the decoder for every method, then pruning, decoding and training behind it."""
