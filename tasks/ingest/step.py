"""The ingest step: published datasets become cases, captions and images."""

from dataclasses import asdict

from tasks.records import Caption, Case, Finding, Image, write_table
from tasks.settings import DatasetSettings
from tasks.store.stage import Folder, stage


@stage(
    "ingest",
    area="source",
    title="ingest {settings.label}",
)
def ingest(folder: Folder, settings: DatasetSettings, content: str, seed: int) -> None:
    """Read the datasets; `content` identifies the state of their files, so that changed files are read again."""
    from tasks.ingest.datasets import Options
    from tasks.ingest.datasets import ingest as read
    from tasks.ingest.source import summarise

    ask = Options(**settings.model_dump(exclude={"name", "root"}), seed=seed)
    source = read(settings.sources, ask)
    with folder.open("cases.parquet") as sink:
        write_table(sink, Case, source.cases)
    with folder.open("images.parquet") as sink:
        write_table(sink, Image, source.images)
    with folder.open("findings.parquet") as sink:
        write_table(sink, Finding, source.findings)
    with folder.open("captions.parquet") as sink:
        write_table(sink, Caption, source.captions)
    folder.write_json("rejected.json", [asdict(each) for each in source.rejected])
    folder.write_json("columns_not_used.json", list(source.unused))  # words of a hospital, kept out of the summary
    folder.summary = summarise(source)
    folder.write_json("summary.json", folder.summary)
