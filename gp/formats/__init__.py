"""Trained parts on disk: our folder, the published format, conversion between them, sharing them. Knows no model."""
