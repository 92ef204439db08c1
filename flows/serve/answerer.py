"""Answers a question about one image with a trained model and a hospital's library."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flows.serve.user_question import read_question
from tasks.answer.abstain import held_out_threshold
from tasks.engine.adapter import State, load_state
from tasks.engine.batch import encode
from tasks.engine.context import choose
from tasks.engine.engine import Engine
from tasks.engine.generate import Answer, generate
from tasks.engine.hospital import answering_context, mixture_of
from tasks.engine.identity import choose_model
from tasks.engine.mixture import mixing
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.shared import shared_engine
from tasks.engine.vision import FEATURES, Features, encode_images, gather_features, load_features
from tasks.errors import StudyError
from tasks.records import Case, Image, Prediction, read_images, read_table
from tasks.records.tuning import Tuning, read_tuning
from tasks.retrieve.encoded import Inputs
from tasks.retrieve.encoders.open import encode_all, opened
from tasks.retrieve.retriever import Queries, Retriever
from tasks.retrieve.retriever_files import encoded_of, open_retriever
from tasks.settings import ModelChoice, Study
from tasks.store import ROOT, find
from tasks.store.runs import check_run, open_run, paths_of


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


@dataclass(frozen=True)
class Place:
    """A hospital of a finished run."""

    run: Path
    study: Study
    model: ModelChoice
    """The base that it was trained on."""
    folders: Mapping[str, Any]
    """The hospital's folders by name, as in `references.json`, relative to the artifacts."""
    adapter: Path
    """Folder of the adapter that it answers with."""
    tuning: Tuning | None
    """How it uses its retrieved cases, if its held-out images decided that."""


@dataclass(frozen=True)
class Desk:
    """A place with what its answers need in memory, for one question or many."""

    place: Place
    state: State
    """The adapter that it answers with."""
    cases: Mapping[str, Case]
    """The hospital's cases by id."""
    features: Features
    """What the frozen base sees of the hospital's images."""
    retriever: Retriever | None
    """None if the study retrieves nothing."""
    threshold: float
    """As `Reply.threshold`."""


@dataclass(frozen=True)
class PreparedQuestion:
    """A user's question about an image, with its retrieved cases, ready for the model."""

    case: Case
    retrieved: tuple[tuple[float, Case], ...]
    """As `Reply.retrieved`."""
    features: Features
    """Features of all images of the prompt."""


def answer(run: Path, hospital: str, image: Path, question: str, personal: bool = False) -> Reply:
    """Answer a question about an image file with a run's final adapter and one hospital's library.

    `personal` answers with the hospital's personal adapter instead.

    Raises StudyError if the image or the question is unusable, and as `open_place` does.
    """
    place, picture = open_place(run, hospital, personal=personal), read_question(image, question)
    (reply,) = answer_all(open_desk(place), [(picture, question)])
    return reply


def answer_all(desk: Desk, asked: Sequence[tuple[Image, str]]) -> list[Reply]:
    """Answer questions about images together, each as if it were asked alone. Each image has an id of its own."""
    how = desk.place.study.retrieval.context
    with engine_of(desk.place, desk.state) as engine:
        prepared = [prepare_question(desk, engine, picture, question) for picture, question in asked]
        features = gather_features({name: (each.features, name) for each in prepared for name in each.features.grids})
        prompts = []
        for each in prepared:
            cases, similarities = [case for _, case in each.retrieved], [near for near, _ in each.retrieved]
            prompts.append(build_prompt(each.case, cases, similarities, how))
        given = give(desk.place, engine, features, prompts)
    return [
        Reply(one.text, one.confidence, desk.threshold, each.retrieved)
        for one, each in zip(given, prepared, strict=True)
    ]


def open_place(run: Path, hospital: str, *more: str, personal: bool = False) -> Place:
    """Open a hospital of a run, after verifying the folders that a question needs, and `more` folders by name.

    `personal` takes the hospital's personal adapter instead of the one for all. Raises StudyError if there is no such
    run, hospital or adapter, a folder is missing or has changed, or the base is not the one that the run was made with.
    """
    study, references = open_run(run)
    folders = references["hospitals"].get(hospital)
    if folders is None:
        known = ", ".join(references["hospitals"])
        raise StudyError(f"Expected --hospital to be one of {known}, found {hospital!r}.")
    if personal and "personal" not in folders:
        raise StudyError(
            f"Expected a run with personal adapters for --personal, found none in {run}: set federation.personal."
        )
    adapter = folders["personal"] if personal else references["adapter"] or folders["adapter"]
    check_run(run, [*paths_of(folders, ("cases", "features", "calibration", "tuning", *more)), adapter])
    tuning = read_tuning(ROOT / folders["tuning"]) if "tuning" in folders else None
    return Place(run, study, choose_base(run, study), folders, ROOT / adapter, tuning)


def choose_base(run: Path, study: Study) -> ModelChoice:
    """The base of a run's settings.

    Raises StudyError if it is not the one that the run was made with.
    """
    model = choose_model(study.model)
    content = json.loads((run / "results.json").read_text(encoding="utf-8"))["model"]["content"]
    if model.content != content:
        raise StudyError(
            f"Expected the base {model.name} that {run} was trained on (content {content[-12:]}), found another there "
            f"now ({model.content[-12:]}): put the former back, or run `fed-rag run` again."
        )
    return model


def open_desk(place: Place) -> Desk:
    """Load what a place's answers need, the base excepted. Raises StudyError if its library has changed."""
    folders, settings = place.folders, place.study.retrieval
    cases = {case.id: case for case in read_table(ROOT / folders["cases"] / "cases.parquet", Case)}
    features = load_features(ROOT / folders["features"] / FEATURES)
    retriever = (
        open_retriever(ROOT / folders["library"], cases, features, settings.depth, settings.diversity)
        if settings.most
        else None
    )
    return Desk(place, load_state(place.adapter), cases, features, retriever, threshold(place))


@contextmanager
def engine_of(place: Place, state: State | None = None) -> Iterator[Engine]:
    """The base with the hospital's adapter switched on, locked for the caller; `state` is it, if it is in memory."""
    with shared_engine(place.model, place.study.lora) as engine:
        engine.switch(load_state(place.adapter) if state is None else state)
        yield engine


def prepare_question(desk: Desk, engine: Engine, picture: Image, question: str) -> PreparedQuestion:
    """Retrieve the hospital's cases for a question about an image, and gather all features.

    Cases are compared by what the frozen base sees, as in the library; the prompt's features are the adapter's.
    """
    kept = desk.features
    with engine.peft.disable_adapter():
        seen = encode_images(engine.base, [picture], projected=kept.projected)
    case = Case(picture.id, picture.id, question, "", "open", "test", "asked", "en")
    retrieved = _retrieve(desk, picture, seen, case)
    if not engine.tower_learns:
        places = {picture.id: (seen, picture.id)} | {each.image_id: (kept, each.image_id) for _, each in retrieved}
        return PreparedQuestion(case, retrieved, gather_features(places))
    wanted = {each.image_id for _, each in retrieved}
    stored = read_images(ROOT / desk.place.folders["cases"] / "images.parquet")
    pictures = [picture, *(each for each in stored if each.id in wanted)]
    return PreparedQuestion(case, retrieved, encode_images(engine.base, pictures))


def give(place: Place, engine: Engine, features: Features, prompts: Sequence[Prompt]) -> list[Answer]:
    """Answer prompts with the adapter that is switched on."""
    answering = place.study.evaluation
    return generate(
        engine,
        features,
        encode(engine.base, features, prompts),
        tokens=answering.tokens_per_pass,
        max_new_tokens=answering.max_new_tokens,
        mixing=mixing(engine.base, prompts, mixture_of(place.tuning)),
    )


def threshold(place: Place) -> float:
    """As `Reply.threshold`."""
    coverage = place.study.evaluation.coverage
    if coverage == 1:
        return 0.0
    held_out = read_table(ROOT / place.folders["calibration"] / "predictions.parquet", Prediction)
    cases = read_table(ROOT / place.folders["cases"] / "cases.parquet", Case)
    return held_out_threshold(held_out, cases, coverage)


def _retrieve(desk: Desk, picture: Image, seen: Features, case: Case) -> tuple[tuple[float, Case], ...]:
    """Similarity and case of each retrieved case for a question about the image `seen`, nearest first."""
    if desk.retriever is None:
        return ()
    place = desk.place
    inputs = _query_inputs(place, encoded_of(ROOT / place.folders["library"]), picture, seen, case.question)
    (found,) = desk.retriever.neighbours(Queries([_known(desk, seen, case)], *inputs.of([case])))
    how = answering_context(place.study.retrieval.context, place.tuning)
    chosen = choose(found, int(how.k), how.floor)
    return tuple((neighbour.similarity, desk.cases[neighbour.neighbour_id]) for neighbour in chosen)


def _query_inputs(place: Place, encoded: str | None, picture: Image, seen: Features, question: str) -> Inputs:
    """The question's rows for comparison, made in the same way as the hospital's rows in the folder `encoded`.

    Raises StudyError if that folder is missing or has changed, or the encoder has changed.
    """
    encoding = place.study.retrieval.encoding
    if encoded is None:
        return Inputs(seen)
    check_run(place.run, [encoded])
    with opened(encoding, place.model, find(encoded).manifest()["summary"]["encoder"]) as encoder:
        return Inputs(seen, encode_all(encoder, encoding, [picture], [question]))


def _known(desk: Desk, seen: Features, query: Case) -> Case:
    """The question as a case; if a stored image has the same features, with that image's id and patient.

    So retrieval hides the cases of that image, of its copies, and of its patient.
    """
    one = seen.of(query.image_id)
    for image_id, case in {case.image_id: case for case in reversed([*desk.cases.values()])}.items():
        other = desk.features.of(image_id)
        if one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4):
            return replace(query, image_id=image_id, group=case.group)
    return query
