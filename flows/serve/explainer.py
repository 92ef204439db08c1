"""Explains one answer: overlays on the images, numbers, and each part's share."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.serve.answerer import give
from flows.serve.desk import Desk, engine_of, open_desk
from flows.serve.place import Place, open_place, threshold
from flows.serve.prepared import gathered, prepare_questions
from flows.serve.user_question import read_question
from tasks.engine.engine import Engine
from tasks.engine.hospital import open_hospital
from tasks.engine.prompt import Query, build_prompt, build_queries
from tasks.engine.vision import Features
from tasks.errors import StudyError
from tasks.explain.attribution import METHODS, Explanation, explain
from tasks.records import Image, Record, Saliency, Share, read_images, write_table
from tasks.records.federation import HospitalRefs
from tasks.report.page.overlay import sheet
from tasks.text.wording import counted

logger = logging.getLogger("fed_rag")


@dataclass(frozen=True)
class Wanted:
    """What to explain, and how."""

    methods: tuple[str, ...] = METHODS
    token: int | None = None
    """Index of the answer's token, from 0; None for the whole answer."""
    layer: int | None = None
    """Layer whose attention is drawn; None for all layers."""
    head: int | None = None
    """Head of that layer; None for all heads."""


@dataclass(frozen=True)
class Explained:
    """An answer and its explanation."""

    hospital: str
    query: Query
    answer: str
    confidence: float
    threshold: float
    """As `flows.serve.answerer.Reply.threshold`."""
    images: Mapping[str, Image]
    """The prompt's images, by id."""
    explanation: Explanation
    wanted: Wanted


def methods_of(name: str) -> tuple[str, ...]:
    """The methods behind a name, which is `all` or one of METHODS.

    Raises StudyError for any other name.
    """
    if name != "all" and name not in METHODS:
        raise StudyError(f"Expected --method to be all or one of {', '.join(METHODS)}, found {name!r}.")
    return METHODS if name == "all" else (name,)


def explain_case(run: Path, hospital: str, case_id: str, wanted: Wanted, personal: bool = False) -> Explained:
    """Explain the answer to one of a hospital's cases, with the neighbours from its library.

    `personal` takes the hospital's personal adapter instead of the one for all.

    Raises StudyError if the case, token, layer or head is not found, and as `open_place` does.
    """
    place = open_place(run, hospital, "library", personal=personal)
    refs = HospitalRefs.at(hospital, place.folders)
    hospital_data = open_hospital(refs)
    chosen = [case for case in hospital_data.cases if case.id == case_id]
    if not chosen:
        tests = [case.id for case in hospital_data.cases if case.split == "test"]
        total = counted(len(hospital_data.cases), "cases")
        raise StudyError(
            f"Expected --case to be one of {hospital}'s {total}, as {', '.join(tests[:3])}, found {case_id!r}."
        )
    prompts = hospital_data.prompts(chosen, place.study.retrieval.context)
    (query,) = build_queries(chosen, prompts, hospital_data.cases, hospital_data.neighbours)
    ids = {case.image_id for case in (query.case, *query.retrieved)}
    images = {image.id: image for image in read_images(refs.cases.folder / "images.parquet") if image.id in ids}
    with engine_of(place) as engine:
        return _explain(place, hospital, engine, query, hospital_data.seen_by(engine).fixed(images), images, wanted)


def explain_image(
    run: Path, hospital: str, image: Path, question: str, wanted: Wanted, personal: bool = False
) -> Explained:
    """Explain the answer to a question about an image file, with retrieval as in `fed-rag ask`.

    Raises StudyError if the image or the question is unusable, a token, layer or head is not found, and as `open_place`
    does.
    """
    place, picture = open_place(run, hospital, personal=personal), read_question(image, question)
    return explain_question(open_desk(place), hospital, picture, question, wanted)


def explain_question(desk: Desk, hospital: str, picture: Image, question: str, wanted: Wanted) -> Explained:
    """Explain the answer to a question about an image.

    Raises StudyError if a token, layer or head is not found.
    """
    with engine_of(desk.place, desk.state) as engine:
        (prepared,) = prepare_questions(desk, engine, [(picture, question)])
        images = {prepared.picture.id: prepared.picture}
        images |= desk.pictures({case.image_id for _, case in prepared.retrieved})
        cases = tuple(case for _, case in prepared.retrieved)
        similarities = tuple(near for near, _ in prepared.retrieved)
        query = Query(prepared.case, cases, similarities)
        return _explain(desk.place, hospital, engine, query, gathered([prepared]), images, wanted)


def _explain(
    place: Place,
    hospital: str,
    engine: Engine,
    query: Query,
    features: Features,
    images: Mapping[str, Image],
    wanted: Wanted,
) -> Explained:
    how = place.study.retrieval.context
    logger.info("answering, shown %s", counted(len(query.retrieved), "retrieved cases"))
    (given,) = give(place, engine, features, [build_prompt(query.case, query.retrieved, query.similarities, how)])
    logger.info("explaining by %s", ", ".join(wanted.methods))
    made = explain(
        engine.base,
        features,
        images,
        query,
        how,
        given.text,
        wanted.methods,
        wanted.token,
        heads=True,
        tokens=place.study.evaluation.tokens_per_pass,
    )
    _check_head(made, wanted)
    return Explained(hospital, query, given.text, given.confidence, threshold(place), images, made, wanted)


def _check_head(made: Explanation, wanted: Wanted) -> None:
    if (wanted.layer, wanted.head) != (None, None) and "attention" not in wanted.methods:
        raise StudyError(f"Expected --method attention or all beside --layer, found {', '.join(wanted.methods)}.")
    if wanted.head is not None and wanted.layer is None:
        raise StudyError("Expected --layer beside --head, found none: heads are numbered within their layer.")
    for name, value in (("layer", wanted.layer), ("head", wanted.head)):
        known = {getattr(each, name) for each in made.maps} - {None}
        if value is not None and value not in known:
            raise StudyError(f"Expected --{name} to be from 0 to {max(known)}, found {value}.")


def write_explained(explained: Explained, out: Path) -> list[Path]:
    """Write a PNG per method, `saliency.parquet`, `shares.parquet` and `answer.json`; returns the PNGs' paths.

    All files are first written in a temporary folder inside `out` and then moved, so that no file is incomplete.
    Raises StudyError if the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as name:
            beside = Path(name)
            for method in explained.wanted.methods:
                logger.info("drawing %s", method)
                (beside / f"{method}.png").write_bytes(draw(explained, method))
            _write(beside / "saliency.parquet", Saliency, explained.explanation.maps)
            _write(beside / "shares.parquet", Share, explained.explanation.shares)
            text = json.dumps(_answer_document(explained), indent=1, ensure_ascii=False) + "\n"
            (beside / "answer.json").write_text(text, encoding="utf-8")
            for method in METHODS:  # of an earlier explanation, which the new tables do not describe
                (out / f"{method}.png").unlink(missing_ok=True)
            for file in beside.iterdir():
                file.replace(out / file.name)
    except OSError as error:
        raise StudyError(
            f"Expected --out to be a folder that can be written, found {out} ({error.strerror}): name another."
        ) from None
    return [out / f"{method}.png" for method in explained.wanted.methods]


def _write(path: Path, record: type[Record], rows: Sequence[Record]) -> None:
    with path.open("wb") as sink:
        write_table(sink, record, rows)


def draw(explained: Explained, method: str) -> bytes:
    """Draw the sheet of one method as a PNG: overlays of every image, the answer, and a bar of shares."""
    wanted, query = explained.wanted, explained.query
    place = (wanted.layer, wanted.head) if method == "attention" else (None, None)
    maps, shares = explained.explanation.seen(method, *place)
    words = explained.explanation.tokens
    of = "the whole answer" if wanted.token is None else f"token {wanted.token} ({words[wanted.token].strip()!r})"
    named = zip(("layer", "head"), place, strict=True)
    where = "".join(f", {name} {value}" for name, value in named if value is not None)
    captions: dict[int | None, str] = {None: "the question's image"}
    for rank, case in enumerate(query.retrieved):
        captions[rank] = f"retrieved {rank + 1}: {case.question} {case.answer}"
    return sheet(
        query.case.question,
        f"{explained.answer or '(no answer)'}   ({method}{where}, of {of})",
        [(explained.images[each.image_id], each, captions[each.rank]) for each in maps],
        shares,
    )


def _answer_document(explained: Explained) -> dict[str, object]:
    query, made = explained.query, explained.explanation
    cases = zip(query.retrieved, query.similarities, strict=True)
    return {
        "hospital": explained.hospital,
        "case": query.case.id,
        "question": query.case.question,
        "reference": query.case.answer or None,
        "answer": explained.answer,
        "confidence": explained.confidence,
        "tokens": [
            {"token": word, "probability": likely} for word, likely in zip(made.tokens, made.probabilities, strict=True)
        ],
        "shown": [{"similarity": near, **asdict(case)} for case, near in cases],
    }
