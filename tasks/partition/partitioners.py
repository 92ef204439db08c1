"""Partitioners: which hospital holds which images.

Every image goes to one hospital with all questions about it. Images of one patient go to the same hospital.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.records import Case
from tasks.store import derived_seed

OTHER = "other"
MOST_LABELS = 12
"""Only the most frequent answers get a label each; otherwise most labels would have a single image."""


class Partitioner(Protocol):
    """The common interface of the partitioners in `flwr_datasets`."""

    dataset: object

    def load_partition(self, partition_id: int) -> Mapping[str, Sequence[str]]:
        """The rows of one partition."""


def assign_images(
    cases: Sequence[Case], hospitals: int, scheme: str, alpha: float, label: str, seed: int
) -> tuple[dict[str, str], str]:
    """The hospital of each image, and the scheme that was used.

    Groups are assigned as a whole: the images of one patient or published case if the cases state it, else single
    images. The order of the cases does not matter.

    Args:
        cases: the cases of all splits.
        hospitals: number of hospitals; they are named `hospital-1` and so on.
        scheme: `auto`, `site`, `dirichlet`, `iid`, `modality` or `organ`; see PartitionSettings.
        alpha: concentration of the Dirichlet distribution.
        label: the label that the Dirichlet scheme skews: `answer`, `modality` or `organ`.
        seed: seed of the random schemes.

    Raises StudyError if a hospital gets no training case, or if the cases lack what the scheme needs.
    """
    groups = image_groups(cases)
    names = hospital_names(hospitals)
    if scheme == "auto":
        scheme = "site" if all(_values(cases, groups, "site").values()) else "dirichlet"
    if scheme in ("site", "modality", "organ"):
        owner = _by_value(groups, _values(cases, groups, scheme), names, scheme)
    else:
        labels = _labels(cases, groups, label) if scheme == "dirichlet" else dict.fromkeys(groups.values(), OTHER)
        owner = _by_partitioner(labels, names, scheme, alpha, seed)
    assigned = {image: owner[groups[image]] for image in sorted(groups)}
    refuse_idle(cases, assigned, hospitals, scheme)
    return assigned, scheme


def hospital_names(hospitals: int) -> list[str]:
    """The names of `hospitals` hospitals."""
    return [f"hospital-{number}" for number in range(1, hospitals + 1)]


def _values(cases: Sequence[Case], groups: Mapping[str, str], name: str) -> dict[str, str | None]:
    """The most frequent value of the field `name` in each group's cases; None if no case states it."""
    counts: dict[str, Counter[str]] = {group: Counter() for group in groups.values()}
    for case in cases:
        if value := getattr(case, name):
            counts[groups[case.image_id]][value] += 1
    return {group: min(each, key=lambda value: (-each[value], value), default=None) for group, each in counts.items()}


def _by_value(
    groups: Mapping[str, str], values: Mapping[str, str | None], names: Sequence[str], scheme: str
) -> dict[str, str]:
    """Assign each value as a whole, largest first, to the hospital that has the fewest images so far."""
    absent = sum(values[group] is None for group in groups.values())
    if absent:
        raise StudyError(
            f"Expected every image to have a {scheme} for partition.scheme={scheme}, found {absent} of {len(groups)} "
            "images without: set partition.scheme to dirichlet or iid."
        )
    counts = Counter(str(values[group]) for group in groups.values())
    if len(counts) < len(names):
        raise StudyError(
            f"Expected at least {len(names)} values of {scheme} for {len(names)} hospitals, found {len(counts)}: "
            f"set partition.hospitals to {len(counts)} or fewer, or partition.scheme to dirichlet or iid."
        )
    held = dict.fromkeys(names, 0)
    hospital_of: dict[str, str] = {}
    # Ties are broken by name, so that site-1 goes to hospital-1.
    for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        hospital_of[value] = min(names, key=lambda name: held[name])
        held[hospital_of[value]] += count
    return {group: hospital_of[str(value)] for group, value in values.items()}


def _labels(cases: Sequence[Case], groups: Mapping[str, str], label: str) -> dict[str, str]:
    """The label of each group; for `answer`, the rarest of the frequent answers to its open questions."""
    if label != "answer":
        return {group: value or OTHER for group, value in _values(cases, groups, label).items()}
    everywhere = Counter(case.answer.lower() for case in cases if case.kind == "open")
    frequent = {answer for answer, _ in sorted(everywhere.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]}
    best: dict[str, tuple[int, str]] = {}
    for case in cases:
        answer, group = case.answer.lower(), groups[case.image_id]
        if case.kind == "open" and answer in frequent:
            # The rarest of its frequent answers distinguishes a group best.
            best[group] = min(best.get(group, (len(cases), "")), (everywhere[answer], answer))
    return dict.fromkeys(groups.values(), OTHER) | {group: answer for group, (_, answer) in best.items()}


def _by_partitioner(
    labels: Mapping[str, str], names: Sequence[str], scheme: str, alpha: float, seed: int
) -> dict[str, str]:
    """Assign groups with Flower's partitioners, which need a `datasets` table."""
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    if len(labels) < len(names):
        raise StudyError(
            f"Expected at least one image (or group of them) for each of {len(names)} hospitals, found {len(labels)}: "
            "lower partition.hospitals."
        )
    # Both cut the table in its order, and neighbouring ids are similar (one site, or all test), so it is shuffled.
    order = sorted(labels, key=lambda group: (derived_seed("deal", seed, group), group))
    partitioner: Partitioner
    if scheme == "iid":
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
    partitioner.dataset = Dataset.from_dict({"group": order, "label": [labels[group] for group in order]})
    return {group: name for number, name in enumerate(names) for group in partitioner.load_partition(number)["group"]}


def refuse_idle(cases: Sequence[Case], owner: Mapping[str, str], hospitals: int, scheme: str) -> None:
    """Raise StudyError if one of the hospitals holds no training case; `owner` is the hospital of each image."""
    training = Counter(owner[case.image_id] for case in cases if case.split == "train")
    names = hospital_names(hospitals)
    idle = [name for name in names if not training[name]]
    if idle:
        remedy = "raise partition.alpha, change seed, " if scheme == "dirichlet" else "change partition.scheme "
        raise StudyError(
            f"Expected every hospital to hold training cases, found none at {idle[0]} "
            f"({len(idle)} of {len(names)} hospital{'s' if len(names) > 1 else ''}): "
            f"{remedy}or lower partition.hospitals."
        )
