"""An OpenAI-compatible server of a pruned model: `python -m gp.serve`, docs/serve.md."""
