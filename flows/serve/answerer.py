"""Answers questions about images with a trained model and a hospital's library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.serve.desk import Desk, engine_of, open_desk
from flows.serve.place import Place, open_place
from flows.serve.prepared import PreparedQuestion, gathered, prepare_questions
from flows.serve.user_question import read_question
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.fast.beginnings import Beginnings
from tasks.engine.generate import Answer, Watch, generate
from tasks.engine.hospital import mixture_of
from tasks.engine.mixture import mixing
from tasks.engine.prompt import Prompt
from tasks.engine.vision import Features
from tasks.records import Case, Image

Watching = Callable[[Sequence[PreparedQuestion]], Watch] | None
"""Gives what follows the answers to prepared questions; None where nothing does."""


@dataclass(frozen=True)
class Reply:
    """An answer, its confidence, and the retrieved cases behind it."""

    text: str
    confidence: float
    """Mean probability of the answer's tokens, from 0 to 1."""
    threshold: float
    """Confidence below which the study's `evaluation.coverage` withholds an answer; 0 if none is withheld."""
    retrieved: tuple[tuple[float, Case], ...]
    """Similarity and case of each retrieved case, nearest first."""
    nearness: tuple[float, float] | None = field(default=None, compare=False)
    """As `PreparedQuestion.nearness`."""


def answer(run: Path, hospital: str, image: Path, question: str, personal: bool = False) -> Reply:
    """Answer a question about an image file with a run's final adapter and one hospital's library.

    `personal` answers with the hospital's personal adapter instead.

    Raises StudyError if the image or the question is unusable, and as `open_place` does.
    """
    place, picture = open_place(run, hospital, personal=personal), read_question(image, question)
    (reply,) = answer_all(open_desk(place), [(picture, question)])
    return reply


def answer_all(
    desk: Desk,
    asked: Sequence[tuple[Image, str]],
    watching: Watching = None,
) -> list[Reply]:
    """Answer questions about images together, each as if it were asked alone."""
    with engine_of(desk.place, desk.state) as engine:
        prepared = prepare_questions(desk, engine, asked)
        prompts = [each.prompt(desk) for each in prepared]
        watch = watching(prepared) if watching else None
        given = give(desk.place, engine, gathered(prepared), prompts, desk.caches.beginnings, watch)
    return [
        Reply(one.text, one.confidence, desk.threshold, each.retrieved, each.nearness)
        for one, each in zip(given, prepared, strict=True)
    ]


def give(
    place: Place,
    engine: Engine,
    features: Features,
    prompts: Sequence[Prompt],
    beginnings: Beginnings | None = None,
    watch: Watch | None = None,
) -> list[Answer]:
    """Answer prompts with the adapter that is switched on; `beginnings` are of this adapter."""
    answering = place.study.evaluation
    return generate(
        engine,
        features,
        encode(engine.base, features, prompts),
        tokens=answering.tokens_per_pass,
        max_new_tokens=answering.max_new_tokens,
        mixing=mixing(engine.base, prompts, mixture_of(place.tuning)),
        beginnings=beginnings,
        watch=watch,
    )
