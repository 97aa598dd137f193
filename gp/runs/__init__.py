"""Run folders: who may write into them, what they hold, and reading their checkpoints back."""
