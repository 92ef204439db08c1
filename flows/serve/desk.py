"""What a hospital's answers need in memory, for one question or many."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flows.serve.drift import Yardstick
from flows.serve.known_images import KnownImages
from flows.serve.place import Place, threshold
from tasks.engine.adapter import State, load_state
from tasks.engine.engine import Engine
from tasks.engine.fast.beginnings import Beginnings
from tasks.engine.recent import Recent
from tasks.engine.shared import shared_engine
from tasks.engine.vision import FEATURES, Features, load_features
from tasks.records import Case, Image, read_images, read_table
from tasks.retrieve.encoders.encoder import DualEncoder
from tasks.retrieve.encoders.open import opened
from tasks.retrieve.retriever import Retriever
from tasks.retrieve.retriever_files import encoded_of, open_retriever
from tasks.store import find, here
from tasks.store.runs import check_run


@dataclass(frozen=True)
class Looked:
    """What the frozen base saw of an image that was asked about."""

    features: Features
    """As the hospital's own, for retrieval."""
    own: Case | None
    """A case of the hospital about the same image, if there is one."""


class Caches:
    """What is kept of one question for the next; all of it follows from the desk and what was asked.

    Args:
        most_bytes: bound on each of the caches; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self.looked: Recent[Looked] = Recent(most_bytes, lambda each: each.features.rows.nbytes)
        """By the name of an image that was asked about."""
        self.adapted: Recent[Features] = Recent(most_bytes, lambda each: each.rows.nbytes)
        """What the adapter's own tower sees, where it learns; by the name of an image."""
        self.stored: Recent[Image] = Recent(most_bytes, lambda each: len(each.data))
        """The hospital's images by id."""
        self.beginnings = Beginnings(most_bytes) if most_bytes else None
        """Keys and values of the beginnings of prompts."""


@dataclass(frozen=True)
class Desk:
    """A place with what its answers need in memory."""

    place: Place
    state: State
    """The adapter that it answers with."""
    cases: Mapping[str, Case]
    """The hospital's cases by id."""
    features: Features
    """What the frozen base sees of the hospital's images."""
    known: KnownImages
    """The same, to be found by what was seen."""
    retriever: Retriever | None
    """None if the study retrieves nothing."""
    encoder: DualEncoder | None
    """Encodes questions as the library's cases are; None if these are compared by features and words."""
    yardstick: Yardstick | None
    """Measures how near questions are to the library; None if nothing is retrieved or nothing is kept."""
    threshold: float
    """Confidence below which the study's `evaluation.coverage` withholds an answer; 0 if none is withheld."""
    caches: Caches

    def pictures(self, wanted: Collection[str]) -> dict[str, Image]:
        """Some of the hospital's images by id."""
        kept = {name: self.caches.stored.get(name) for name in wanted}
        found = {name: image for name, image in kept.items() if image is not None}
        missing = set(wanted) - set(found)
        if missing:
            stored = read_images(here(self.place.folders["cases"]) / "images.parquet")
            for image in (each for each in stored if each.id in missing):
                found[image.id] = image
                self.caches.stored.put(image.id, image)
        return found


def open_desk(place: Place, kept_bytes: int = 0) -> Desk:
    """Load what a place's answers need, the base excepted.

    For one that answers all day: each cache keeps up to `kept_bytes`, and it is measured how near questions are.

    Raises StudyError if its library has changed, or what it was encoded with is missing or has changed.
    """
    folders, settings = place.folders, place.study.retrieval
    cases = {case.id: case for case in read_table(here(folders["cases"]) / "cases.parquet", Case)}
    features = load_features(here(folders["features"]) / FEATURES)
    known = KnownImages(cases.values(), features)
    retriever, encoder, yardstick = None, None, None
    if settings.most:
        retriever = open_retriever(here(folders["library"]), cases, features, settings.depth, settings.diversity)
        encoder = _open_encoder(place)
        if kept_bytes:
            held = retriever.library.entries
            yardstick = Yardstick(retriever, [cases[name] for name in held.case_ids(held.numbers)])
    state, caches = load_state(place.adapter), Caches(kept_bytes)
    return Desk(place, state, cases, features, known, retriever, encoder, yardstick, threshold(place), caches)


@contextmanager
def engine_of(place: Place, state: State | None = None) -> Iterator[Engine]:
    """The base with the hospital's adapter switched on, locked for the caller; `state` is it, if it is in memory."""
    with shared_engine(place.model, place.study.lora) as engine:
        engine.switch(load_state(place.adapter) if state is None else state)
        yield engine


def _open_encoder(place: Place) -> DualEncoder | None:
    encoded = encoded_of(here(place.folders["library"]))
    if encoded is None:
        return None
    check_run(place.run, [encoded])
    content = find(encoded).manifest()["summary"]["encoder"]
    with opened(place.study.retrieval.encoding, place.model, content) as encoder:
        return encoder
