"""Settings of what a study leaves on disk."""

from pydantic import Field

from tasks.settings.base import Settings


class ArtifactsSettings(Settings):
    """The artifacts folder."""

    root: str | None = Field(None, min_length=1)
    """A store that several machines share, as a URL of fsspec such as s3://bucket/study (docs/cluster.md)."""
    max_bytes: int | None = Field(None, ge=1)
    """Bytes from which a finished run warns that the artifacts are large; nothing is ever deleted by itself."""
