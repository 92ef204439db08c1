"""What a hospital on a machine of its own would send, in plain words, before anything is sent."""

from dataclasses import dataclass, fields

from tasks.records import UpdateCounts
from tasks.records.federation import ADAPTER_FILE, CONFIG_FILE, CONTROL_FILE
from tasks.settings.hospital import AgreementSettings

MEANINGS = {
    "hospital": "the hospital's name",
    "round": "the number of the round",
    "samples": "number of training cases",
    "loss": "mean loss of its training answers",
    "steps": "number of optimiser steps",
    "base": "digest of the base, the same at all hospitals",
}
"""The fields of `update.json`."""


@dataclass(frozen=True)
class Told:
    """One thing that leaves a hospital."""

    when: str
    file: str
    field: str
    meaning: str


SCORED = {
    "hospital": "the hospital's name",
    "tallies": "of each kind of question, how many were asked and answered rightly, by the model and without one",
    "withheld": "kinds of question that are withheld, being few",
    "calibration": "answers by ten steps of confidence: how many, and how many are right",
}
"""The fields of `scores.json`."""
GROUPED = {
    "sums.parquet": "scores by modality, organ and topic, and sums of each image, without any name of one",
    "reliance/scores.json": "tallies with altered prompts",
    "failures.json": "how many answers fail in which way",
    "shares.json": "mean shares of the prompt's parts in explained answers",
    "abstention.json": "sums of each image of answers that would be withheld",
    "gain/gain.json": "sums of each image of what a personal adapter changes",
    "seen.json": "how many test images the base was trained on",
}
"""Files that leave where scores by group may, as far as the study makes them."""


def told_by(agreement: AgreementSettings, samples: int, held_out: int, numbers: int, min_cell: int) -> list[Told]:
    """Everything that leaves a hospital in a federation, field by field.

    Args:
        agreement: the hospital's.
        samples: its training cases.
        held_out: its held-out cases.
        numbers: how many numbers an adapter has.
        min_cell: fewest held-out cases of which a loss is told.
    """
    joining, training, validating = "on joining", "each round, after training", "each round, after the mean"
    ending = "after the last round"
    scored = SCORED if agreement.scores else {}
    grouped = GROUPED if agreement.scores and agreement.group_scores else {}
    values = {"samples": f": {samples:,}"}
    loss, tokens = f"mean loss of its {held_out} held-out cases", "number of tokens of their answers"
    if held_out < min_cell:
        loss, tokens = "0: its held-out cases are few, and their loss is withheld", "0: withheld with the loss"
    update = [
        Told(training, ADAPTER_FILE, "tensors", f"{numbers:,} numbers learned from its training cases"),
        Told(training, CONFIG_FILE, "all", "rank, scaling and layers of the adapter, the same at all hospitals"),
        *(
            Told(training, "update.json", each.name, MEANINGS[each.name] + values.get(each.name, ""))
            for each in fields(UpdateCounts)
        ),
    ]
    if "scaffold" in agreement.strategies:
        change = "how its mean gradient changed, as many numbers, with scaffold"
        update.append(Told(training, CONTROL_FILE, "tensors", change))
    return [
        Told(joining, "message", "name", MEANINGS["hospital"]),
        Told(joining, "message", "data", "digest of its cases, made with a key that stays here: nobody can compare it"),
        *(_of_images(joining) if agreement.shared_images else ()),
        *(_in_secret(training, numbers) if agreement.secure_aggregation else update),
        Told(validating, "validation.json", "hospital", MEANINGS["hospital"]),
        Told(validating, "validation.json", "round", MEANINGS["round"]),
        Told(validating, "validation.json", "loss", loss),
        Told(validating, "validation.json", "tokens", tokens),
        *(Told(ending, "scores.json", name, text) for name, text in scored.items()),
        *(Told(ending, file, "all", text) for file, text in grouped.items()),
    ]


def _of_images(when: str) -> list[Told]:
    """What leaves where images may be compared."""
    keyed = "digests of its training images, made with a key that only this hospital and the one that gets them have"
    return [
        Told(when, "message", "public, signature", "public key for one comparison of images, at random"),
        Told(when, "message", "digests", keyed),
        Told(
            when, "message", "images", "how many of its test images others train on, unless these or the others are few"
        ),
    ]


def _in_secret(when: str, numbers: int) -> list[Told]:
    """What leaves of an update that only a secure sum may have."""
    masked = "learned from its training cases, with their count, loss and steps, under masks: only a sum shows"
    return [
        Told(when, "trained.json", "update", "digest of the update, made with a key that stays here"),
        Told(when, "trained.json", "key", "public key by which it signs in secure sums"),
        Told(when, "message", "keys, shares, signatures", "what masks are made of and taken away with, at random"),
        Told(when, "message", "words", f"{numbers:,} numbers {masked}"),
    ]
