"""The audit of one dataset: counts of what its images, cases and questions share."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from tasks.audit.folder import PREFIX
from tasks.audit.pairs import COPY
from tasks.audit.questions import RESTATED, questions_seen
from tasks.cases.groups import image_groups
from tasks.cases.small_groups import WITHHELD, is_small, withhold_small
from tasks.records import Caption, Case, ImagePair

SCHEMA_VERSION = 2
EXAMPLES = 10
ALL_PAIRS = 64
"""Most hospitals of which every pair is listed; of more, only pairs that share something (1,000 have 499,500)."""
NOT_STATED = "not stated"
EXAMPLED = "examples"
"""The field with example ids in a row about a pair of hospitals or datasets."""
IDENTICAL = ("identical_bytes", "identical_pixels")
DEFINITIONS = {
    "rate": "n as a share of the test cases",
    "same_image": "a training case has the same image: by id, by the file's bytes, or by its pixels",
    "near_duplicate_image": f"a training image is a copy of it, not identical: detail correlates {COPY} or more once "
    "resized, freed of frames, laid over and given the same contrast",
    "flipped_image": "as near_duplicate_image, once mirrored or turned upside down",
    "same_patient": "a training case is of the same patient or published case, of the test cases that state theirs "
    "(`stated` counts them); n is null where no test case, or no training case, states one",
    "same_question": "same question and answer, normalised, on the same image or a copy of it",
    "restated_question": "another wording, same answer, on the same image or a copy of it: cosine of character n-grams "
    f"at least {RESTATED['closed']} (closed) or {RESTATED['open']} (open)",
    "repeated_question": "same question, normalised, on any training image, whatever its answer",
}


class Likeness:
    """Groups of images that show the same picture, built from the pairs that were found."""

    def __init__(self, records: Sequence[Case | Caption], pairs: Sequence[ImagePair]) -> None:
        bare = [Caption(record.image_id, "", record.split, "", "") for record in records]  # without their patients
        joined = [(pair.image_a, pair.image_b) for pair in pairs if pair.relation in IDENTICAL]
        self.same = image_groups(bare, joined)
        """The class of each image id; identical images share a class."""
        self.copy_class = image_groups(bare, [(pair.image_a, pair.image_b) for pair in pairs])
        """The class of each image id where copies of any kind share a class, through any chain of copies."""
        self.copies: dict[str, dict[str, set[str]]] = {"near_duplicate": defaultdict(set), "flipped": defaultdict(set)}
        for pair in pairs:
            if pair.relation in self.copies and pair.image_a in self.same and pair.image_b in self.same:
                one, other = self.same[pair.image_a], self.same[pair.image_b]
                self.copies[pair.relation][one].add(other)
                self.copies[pair.relation][other].add(one)

    def touching(self, images: Iterable[str], others: Iterable[str]) -> dict[str, set[str]]:
        """The images that each relation links to one of the others, by relation."""
        classes = {self.same[image] for image in others}
        found = {"same_image": {image for image in images if self.same[image] in classes}}
        for relation, copies in self.copies.items():
            found[f"{relation}_image"] = {image for image in images if copies[self.same[image]] & classes}
        return found


def audit(cases: Sequence[Case], captions: Sequence[Caption], pairs: Sequence[ImagePair]) -> dict[str, Any]:
    """The document `audit.json` without the scores; its layout is in docs/audit.md."""
    records: list[Case | Caption] = [*cases, *captions]
    likeness = Likeness(records, pairs)
    images = {record.image_id for record in records}
    return {
        "schema_version": SCHEMA_VERSION,
        "cases": dict(sorted(Counter(case.split for case in cases).items())),
        "images": {"n": len(images), **_pair_counts([p for p in pairs if {p.image_a, p.image_b} <= images])},
        "train_test": train_test(cases or captions, likeness),
        "between_datasets": between(records, likeness, {record.image_id: record.dataset for record in records}),
        "definitions": DEFINITIONS,
    }


def train_test(records: Sequence[Case | Caption], likeness: Likeness) -> dict[str, Any]:
    """What the test cases share with the training cases. Captions count by image id and have no questions."""
    train = [record for record in records if record.split == "train"]
    test = [record for record in records if record.split == "test"]
    images = likeness.touching({record.image_id for record in test}, {record.image_id for record in train})
    found: dict[str, list[str]] = {
        name: [_id(record) for record in test if record.image_id in touched] for name, touched in images.items()
    }
    patients = {record.group for record in train if record.group is not None}
    found["same_patient"] = [_id(record) for record in test if record.group in patients]
    questions = [record for record in test if isinstance(record, Case)]
    seen = questions_seen([record for record in train if isinstance(record, Case)], questions, likeness.copy_class)
    matches = {
        "same_question": seen.same,
        "restated_question": seen.restated,
        "repeated_question": seen.repeated,
    }
    found |= {name: list(each) for name, each in matches.items()}
    document: dict[str, Any] = {"test_cases": len(test), "train_cases": len(train)}
    for name, ids in found.items():
        among = questions if name in matches else test
        rate = round(len(ids) / len(among), 4) if among else None
        document[name] = {"n": len(ids), "rate": rate, "test_cases": ids}
        if name in matches:
            examples = list(matches[name].items())[:EXAMPLES]
            document[name]["examples"] = [{"test": one, "train": other} for one, other in examples]
    stated = sum(record.group is not None for record in test)
    document["same_patient"]["stated"] = stated
    if not stated or not patients:  # a count of 0 would claim that no patient is shared
        document["same_patient"] |= {"n": None, "rate": None}
    return document


def _id(record: Case | Caption) -> str:
    return record.id if isinstance(record, Case) else record.image_id


def between(records: Sequence[Case | Caption], likeness: Likeness, side: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each pair of sides (hospitals or datasets) shares: images of `a` linked to one of `b`, and patients.

    `same_patient` is None where one of the two states no patient. Of many sides, pairs that share nothing are left out.

    Args:
        records: cases, or captions, of all sides.
        likeness: of their images.
        side: of each image id.
    """
    held: dict[str, set[str]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    for record in records:
        held[side[record.image_id]].add(record.image_id)
        if record.group is not None:
            patients[side[record.image_id]].add(record.group)
    every = combinations(sorted(held), 2)
    rows = []
    for a, b in every if len(held) <= ALL_PAIRS else sorted(_sharing(held, patients, likeness)):
        touched = likeness.touching(held[a], held[b])
        row: dict[str, Any] = {"a": a, "b": b, **{name: len(images) for name, images in touched.items()}}
        row["same_patient"] = len(patients[a] & patients[b]) if patients[a] and patients[b] else None
        row[EXAMPLED] = sorted(set().union(*touched.values()))[:EXAMPLES]
        rows.append(row)
    return rows


def _sharing(
    held: Mapping[str, set[str]], patients: Mapping[str, set[str]], likeness: Likeness
) -> set[tuple[str, str]]:
    """The pairs of sides that share an image, a copy of one, or a patient, each pair sorted."""
    holders: dict[str, set[str]] = defaultdict(set)
    of_patient: dict[str, set[str]] = defaultdict(set)
    for side, images in held.items():
        for image in images:
            holders[likeness.same[image]].add(side)
        for patient in patients[side]:
            of_patient[patient].add(side)
    alike = [(sides, sides) for sides in (*holders.values(), *of_patient.values())]
    for copies in likeness.copies.values():
        alike += [(holders[one], holders[other]) for one, others in copies.items() for other in others]
    return {(a, b) for some, others in alike for a in some for b in others if a < b}


def inside(pairs: Sequence[ImagePair]) -> dict[str, Any]:
    """Copies of the dataset's images in the folder that it was compared with: counts, and each pair."""
    across = [pair for pair in pairs if pair.image_a.startswith(PREFIX) != pair.image_b.startswith(PREFIX)]
    counts = Counter(pair.relation for pair in across)
    rows = [[*sorted((p.image_a, p.image_b), key=lambda name: name.startswith(PREFIX))] for p in across]
    found = [
        {"image": row[0], "in_folder": row[1], "relation": p.relation} for row, p in zip(rows, across, strict=True)
    ]
    return {"n": len({row[0] for row in rows}), "pairs": dict(sorted(counts.items())), "found": found}


def _pair_counts(pairs: Sequence[ImagePair]) -> dict[str, Any]:
    counts = Counter(str(pair.relation) for pair in pairs)
    names = (*IDENTICAL, "near_duplicate", "flipped")
    examples = {
        name: [[p.image_a, p.image_b, p.correlation] for p in pairs if p.relation == name][:EXAMPLES] for name in names
    }
    return {"pairs": {name: counts[name] for name in names}, "examples": examples}


def table(document: Mapping[str, Any], least: int = 1) -> list[dict[str, Any]]:
    """The audit as rows: how many test cases share what with training; counts below `least` are withheld."""
    found = document["train_test"]
    rows = []
    for name, row in found.items():
        if not isinstance(row, Mapping):
            continue
        label = name.replace("_", " ")
        if 0 < row.get("stated", 0) < found["test_cases"]:
            label += f" (stated for {withhold_small(row['stated'], least)} of {found['test_cases']})"
        count = NOT_STATED if row["n"] is None else withhold_small(row["n"], least)
        rate = "-" if row["rate"] is None or count == WITHHELD else f"{row['rate']:.3f}"
        rows.append({"leak": label, "test cases": count, "rate": rate})
    return rows


def shared_table(rows: Sequence[Mapping[str, Any]], least: int = 1) -> list[dict[str, Any]]:
    """What pairs of hospitals or datasets share, as rows of counts without example ids; counts below `least` are
    withheld."""
    return [
        {
            name: NOT_STATED if value is None else withhold_small(value, least) if isinstance(value, int) else value
            for name, value in row.items()
            if name != EXAMPLED
        }
        for row in rows
    ]


def score_table(document: Mapping[str, Any], least: int = 1) -> list[dict[str, Any]]:
    """The scores without a model as rows: share of right answers, by kind; withheld of fewer than `least` cases."""
    scores = document.get("scores") or {}
    if not scores:
        return []
    named = {
        "nearest answer copied": scores["copy_nearest"]["with_same_image"],
        "the same, of another image": scores["copy_nearest"]["without_same_image"],
        "question only": scores["question_only"],
    }
    rows = []
    for name, parts in named.items():
        cells = {
            kind: WITHHELD if is_small(part["n"], least) else "-" if not part["n"] else f"{part['correct']:.3f}"
            for kind, part in parts.items()
        }
        rows.append({"score": name, **cells})
    return rows
