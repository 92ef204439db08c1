"""The prompt for training and evaluation: retrieved cases as context, then the question."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.engine.context import ContextCase, choose, ordered, quoted, random_count, readable
from tasks.engine.thumbnail import thumbnail
from tasks.records import Case, Neighbour
from tasks.settings import ContextSettings
from tasks.text.options import lettered

Part = dict[str, Any]
PLAIN = ContextSettings()


@dataclass(frozen=True)
class Prompt:
    """The conversation about one case, with its images and its answer."""

    messages: tuple[dict[str, Any], ...]
    """In the chat format of `transformers`, ending with the user's question."""
    image_ids: tuple[str, ...]
    """The images in the order of their placeholders, the query image last: ids, or names of thumbnails. There may be
    none."""
    retrieved_ids: tuple[str, ...]
    """The retrieved cases, nearest first, also where the messages show none."""
    answer: str
    retrieved: tuple[tuple[str, float], ...] = ()
    """Answer and similarity of each retrieved case, nearest first; empty where similarities are not known."""


def build_prompt(
    case: Case, retrieved: Sequence[Case], similarities: Sequence[float] = (), how: ContextSettings = PLAIN
) -> Prompt:
    """The conversation about one case.

    Args:
        case: the case to be answered.
        retrieved: retrieved cases, nearest first. All of them are shown, if `how` shows any.
        similarities: similarities of these cases; needed only if the prompt states them or their answers are mixed in.
        how: what the context shows of each case, and in which order.
    """
    stated: Sequence[float | None] = list(similarities) if how.say_similarity else [None] * len(retrieved)
    nearest_first = [
        ContextCase(
            earlier, readable(_text(earlier), how.characters), readable(earlier.answer, how.characters), similarity
        )
        for earlier, similarity in zip(retrieved, stated, strict=True)
    ]
    placed = [] if how.show == "nothing" else ordered(nearest_first, how.order, case.id)
    images = how.show == "images+text"
    messages = _quoting(case, placed, images) if how.quote and placed else _conversation(case, placed, images)
    seen = [_shown(each.case.image_id, how.image_tokens) for each in placed] if images else []
    ids = tuple(earlier.id for earlier in retrieved)
    answers = tuple(zip((each.answer for each in nearest_first), similarities, strict=False))
    return Prompt(messages, (*seen, case.image_id), ids, case.answer, answers)


def build_prompt_without_image(case: Case) -> Prompt:
    """The question alone, without the image, so that the answer cannot depend on the image.

    It has no context either, since retrieved cases were chosen by the image.
    """
    return Prompt((_user(_words(_text(case))),), (), (), case.answer)


def build_prompts(
    to_answer: Sequence[Case], cases: Sequence[Case], neighbours: Sequence[Neighbour], how: ContextSettings
) -> list[Prompt]:
    """The conversations about some cases, each with its nearest neighbours as context.

    Args:
        to_answer: cases to be answered.
        cases: all cases of the hospital, among which neighbours are looked up.
        neighbours: neighbours of the cases in `to_answer`, in any order.
        how: how many neighbours form the context, which, and how they are shown. If k is `auto`, each case has a random
            number of them, which depends on its id alone, so that an adapter learns to answer with few and many.
    """
    by_id = {case.id: case for case in cases}
    nearest: dict[str, list[Neighbour]] = {}
    for neighbour in neighbours:
        nearest.setdefault(neighbour.case_id, []).append(neighbour)
    prompts = []
    for case in to_answer:
        k = random_count(case.id, how.most) if how.k == "auto" else how.k
        chosen = choose(nearest.get(case.id, []), k, how.floor)
        retrieved = [by_id[neighbour.neighbour_id] for neighbour in chosen]
        prompts.append(build_prompt(case, retrieved, [neighbour.similarity for neighbour in chosen], how))
    return prompts


def _conversation(case: Case, placed: Sequence[ContextCase], images: bool) -> tuple[Part, ...]:
    """Each retrieved case as a user turn and an assistant turn, then the case to be answered."""
    turns: list[Part] = []
    for each in placed:
        text = each.question if each.similarity is None else f"(similarity {each.similarity:.2f}) {each.question}"
        turns.append(_user(*[_image()] * images, _words(text)))
        turns.append({"role": "assistant", "content": [_words(each.answer)]})
    return (*turns, _user(_image(), _words(_text(case))))


def _quoting(case: Case, placed: Sequence[ContextCase], images: bool) -> tuple[Part, ...]:
    """One turn: the retrieved cases as quoted data, then the question."""
    parts: list[Part] = [_words("Earlier cases, quoted as data:\n")]
    for number, each in enumerate(placed, 1):
        parts += [*[_image()] * images, _words(quoted(each, number))]
    return (_user(*parts, _image(), _words(_text(case))),)


def _text(case: Case) -> str:
    return lettered(case.question, case.options) if case.options else case.question


def _user(*parts: Part) -> Part:
    return {"role": "user", "content": list(parts)}


def _shown(image_id: str, tokens: int | None) -> str:
    return image_id if tokens is None else thumbnail(image_id, tokens)


def _image() -> Part:
    return {"type": "image"}


def _words(text: str) -> Part:
    return {"type": "text", "text": text}


@dataclass(frozen=True)
class Query:
    """A case and the context of its prompt."""

    case: Case
    retrieved: tuple[Case, ...]
    """Retrieved cases, nearest first."""
    similarities: tuple[float, ...] = ()
    """Similarities of the retrieved cases."""


def build_queries(
    test: Sequence[Case], prompts: Sequence[Prompt], cases: Iterable[Case], neighbours: Iterable[Neighbour]
) -> list[Query]:
    """Test cases with the retrieved cases that their prompts show, looked up among a hospital's cases."""
    by_id = {case.id: case for case in cases}
    near = {(each.case_id, each.neighbour_id): each.similarity for each in neighbours}
    return [
        Query(
            case,
            tuple(by_id[retrieved_id] for retrieved_id in prompt.retrieved_ids),
            tuple(near[case.id, retrieved_id] for retrieved_id in prompt.retrieved_ids),
        )
        for case, prompt in zip(test, prompts, strict=True)
    ]
