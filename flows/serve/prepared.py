"""Questions made ready for the model together: what is seen of their images, and their retrieved cases."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flows.serve.desk import Desk, Looked
from flows.serve.user_question import QUERY_ID
from tasks.engine.context import choose
from tasks.engine.engine import Engine
from tasks.engine.hospital import answering_context
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.vision import Features, encode_images, gather_features
from tasks.records import Case, Image
from tasks.retrieve.encoded import Encoded, Inputs
from tasks.retrieve.encoders.open import encode_all
from tasks.retrieve.retriever import Queries


@dataclass(frozen=True)
class PreparedQuestion:
    """A user's question about an image, with its retrieved cases, ready for the model."""

    picture: Image
    """Its id tells its content, so that the same image has the same id in every question."""
    case: Case
    retrieved: tuple[tuple[float, Case], ...]
    """Similarity and case of each retrieved case, nearest first."""
    sources: Mapping[str, Features]
    """For each image of the prompt, features that hold it."""
    nearness: tuple[float, float] | None
    """Similarity of image and of question to the library's nearest; None where that is not measured."""

    def prompt(self, desk: Desk) -> Prompt:
        """The conversation about it."""
        cases, similarities = [case for _, case in self.retrieved], [near for near, _ in self.retrieved]
        return build_prompt(self.case, cases, similarities, desk.place.study.retrieval.context)


def prepare_questions(desk: Desk, engine: Engine, asked: Sequence[tuple[Image, str]]) -> list[PreparedQuestion]:
    """Retrieve the hospital's cases for questions about images, and find all features.

    Cases are compared by what the frozen base sees, as in the library; the prompt's features are the adapter's.
    """
    pictures = [replace(picture, id=_name(picture)) for picture, _ in asked]
    looked = _look(desk, engine, {picture.id: picture for picture in pictures})
    cases = [
        Case(QUERY_ID, picture.id, question, "", "open", "test", "asked", "en")
        for picture, (_, question) in zip(pictures, asked, strict=True)
    ]
    retrieved, nearness = _retrieve(desk, pictures, looked, cases)
    sources = _sources(desk, engine, {picture.id: picture for picture in pictures}, looked, retrieved)
    return [
        PreparedQuestion(
            picture,
            case,
            shown,
            {name: sources[name] for name in (picture.id, *(one.image_id for _, one in shown))},
            near,
        )
        for picture, case, shown, near in zip(pictures, cases, retrieved, nearness, strict=True)
    ]


def gathered(prepared: Sequence[PreparedQuestion]) -> Features:
    """The features of all images of the questions' prompts."""
    sources = {name: features for each in prepared for name, features in each.sources.items()}
    return gather_features({name: (features, name) for name, features in sources.items()})


def _name(picture: Image) -> str:
    return f"asked-{hashlib.blake2b(picture.data, digest_size=16).hexdigest()}"


def _look(desk: Desk, engine: Engine, pictures: Mapping[str, Image]) -> dict[str, Looked]:
    """What the frozen base sees of each image; those that are new, all at once."""
    kept = {name: desk.caches.looked.get(name) for name in pictures}
    found = {name: looked for name, looked in kept.items() if looked is not None}
    new = [picture for name, picture in pictures.items() if name not in found]
    if new:
        with engine.peft.disable_adapter():
            seen = encode_images(engine.base, new, projected=desk.features.projected)
        for picture in new:
            one = gather_features({picture.id: (seen, picture.id)})
            found[picture.id] = Looked(one, desk.known.find(one.rows))
            desk.caches.looked.put(picture.id, found[picture.id])
    return found


def _retrieve(
    desk: Desk, pictures: Sequence[Image], looked: Mapping[str, Looked], cases: Sequence[Case]
) -> tuple[list[tuple[tuple[float, Case], ...]], Sequence[tuple[float, float] | None]]:
    """Similarity and case of the cases retrieved for each question, nearest first, and `nearness` of each."""
    if desk.retriever is None:
        return [() for _ in cases], [None] * len(cases)
    seen = gather_features({name: (each.features, name) for name, each in looked.items()})
    inputs = Inputs(seen, _encoded(desk, pictures, cases))
    hiding = [_as_known(case, looked[case.image_id].own) for case in cases]
    rows = inputs.of(cases)
    found = desk.retriever.neighbours(Queries(hiding, *rows))
    how = answering_context(desk.place.study.retrieval.context, desk.place.tuning)
    chosen = [
        tuple((one.similarity, desk.cases[one.neighbour_id]) for one in choose(each, int(how.k), how.floor))
        for each in found
    ]
    if desk.yardstick is None:
        return chosen, [None] * len(cases)
    near = desk.yardstick.measure(*rows)
    return chosen, list(zip(near.image.tolist(), near.question.tolist(), strict=True))


def _encoded(desk: Desk, pictures: Sequence[Image], cases: Sequence[Case]) -> Encoded:
    """The rows of questions for comparison, made in the same way as the library's; empty if it needs none."""
    if desk.encoder is None:
        return Encoded()
    images = {picture.id: picture for picture in pictures}
    questions = dict.fromkeys(case.question for case in cases)
    return encode_all(desk.encoder, desk.place.study.retrieval.encoding, list(images.values()), list(questions))


def _as_known(query: Case, own: Case | None) -> Case:
    """The question as a case; with the id and patient of the hospital's own image if it is about one.

    So retrieval hides the cases of that image, of its copies, and of its patient.
    """
    return query if own is None else replace(query, image_id=own.image_id, group=own.group)


def _sources(
    desk: Desk,
    engine: Engine,
    pictures: Mapping[str, Image],
    looked: Mapping[str, Looked],
    retrieved: Sequence[tuple[tuple[float, Case], ...]],
) -> dict[str, Features]:
    """For each image of the prompts, features that hold it, as the model computes with them."""
    shown = {case.image_id for each in retrieved for _, case in each}
    if not engine.tower_learns:
        return dict.fromkeys(shown, desk.features) | {name: looked[name].features for name in pictures}
    kept = {name: desk.caches.adapted.get(name) for name in (*pictures, *shown)}
    found = {name: features for name, features in kept.items() if features is not None}
    new = {name: image for name, image in pictures.items() if name not in found}
    new |= desk.pictures(shown - set(found))
    if new:
        seen = encode_images(engine.base, new.values())
        for name in new:
            found[name] = gather_features({name: (seen, name)})
            desk.caches.adapted.put(name, found[name])
    return found
