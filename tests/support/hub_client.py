"""The Hub's client without a network."""

from __future__ import annotations

from pathlib import Path


class Hub:
    """Stands in for the Hub's client: what would be sent."""

    def create_repo(self, repo_id, private, exist_ok):
        self.repo = (repo_id, private)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        return f"https://example.invalid/{repo_id}"
