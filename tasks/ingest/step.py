"""The ingest step: a published dataset becomes cases and images."""

from tasks.records import Caption, Case, Finding, Image, write_table
from tasks.settings import DatasetSettings
from tasks.step import Folder, stage


@stage("ingest", area="source", code=["ingest", "groups"], title="ingest {settings.name}")
def ingest(folder: Folder, settings: DatasetSettings, content: str, seed: int) -> None:
    """Read the dataset; `content` tells the state of its files, so that changed files are read anew."""
    from tasks.ingest.datasets import ingest as read
    from tasks.ingest.source import summarise

    source = read(**settings.model_dump(), seed=seed)
    with folder.open("cases.parquet") as sink:
        write_table(sink, Case, source.cases)
    with folder.open("images.parquet") as sink:
        write_table(sink, Image, source.images)
    with folder.open("findings.parquet") as sink:
        write_table(sink, Finding, source.findings)
    with folder.open("captions.parquet") as sink:
        write_table(sink, Caption, source.captions)
    folder.summary = summarise(source)
    folder.write_json("summary.json", folder.summary)
