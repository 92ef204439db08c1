"""Which hospital holds which images: every image, with all questions about it, goes to one hospital."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from tasks.errors import StudyError
from tasks.records import Case

OTHER = "other"
MOST_LABELS = 12
"""Answers beyond the most frequent ones share a label, or most labels would hold one image."""


class Partitioner(Protocol):
    """What the partitioners of `flwr_datasets` have in common."""

    dataset: object

    def load_partition(self, partition_id: int) -> Mapping[str, Sequence[str]]:
        """The rows of one partition."""


def deal(
    cases: Sequence[Case], hospitals: int, scheme: str, alpha: float, label: str, seed: int
) -> tuple[dict[str, str], str]:
    """The hospital of each image, and the scheme that was used.

    Args:
        cases: of all splits.
        hospitals: how many there are, named `hospital-1` and so on.
        scheme: `auto`, `site`, `dirichlet`, `iid`, `modality` or `organ`; see PartitionSettings.
        alpha: Dirichlet concentration.
        label: what the Dirichlet scheme skews: `answer`, `modality` or `organ`.
        seed: of the random schemes.

    Raises StudyError where a hospital gets no training case, or the cases lack what the scheme needs.
    """
    first = {case.image_id: case for case in cases}
    images = sorted(first)
    names = [f"hospital-{number}" for number in range(1, hospitals + 1)]
    if scheme == "auto":
        scheme = "site" if all(first[image].site for image in images) else "dirichlet"
    if scheme in ("site", "modality", "organ"):
        values = {image: getattr(first[image], scheme) for image in images}
        owner = _by_value(images, values, names, scheme)
    else:
        labels = _labels(cases, images, label) if scheme == "dirichlet" else dict.fromkeys(images, OTHER)
        owner = _by_partitioner(images, labels, names, scheme, alpha, seed)
    _refuse_idle(cases, owner, names, scheme)
    return owner, scheme


def _by_value(
    images: Sequence[str], values: Mapping[str, str | None], names: Sequence[str], scheme: str
) -> dict[str, str]:
    """Whole values to hospitals, largest first, always to the hospital with the fewest images."""
    counts = Counter(value for value in values.values() if value is not None)
    absent = next((image for image in images if values[image] is None), None)
    if absent is not None:
        raise StudyError(
            f"Expected every image to have a {scheme} for partition.scheme={scheme}, found none for {absent}: "
            "set partition.scheme to dirichlet or iid."
        )
    if len(counts) < len(names):
        raise StudyError(
            f"Expected at least {len(names)} values of {scheme} for {len(names)} hospitals, found {len(counts)}: "
            f"set partition.hospitals to {len(counts)} or fewer, or partition.scheme to dirichlet or iid."
        )
    held = dict.fromkeys(names, 0)
    hospital_of: dict[str, str] = {}
    # Ties go by name, so that site-1 lies at hospital-1.
    for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        hospital_of[value] = min(names, key=lambda name: held[name])
        held[hospital_of[value]] += count
    return {image: hospital_of[str(values[image])] for image in images}


def _labels(cases: Sequence[Case], images: Sequence[str], label: str) -> dict[str, str]:
    """One label for each image; for `answer`, the most frequent one to its open questions."""
    if label != "answer":
        known = {case.image_id: getattr(case, label) for case in cases}
        return {image: known[image] or OTHER for image in images}
    everywhere = Counter(case.answer.lower() for case in cases if case.kind == "open")
    frequent = {answer for answer, _ in sorted(everywhere.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]}
    best: dict[str, tuple[int, str]] = {}
    for case in cases:
        answer = case.answer.lower()
        if case.kind == "open" and answer in frequent:
            # The rarest of an image's frequent answers tells it best from others.
            best[case.image_id] = min(best.get(case.image_id, (len(cases), "")), (everywhere[answer], answer))
    return dict.fromkeys(images, OTHER) | {image: answer for image, (_, answer) in best.items()}


def _by_partitioner(
    images: Sequence[str], labels: Mapping[str, str], names: Sequence[str], scheme: str, alpha: float, seed: int
) -> dict[str, str]:
    """Deal images with Flower's partitioners; they want a `datasets` table."""
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    table = Dataset.from_dict({"image": list(images), "label": [labels[image] for image in images]})
    partitioner: Partitioner
    if scheme == "iid":
        table = table.shuffle(seed=seed)
        partitioner = IidPartitioner(num_partitions=len(names))
    else:
        partitioner = DirichletPartitioner(
            num_partitions=len(names),
            partition_by="label",
            alpha=alpha,
            min_partition_size=0,
            self_balancing=False,
            seed=seed,
        )
    if len(images) < len(names):
        raise StudyError(
            f"Expected at least one image for each of {len(names)} hospitals, found {len(images)} images: "
            "lower partition.hospitals."
        )
    partitioner.dataset = table
    return {image: name for number, name in enumerate(names) for image in partitioner.load_partition(number)["image"]}


def _refuse_idle(cases: Sequence[Case], owner: Mapping[str, str], names: Sequence[str], scheme: str) -> None:
    training = Counter(owner[case.image_id] for case in cases if case.split == "train")
    idle = [name for name in names if not training[name]]
    if idle:
        remedy = "raise partition.alpha, change seed, " if scheme == "dirichlet" else "change partition.scheme "
        raise StudyError(
            f"Expected every hospital to hold training cases, found none at {idle[0]} "
            f"({len(idle)} of {len(names)} hospitals): {remedy}or lower partition.hospitals."
        )
