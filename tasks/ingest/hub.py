"""Downloads datasets from the Hugging Face hub, or uses earlier downloads."""

from pathlib import Path

from tasks.ingest.finding import problem


def fetch(name: str, repository: str, layout: str) -> Path:
    """The folder of a dataset's Parquet files, which is named after their commit.

    Args:
        name: of the dataset, for the message.
        repository: its id on the hub.
        layout: the files that a user would have to put into a folder instead, for the message.

    Raises StudyError where there is neither access to the hub nor an earlier download.
    """
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns="data/*.parquet"))
    except (OSError, httpx.HTTPError) as error:
        expected = f"the {name} dataset, or {repository} on the Hugging Face hub within reach"
        found = f"no folder, and no answer from the hub ({type(error).__name__})"
        remedy = f"set dataset.root to a folder that holds {layout}"
        raise problem("dataset.root", expected, found, remedy) from None
