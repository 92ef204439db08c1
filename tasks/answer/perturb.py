"""Perturbs prompts: each question again, with one part changed that a correct answer should depend on."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import PIL.Image

from tasks.engine.prompt import Query
from tasks.records import Case, Image
from tasks.records.perturbations import AS_IS, BLANK, FLIPPED, NOISE, OTHERS, REMOVED, SWAPPED, WORDS
from tasks.store import derived_seed
from tasks.text.meaning import meaning
from tasks.text.normalise import HAN


def perturb(queries: Sequence[Query], cases: Sequence[Case], seed: int) -> dict[str, list[Query]]:
    """Apply every perturbation to some questions; returns the changed questions, in order, by perturbation.

    `blank_id` and `noise_id` name the blank and noise images. Perturbations of the retrieved cases are left out if no
    question has any.

    Args:
        queries: the unchanged questions.
        cases: all cases of the hospital, the source of other images and wrong answers.
        seed: determines every random choice.
    """
    swaps = _swaps([each.case for each in queries], cases, seed)
    answers = _Answers(cases)
    rng = np.random.default_rng(derived_seed(seed, "reliance"))
    found = {
        AS_IS: list(queries),
        BLANK: [_with_image(each, blank_id(each.case.image_id)) for each in queries],
        NOISE: [_with_image(each, noise_id(each.case.image_id)) for each in queries],
        SWAPPED: [_with_image(each, swaps[each.case.image_id]) for each in queries],
    }
    if any(each.retrieved for each in queries):
        found[REMOVED] = [replace(each, retrieved=(), similarities=()) for each in queries]
        found[OTHERS] = _others(queries, rng)
        found[FLIPPED] = [
            replace(each, retrieved=tuple(replace(case, answer=answers.wrong(case, rng)) for case in each.retrieved))
            for each in queries
        ]
    found[WORDS] = [replace(each, case=replace(each.case, question=mix(each.case.question, rng))) for each in queries]
    return found


def _with_image(query: Query, image_id: str) -> Query:
    return replace(query, case=replace(query.case, image_id=image_id))


def blank_id(image_id: str) -> str:
    """Id of the blank version of an image."""
    return f"{image_id} blank"


def noise_id(image_id: str) -> str:
    """Id of the noise that replaces an image."""
    return f"{image_id} noise"


def stand_ins(images: Iterable[Image], seed: int) -> list[Image]:
    """For each image, two of the same size: one in its mean colour, one of uniform noise derived from the seed."""
    from tasks.engine.attribution.occlusion import cover  # imported late because it imports torch

    made = []
    for image in images:
        made.append(cover(image, [(0, 0, image.width, image.height)], blank_id(image.id)))
        rng = np.random.default_rng(derived_seed(seed, "noise", image.id))
        sink = io.BytesIO()
        PIL.Image.fromarray(rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)).save(sink, "PNG")
        made.append(Image(noise_id(image.id), sink.getvalue(), image.width, image.height))
    return made


def _swaps(chosen: Sequence[Case], cases: Sequence[Case], seed: int) -> dict[str, str]:
    """Another image for each, if possible of the same modality and another group; itself if there is no other."""
    known = {case.image_id: case for case in cases}
    swaps = {}
    for image_id, case in {case.image_id: case for case in chosen}.items():
        others = [other for other in known.values() if other.image_id != image_id]
        same = [other for other in others if other.modality == case.modality] or others
        apart = [other for other in same if other.group is None or other.group != case.group] or same
        rng = np.random.default_rng(derived_seed(seed, "swap", image_id))
        swaps[image_id] = apart[int(rng.integers(len(apart)))].image_id if apart else image_id
    return swaps


def _others(queries: Sequence[Query], rng: np.random.Generator) -> list[Query]:
    """Each question with another question's retrieved cases, without cases of its image."""
    order = rng.permutation(len(queries))
    turned = np.roll(order, 1)
    partner = dict(zip(order.tolist(), turned.tolist(), strict=True))
    return [_with_retrieved(each, queries[partner[place]]) for place, each in enumerate(queries)]


def _with_retrieved(query: Query, other: Query) -> Query:
    kept = [place for place, case in enumerate(other.retrieved) if case.image_id != query.case.image_id]
    near = tuple(other.similarities[place] for place in kept) if other.similarities else ()
    return replace(query, retrieved=tuple(other.retrieved[place] for place in kept), similarities=near)


class _Answers:
    """The answers of a hospital's training cases, the source of wrong answers."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._by_topic: dict[tuple[str, str | None], dict[str, None]] = {}
        for case in cases:
            if case.split == "train":
                for topic in (case.topic, None):
                    self._by_topic.setdefault((case.kind, topic), {})[case.answer] = None

    def wrong(self, case: Case, rng: np.random.Generator) -> str:
        """A wrong answer: yes and no swapped, or another option, or another answer of the topic, else of the kind."""
        right = meaning(case.answer)
        if right in ("yes", "no"):
            return "no" if right == "yes" else "yes"
        for known in (case.options, self._by_topic.get((case.kind, case.topic), ()), self._all(case)):
            others = [answer for answer in known if meaning(answer) != right]
            if others:
                return others[int(rng.integers(len(others)))]
        return "no"

    def _all(self, case: Case) -> Iterable[str]:
        return self._by_topic.get((case.kind, None), ())


def mix(question: str, rng: np.random.Generator) -> str:
    """Shuffle the question's words (characters if it is Chinese) into a different order, if there is one."""
    words, between = (list(question), "") if HAN.search(question) else (question.split(), " ")
    if len(set(words)) < 2:
        return question
    while (mixed := [words[place] for place in rng.permutation(len(words))]) == words:
        pass
    return between.join(mixed)
