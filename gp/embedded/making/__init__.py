"""The recipe of the embedded base, which was run once (docs/embedded_model.md)."""
