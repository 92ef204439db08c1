"""The negative control of the near-duplicates: how many images of an unrelated dataset lie as near to training images.

Images of an unrelated dataset cannot be copies. How many of them pass as copies is what likeness alone gives.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks.audit.document import EXAMPLES, Likeness
from tasks.cases.small_groups import WITHHELD, is_small
from tasks.records import Caption, Case, ImagePair
from tasks.score.statistics import proportion

PREFIX = "control:"
"""Before the ids of the control's images."""
NO_CONTROL = (
    "No negative control: name an unrelated dataset of similar images in audit.control and audit.control_root, to see "
    "how many near-duplicates likeness alone gives."
)
SIDES = {"test_images": "test images", "control_images": "control images"}


def split_images(records: Sequence[Case | Caption]) -> tuple[set[str], set[str], set[str]]:
    """The ids of training images, of test images, and of those that are test images alone."""
    train = {record.image_id for record in records if record.split == "train"}
    test = {record.image_id for record in records if record.split == "test"}
    return train, test, test - {record.image_id for record in records if record.split != "test"}


def beside_control(
    records: Sequence[Case | Caption],
    pairs: Sequence[ImagePair],
    control: Collection[str],
    control_pairs: Sequence[ImagePair],
    name: str,
) -> dict[str, Any]:
    """The document `control.json`: test images and control images that lie near a training image.

    Args:
        records: the dataset's cases, or captions if it has none.
        pairs: copies among the dataset's images.
        control: ids of the control's images.
        control_pairs: pairs with a control image, found as `pairs` are, among the control's and all but test images.
        name: what the control is called.
    """
    train, test, _ = split_images(records)
    added = [Caption(image, "", "test", "", "") for image in control]
    near = Likeness(records, pairs).touching(test, train)
    near_control = Likeness([*records, *added], control_pairs).touching(control, train)
    across = [pair for pair in control_pairs if {pair.image_a, pair.image_b} & train]
    return {
        "dataset": name,
        "test_images": _counts(near, len(test)),
        "control_images": _counts(near_control, len(control)),
        "examples": [[pair.image_a, pair.image_b, pair.relation, pair.correlation] for pair in across[:EXAMPLES]],
    }


def _counts(found: Mapping[str, Collection[str]], of: int) -> dict[str, Any]:
    """Of each relation: the number of images, and its share with an interval; None where there is no image."""
    counts: dict[str, Any] = {"n": of}
    for relation, images in found.items():
        counts[relation] = {"n": len(images), "rate": None, "interval": None}
        if of:
            share = proportion(len(images), of)
            ends = [round(end, 4) for end in share.interval or ()]
            counts[relation] |= {"rate": round(share.value, 4), "interval": ends}
    return counts


def withhold(document: Mapping[str, Any], least: int) -> dict[str, Any]:
    """The document with WITHHELD in place of counts below `least`, and then without their shares."""
    return {"dataset": document["dataset"]} | {side: _withheld(document[side], least) for side in SIDES}


def _withheld(counts: Mapping[str, Any], least: int) -> dict[str, Any]:
    every = is_small(counts["n"], least)
    none = {"n": WITHHELD, "rate": None, "interval": None}
    relations = {
        name: none if every or is_small(count["n"], least) else count for name, count in counts.items() if name != "n"
    }
    return {"n": WITHHELD if every else counts["n"], **relations}


def control_table(document: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Test images beside control images as rows, one for each relation to a training image."""
    if not document:
        return []
    relations = [name for name in document["test_images"] if name != "n"]
    return [
        {"relation": name.replace("_", " ")} | {title: _cell(document[side], name) for side, title in SIDES.items()}
        for name in relations
    ]


def control_sentence(document: Mapping[str, Any] | None) -> str:
    """What the control says of the near-duplicates; NO_CONTROL if there is none."""
    if not document:
        return NO_CONTROL
    test, control = (_cell(document[side], "near_duplicate_image") for side in SIDES)
    name = document["dataset"]
    return (
        f"Negative control: {test} test images are near-duplicates of a training image; {control} images of {name}, "
        "which is taken to be unrelated, pass for one too, by likeness alone. "
        f"If {name} looks unlike the dataset, this says little."
    )


def _cell(counts: Mapping[str, Any], relation: str) -> str:
    """`40 of 96 (0.417 [0.317, 0.522])`."""
    count = counts[relation]
    share = "" if count["rate"] is None else f" ({count['rate']:.3f} [{{:.3f}}, {{:.3f}}])".format(*count["interval"])
    return f"{count['n']} of {counts['n']}{share}"
