"""The partition steps: images are dealt to hospitals, then each hospital takes what is its own."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records import Case, Image, read_table, write_table
from tasks.settings import PartitionSettings
from tasks.step import Folder, stage
from tasks.store import Ref


@stage("partition", area="source", code=["partition", "groups"])
def partition(folder: Folder, cases: Ref, settings: PartitionSettings, seed: int) -> None:
    """Which hospital holds which image: `assignment.parquet` (image_id, hospital)."""
    from tasks.partition.deal import deal

    rows = read_table(cases.folder / "cases.parquet", Case)
    owner, scheme = deal(rows, settings.hospitals, settings.scheme, settings.alpha, settings.label, seed)
    with folder.open("assignment.parquet") as sink:
        pq.write_table(pa.table({"image_id": list(owner), "hospital": list(owner.values())}), sink)
    counts: dict[str, Counter[str]] = {}
    for case in rows:
        counts.setdefault(owner[case.image_id], Counter())[f"{case.split}_{case.kind}"] += 1
    images = Counter(owner.values())
    table = [
        {"hospital": hospital, "images": images[hospital], **dict(sorted(counts[hospital].items()))}
        for hospital in sorted(counts, key=lambda name: int(name.rsplit("-", 1)[1]))
    ]
    folder.summary = {"scheme": scheme, "hospitals": table}


@stage("cases", area="hospitals/{hospital}", code=["partition"], title="cases {hospital}")
def take_cases(folder: Folder, hospital: str, cases: Ref, dataset: Ref, assignment: Ref) -> None:
    """A hospital's own cases, and their images out of the dataset."""
    table = pq.read_table(assignment.folder / "assignment.parquet").to_pylist()
    own = {row["image_id"] for row in table if row["hospital"] == hospital}
    with folder.open("cases.parquet") as sink:
        rows = read_table(cases.folder / "cases.parquet", Case)
        write_table(sink, Case, (case for case in rows if case.image_id in own))
    with folder.open("images.parquet") as sink:
        images = read_table(dataset.folder / "images.parquet", Image)
        write_table(sink, Image, (image for image in images if image.id in own))
