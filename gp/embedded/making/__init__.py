"""How the embedded base was made: run once, kept as the recipe (docs/embedded_model.md)."""
