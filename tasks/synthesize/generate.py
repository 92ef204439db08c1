"""Makes question-answer pairs from captions, by rules or by a language model, with a report on their faults."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from tasks.errors import StudyError
from tasks.records import Caption, Case, Synthetic
from tasks.synthesize.drafts import Draft
from tasks.synthesize.quality import key, measure, mend
from tasks.synthesize.reply import parse_reply
from tasks.synthesize.rules import write_pairs

Generator = Literal["rules", "model"]
Writer = Callable[[Sequence[Caption]], Iterable[str]]
"""A language model: returns its reply to each caption, in order."""
QUOTED_REFUSALS = 20
"""Number of refusals that the report quotes; all are counted."""


def synthesize(
    captions: Sequence[Caption],
    generator: Generator,
    *,
    seed: int,
    ask_sex_and_age: bool = False,
    model: str | None = None,
    writer: Writer | None = None,
    published: Sequence[Case] = (),
) -> tuple[list[Case], list[Synthetic], dict[str, Any]]:
    """Make question-answer pairs about captioned images.

    Args:
        captions: of the images, with metadata.
        generator: `rules`, which need no model, or `model`.
        seed: of the choice of wordings and of negatives.
        ask_sex_and_age: whether rules ask for the patient's sex and age.
        model: folder or hub id of an instruct model, as the records name it, for the generator `model`.
        writer: that model, loaded (`load_writer`).
        published: existing cases; their questions are not repeated for the same image.

    Returns the cases, the origin of each, and the quality report. Raises StudyError where the model is missing, or
    there is nothing to ask.
    """
    drafts, refused = _drafts(captions, generator, seed, ask_sex_and_age, writer)
    known = {key(case.image_id, case.question) for case in published}
    kept, done = mend(drafts, seed, known)
    report = {
        "generator": generator,
        "captions": len(captions),
        "captions_asked_about": len({draft.caption.image_id for draft in kept}),
        "before": measure(drafts, known),
        "after": measure(kept, known),
        "done": done,
        "refused": dict(sorted(Counter(reason.split(": ")[0] for reason in refused).items())),
        "refusals": refused[:QUOTED_REFUSALS],
    }
    if not kept and not published:
        raise StudyError(
            f"Expected captions that state something to ask about, found none among {len(captions)}"
            + (f" ({refused[0]})" if refused else "")
            + ": set synthesis.generator to the other of rules and model, or check the captions."
        )
    name = "rules" if generator == "rules" else f"model {model or 'given'}"
    return *_records(kept, name), report


def askable(captions: Sequence[Caption], published: Sequence[Case]) -> list[Caption]:
    """The captions that questions may be made from, each in the split of its image in the published cases.

    A published test split is scored as published, so no questions are made from captions of the test split.
    """
    splits = {case.image_id: case.split for case in published}
    assigned = [replace(caption, split=splits.get(caption.image_id, caption.split)) for caption in captions]
    tested = any(case.split == "test" for case in published)
    return [caption for caption in assigned if not (tested and caption.split == "test")]


def _drafts(
    captions: Sequence[Caption],
    generator: Generator,
    seed: int,
    ask_sex_and_age: bool,
    writer: Writer | None,
) -> tuple[list[Draft], list[str]]:
    if generator == "rules":
        return [draft for caption in captions for draft in write_pairs(caption, seed, ask_sex_and_age)], []
    if writer is None:
        raise StudyError(
            "Expected synthesis.model to be the folder or hub id of an instruct model for "
            "synthesis.generator=model, found none: set it, or set synthesis.generator=rules."
        )
    drafts: list[Draft] = []
    refused: list[str] = []
    for caption, reply in zip(captions, writer(captions), strict=True):
        found, reasons = parse_reply(reply, caption)
        drafts += found
        refused += reasons
    return drafts, refused


def _records(drafts: Sequence[Draft], generator: str) -> tuple[list[Case], list[Synthetic]]:
    cases: list[Case] = []
    origins: list[Synthetic] = []
    numbers: Counter[str] = Counter()
    for draft in drafts:
        caption = draft.caption
        case = Case(
            id=f"{caption.dataset}:synthetic:{caption.image_id}:{numbers[caption.image_id]}",
            image_id=caption.image_id,
            question=draft.question,
            answer=draft.answer,
            kind="closed" if draft.closed else "open",
            split=caption.split,
            dataset=caption.dataset,
            language=caption.language,
            modality=caption.modality,
            organ=caption.organ,
            topic=draft.topic,
            group=caption.group,
            site=caption.site,
        )
        numbers[caption.image_id] += 1
        cases.append(case)
        origins.append(Synthetic(case.id, draft.source, draft.start, draft.end, draft.span, generator))
    return cases, origins
