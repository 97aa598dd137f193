"""Tasks for `lmms-eval --include_path`: questions of gp's shards, scored as evaluate.py scores them."""
