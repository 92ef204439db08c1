"""PathVQA: pathology images from textbooks (RGB, CMYK and grayscale), in the Hugging Face Parquet layout."""

from pathlib import Path

from tasks.ingest.folder import find_root
from tasks.ingest.shards import LAYOUTS, read_shards
from tasks.ingest.source import Source

NAME = "path-vqa"


def read(root: Path | None, *, max_rejected: float = 0.0) -> Source:
    """Read PathVQA.

    Args:
        root: the folder that holds `data/train-*.parquet` or the files themselves.
        max_rejected: the largest share of unusable rows; a truncated image is one.
    """
    folder, _ = find_root(root, NAME, LAYOUTS)
    return read_shards(folder, NAME, max_rejected)
