"""Tables and texts that a flow shows in the dashboard, updated in place while it runs."""

import json
from collections.abc import Mapping, Sequence
from typing import cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate


class Dashboard:
    """Tables and texts of one flow run, by key (lower-case letters, digits, hyphens); a new state replaces the old one.

    Cells are formatted text: the dashboard would print a number with all its digits, and it cuts off long cells.
    """

    def __init__(self) -> None:
        self._artifacts: dict[str, UUID] = {}

    def table(self, key: str, rows: Sequence[Mapping[str, str]], description: str) -> None:
        """Show or update a table, with the keys of the first row as headings."""
        table = [dict(row) for row in rows]
        if not self._replaced(key, json.dumps(table), description):
            self._artifacts[key] = cast(UUID, create_table_artifact(table=table, key=key, description=description))

    def markdown(self, key: str, text: str, description: str) -> None:
        """Show or update a Markdown text, with embedded pictures."""
        if not self._replaced(key, text, description):
            self._artifacts[key] = cast(UUID, create_markdown_artifact(text, key=key, description=description))

    def _replaced(self, key: str, data: str, description: str) -> bool:
        if key not in self._artifacts:
            return False
        update = ArtifactUpdate(data=data, description=description)
        get_client(sync_client=True).update_artifact(artifact_id=self._artifacts[key], artifact=update)
        return True
