"""Answers a question about one image with a trained model and a hospital's library."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from flows.serve.user_question import QUERY_ID, read_question
from tasks.answer.abstain import held_out_threshold
from tasks.engine.adapter import load_state
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
from tasks.retrieve.retriever import Queries
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
class PreparedQuestion:
    """A user's question about an image, with its retrieved cases, ready for the model."""

    case: Case
    retrieved: tuple[tuple[float, Case], ...]
    """As `Reply.shown`."""
    features: Features
    """Features of all images of the prompt."""


def answer(run: Path, hospital: str, image: Path, question: str, personal: bool = False) -> Reply:
    """Answer a question about an image file with a run's final adapter and one hospital's library.

    `personal` answers with the hospital's personal adapter instead.

    Raises StudyError if the image or the question is unusable, and as `open_place` does.
    """
    place, picture = open_place(run, hospital, personal=personal), read_question(image, question)
    with engine_of(place) as engine:
        prepared = prepare_question(place, engine, picture, question)
        cases, similarities = [each for _, each in prepared.retrieved], [near for near, _ in prepared.retrieved]
        prompt = build_prompt(prepared.case, cases, similarities, place.study.retrieval.context)
        given = give(place, engine, prepared.features, prompt)
    return Reply(given.text, given.confidence, threshold(place), prepared.retrieved)


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


@contextmanager
def engine_of(place: Place) -> Iterator[Engine]:
    """The base with the hospital's adapter switched on, locked for the caller."""
    with shared_engine(place.model, place.study.lora) as engine:
        engine.switch(load_state(place.adapter))
        yield engine


def prepare_question(place: Place, engine: Engine, picture: Image, question: str) -> PreparedQuestion:
    """Retrieve the hospital's cases for a question about an image, and gather all features.

    Cases are compared by what the frozen base sees, as in the library; the prompt's features are the adapter's.
    """
    folders = place.folders
    cases = {case.id: case for case in read_table(ROOT / folders["cases"] / "cases.parquet", Case)}
    kept = load_features(ROOT / folders["features"] / FEATURES)
    with engine.peft.disable_adapter():
        seen = encode_images(engine.base, [picture], projected=kept.projected)
    case = Case(QUERY_ID, QUERY_ID, question, "", "open", "test", "asked", "en")
    retrieved = _retrieve(place, cases, picture, seen, kept, question)
    if not engine.tower_learns:
        places = {QUERY_ID: (seen, QUERY_ID)} | {each.image_id: (kept, each.image_id) for _, each in retrieved}
        return PreparedQuestion(case, retrieved, gather_features(places))
    wanted = {each.image_id for _, each in retrieved}
    stored = read_images(ROOT / folders["cases"] / "images.parquet")
    pictures = [picture, *(each for each in stored if each.id in wanted)]
    return PreparedQuestion(case, retrieved, encode_images(engine.base, pictures))


def give(place: Place, engine: Engine, features: Features, prompt: Prompt) -> Answer:
    """Answer one prompt with the adapter that is switched on."""
    answering = place.study.evaluation
    (given,) = generate(
        engine,
        features,
        encode(engine.base, features, [prompt]),
        tokens=answering.tokens_per_pass,
        max_new_tokens=answering.max_new_tokens,
        mixing=mixing(engine.base, [prompt], mixture_of(place.tuning)),
    )
    return given


def threshold(place: Place) -> float:
    """As `Reply.threshold`."""
    coverage = place.study.evaluation.coverage
    if coverage == 1:
        return 0.0
    held_out = read_table(ROOT / place.folders["calibration"] / "predictions.parquet", Prediction)
    cases = read_table(ROOT / place.folders["cases"] / "cases.parquet", Case)
    return held_out_threshold(held_out, cases, coverage)


def _retrieve(
    place: Place, cases: Mapping[str, Case], picture: Image, seen: Features, kept: Features, question: str
) -> tuple[tuple[float, Case], ...]:
    """Similarity and case of each retrieved case for a question about the image `seen`, nearest first."""
    settings, folder = place.study.retrieval, ROOT / place.folders["library"]
    if not settings.most:
        return ()
    retriever = open_retriever(folder, cases, kept, settings.depth, settings.diversity)
    inputs = _query_inputs(place, encoded_of(folder), picture, seen, question)
    case = _known(cases.values(), seen, kept, question)
    (found,) = retriever.neighbours(Queries([case], *inputs.of([replace(case, image_id=QUERY_ID)])))
    how = answering_context(settings.context, place.tuning)
    chosen = choose(found, int(how.k), how.floor)
    return tuple((neighbour.similarity, cases[neighbour.neighbour_id]) for neighbour in chosen)


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


def _known(cases: Iterable[Case], seen: Features, kept: Features, question: str) -> Case:
    """The question as a case; if a stored image has the same features, with that image's id and patient.

    So retrieval hides the cases of that image, of its copies, and of its patient.
    """
    query = Case(QUERY_ID, QUERY_ID, question, "", "open", "test", "asked", "en")
    for case in cases:
        one, other = seen.of(QUERY_ID), kept.of(case.image_id)
        if one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4):
            return replace(query, image_id=case.image_id, group=case.group)
    return query
