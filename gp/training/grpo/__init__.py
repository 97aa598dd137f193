"""GlimpsePrune+: an adapter of the base learns to answer from what pruning keeps, by reinforcement (GRPO)."""
