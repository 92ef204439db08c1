"""The partition steps: images are assigned to hospitals, then each hospital takes its cases and images."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records import Case, Finding, Image, ImagePair, among, read_findings, read_images, read_table, write_table
from tasks.records.copied import COPIED
from tasks.settings import PartitionSettings
from tasks.store import Ref
from tasks.store.stage import Folder, stage


@stage("partition", area="source")
def partition(folder: Folder, cases: Ref, settings: PartitionSettings, seed: int, findings: Ref | None = None) -> None:
    """Assign images to hospitals, choose the cases to keep, and set the split of each.

    Writes `assignment.parquet` (image_id, hospital) and `splits.parquet` (case_id, split, group). `findings` is the
    audit that found the copies; without it, no image counts as a copy.
    """
    from tasks.partition.counts import hospital_table, splits_of
    from tasks.partition.disjoint import disjoint
    from tasks.partition.keep import keep
    from tasks.partition.partitioners import assign_images, refuse_idle

    published = read_table(cases.folder / "cases.parquet", Case)
    pairs = read_table(findings.folder / "image_pairs.parquet", ImagePair) if findings else []
    whole = disjoint(published, pairs, settings.disjoint, seed)
    owner, scheme = assign_images(whole, settings.hospitals, settings.scheme, settings.alpha, settings.label, seed)
    rows = keep(whole, settings.kind, settings.training_share, seed)
    refuse_idle(rows, owner, settings.hospitals, scheme)
    with folder.open("assignment.parquet") as sink:
        pq.write_table(pa.table({"image_id": list(owner), "hospital": list(owner.values())}), sink)
    with folder.open("splits.parquet") as sink:
        columns = {
            "case_id": [case.id for case in rows],
            "split": [case.split for case in rows],
            "group": pa.array([case.group for case in rows], pa.string()),
        }
        pq.write_table(pa.table(columns), sink)
    moved = sum(old.split != new.split for old, new in zip(published, whole, strict=True))
    split = {"disjoint": settings.disjoint, "moved_cases": moved} | splits_of(rows)
    folder.summary = {"scheme": scheme, "split": split, "hospitals": hospital_table(rows, owner)}


@stage("cases", area="hospitals/{hospital}", title="cases {hospital}")
def take_cases(
    folder: Folder,
    hospital: str,
    cases: Ref,
    dataset: Ref,
    assignment: Ref,
    findings: Ref | None = None,
    forgotten: list[str] = [],  # noqa: B006 (a task's parameters are JSON, which has no tuple)
) -> None:
    """A hospital's cases with their images, the masks of findings in these, and the pairs of copies among them.

    `findings.parquet` holds the masks; it has no row if the dataset has no masks. The argument `findings` is the audit
    that found the copies; without it, no image counts as a copy. `forgotten` are digests of patients and images to
    leave out. `copied.json` names the hospital's test images with a copy among the training images of any hospital;
    only a simulation can tell.
    """
    from tasks.cases.withdrawn import is_forgotten
    from tasks.partition.copies import copied_in_training, copies_among, read_near

    own = among("hospital", [hospital])
    assigned = set(pq.read_table(assignment.folder / "assignment.parquet", filters=own)["image_id"].to_pylist())
    pairs = read_near(findings.folder / "image_pairs.parquet", assigned) if findings else []
    # Rows are chosen while tables are read: of a thousand hospitals, each needs a thousandth.
    near = assigned.union(*((pair.image_a, pair.image_b) for pair in pairs))
    rows = read_table(cases.folder / "cases.parquet", Case, among("image_id", near))
    named = among("case_id", (case.id for case in rows))
    table = pq.read_table(assignment.folder / "splits.parquet", filters=named).to_pylist()
    splits = {row["case_id"]: row["split"] for row in table}
    gone = set(forgotten)
    used = [case for case in rows if case.id in splits and not is_forgotten(case, gone)]
    rows = [case for case in used if case.image_id in assigned]
    # The group stays the published patient: splits.parquet also groups copies, which copies.parquet lists instead.
    moved = [replace(case, split=splits[case.id]) for case in rows]
    image_ids = {case.image_id for case in moved}
    with folder.open("cases.parquet") as sink:
        write_table(sink, Case, moved)
    folder.summary = {"test_choices": sum(case.split == "test" and bool(case.options) for case in moved)}
    with folder.open("images.parquet") as sink:
        write_table(sink, Image, read_images(dataset.folder / "images.parquet", image_ids))
    with folder.open("findings.parquet") as sink:
        write_table(sink, Finding, read_findings(dataset.folder / "findings.parquet", image_ids))
    with folder.open("copies.parquet") as sink:
        write_table(sink, ImagePair, copies_among(pairs, image_ids))
    test = {case.image_id for case in moved if case.split == "test"}
    training = {case.image_id for case in used if splits[case.id] == "train"}
    folder.write_json(COPIED, copied_in_training(pairs, test, training) if findings else None)
