"""What is served is what the library was built with: a case put to it alone gets the neighbours that were written."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tasks.engine.vision import FEATURES, Features
from tasks.records import Case, ImagePair, Neighbour, read_table, write_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.fusion import FUSION, initial_fusion
from tasks.retrieve.hospital_data import HospitalData, open_hospital_data
from tasks.retrieve.library import read_library
from tasks.retrieve.rerank import Scorer
from tasks.retrieve.retriever import Queries, Retriever
from tasks.retrieve.retriever_files import open_library_encoder, open_retriever
from tasks.retrieve.similarity import WORDS
from tasks.retrieve.step import build_hospital_library
from tasks.settings import LibrarySettings
from tasks.store import Ref, writing

WIDTH, IMAGES = 12, 40
ORDERS = ({}, {"rerank": "fixed"}, {"rerank": "learned"}, {"diversity": 0.3}, {"diversity": 0.8})


def cases() -> list[Case]:
    """Three questions for each of 40 images, two to a patient, of all splits."""
    draw = np.random.default_rng(5)
    words = ["where", "is", "the", "mass", "cyst", "left", "right", "lung", "brain", "organ", "size", "of", "shown"]
    return [
        Case(
            f"d:{image}:{number}",
            f"image{image}",
            " ".join(draw.choice(words, 6)),
            str(draw.choice(["yes", "no", "left", "lung"])),
            "open",
            ("train", "train", "train", "test", "validation")[image % 5],  # type: ignore[arg-type]
            "d",
            "en",
            str(draw.choice(["CT", "MRI"])),
            str(draw.choice(["lung", "brain", "liver"])),
            group=f"patient{image // 6}-{image % 3}",
        )
        for image in range(IMAGES)
        for number in range(3)
    ]


def pairs() -> list[ImagePair]:
    """Copies among the hospital's images: a training image of a test image too."""
    return [
        ImagePair("image3", "image5", "identical_pixels", 1.0),
        ImagePair("image0", "image16", "near_duplicate", 0.9),
    ]


def write_sources(key: str = "k") -> LibrarySources:
    """A hospital's cases and features; an image's copy looks like it."""
    with writing("hospitals/north", "cases", key) as taken:
        with taken.open("cases.parquet") as sink:
            write_table(sink, Case, cases())
        with taken.open("copies.parquet") as sink:
            write_table(sink, ImagePair, pairs())
    rows = np.random.default_rng(0).normal(size=(IMAGES, WIDTH)).astype(np.float32)
    rows[5], rows[16] = rows[3], rows[0] + 0.01
    starts = {f"image{number}": number for number in range(IMAGES)}
    with writing("hospitals/north", "features", key) as seen:
        seen.write(FEATURES, Features(torch.from_numpy(rows), starts, dict.fromkeys(starts, (1, 2, 2)), 2).to_bytes())
    return LibrarySources(name="north", cases=taken.ref, features=seen.ref)


def write_fusion() -> Ref:
    generator = torch.Generator().manual_seed(1)
    state = initial_fusion(WIDTH, WORDS, 0)
    state = {name: each + 0.05 * torch.randn(each.shape, generator=generator) for name, each in state.items()}
    with writing("shared", "fusion", "k") as folder:
        folder.write(FUSION, save(state))
    return folder.ref


def written(library: Ref) -> dict[str, list[Neighbour]]:
    """The neighbours that the stage wrote, by case."""
    rows = read_table(library.folder / "neighbours.parquet", Neighbour)
    return {name: list(each) for name, each in groupby(rows, key=lambda row: row.case_id)}


def serve(library: Ref, data: HospitalData, settings: LibrarySettings) -> Retriever:
    known = {case.id: case for case in data.cases}
    return open_retriever(library.folder, known, data.inputs.features, settings.depth, settings.diversity)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibrarySources:
    monkeypatch.chdir(tmp_path)
    return write_sources()


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True], ids=["concat", "gated"])
@pytest.mark.parametrize("index", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("candidates", [50, 3])
def test_a_case_served_alone_gets_the_neighbours_of_the_build(
    order: dict[str, str],
    index: str,
    gated: bool,
    candidates: int,
    sources: LibrarySources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many candidates are looked at, and though what was hidden from others widened the build's search."""
    monkeypatch.setattr("tasks.retrieve.retriever.CANDIDATES", candidates)
    settings = LibrarySettings(index=index, depth=7, holdout=0.2, seed=3, **order)  # type: ignore[arg-type]
    library = build_hospital_library.fn(hospital=sources, settings=settings, fusion=write_fusion() if gated else None)
    data, expected = open_hospital_data(sources), written(library)
    retriever = serve(library, data, settings)
    queried = [case for case in data.cases if case.split != "validation"]
    assert expected.keys() == {case.id for case in queried}
    for case in queried[::5]:
        (found,) = retriever.neighbours(Queries([case], *data.inputs.of([case])))
        assert len(found) == settings.depth
        assert [(each.rank, each.neighbour_id) for each in found] == [
            (each.rank, each.neighbour_id) for each in expected[case.id]
        ]
        near, then = ([each.similarity for each in some] for some in (found, expected[case.id]))
        assert near == pytest.approx(then, abs=1e-5)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_what_is_hidden_is_hidden_in_both(order: dict[str, str], sources: LibrarySources) -> None:
    """The own image, its copies, the own patient: without these rules some of them would be found."""
    images = {case.id: case for case in cases()}
    copies = {frozenset((pair.image_a, pair.image_b)) for pair in pairs()}

    def relations(settings: LibrarySettings) -> set[str]:
        library = build_hospital_library.fn(hospital=sources, settings=settings)
        data = open_hospital_data(sources)
        retriever = serve(library, data, settings)
        rows = [row for each in written(library).values() for row in each]
        for case in data.cases[::3]:
            rows += retriever.neighbours(Queries([case], *data.inputs.of([case])))[0]
        found = set[str]()
        for row in rows:
            case, other = images[row.case_id], images[row.neighbour_id]
            assert other.split == "train"
            if case.image_id == other.image_id:
                found.add("image")
            elif case.group == other.group:
                found.add("patient")
            elif frozenset((case.image_id, other.image_id)) in copies:
                found.add("copy")
        return found

    settings = LibrarySettings(depth=200, **order)  # type: ignore[arg-type]
    assert not relations(settings)
    looser = settings.model_copy(update={"hide_patient": False, "hide_copies": "identical"})
    assert relations(looser) == {"patient", "copy"}  # a near-duplicate, which is no copy of the same pixels


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_it_is_search_then_rerank_then_diversity_spelt_out(order: dict[str, str], sources: LibrarySources) -> None:
    """Against all cases that may be shown, by NumPy; the scorer and the encoder are those of the folder."""
    settings = LibrarySettings(depth=6, **order)  # type: ignore[arg-type]
    library = build_hospital_library.fn(hospital=sources, settings=settings)
    data, encoder = open_hospital_data(sources), open_library_encoder(library.folder)
    retriever, training = serve(library, data, settings), data.training
    scorer = retriever.scorer
    assert (scorer is None) == (settings.rerank == "off")
    hidden, stored = read_library(library.folder), encoder.encode(*data.inputs.of(training))
    for case in data.cases[::7]:
        query = encoder.encode(*data.inputs.of([case]))[0]
        barred = hidden.hidden(case)
        allowed = [place for place in range(len(training)) if place not in barred]
        near = sorted(allowed, key=lambda place: -float(stored[place] @ query))[: 50 if order else settings.depth]
        if scorer:
            near = sorted(near, key=lambda place: -score(scorer, case, training[place], data, settings))
        chosen: list[int] = []
        while len(chosen) < settings.depth and settings.diversity:
            rest = [place for place in near if place not in chosen]
            likest = {p: max((float(stored[p] @ stored[q]) for q in chosen), default=0) for p in rest}
            gain = {
                p: (1 - settings.diversity) * float(stored[p] @ query) - settings.diversity * likest[p] for p in rest
            }
            chosen.append(max(rest, key=lambda place: gain[place]))
        (found,) = retriever.neighbours(Queries([case], *data.inputs.of([case])))
        expected = chosen or near[: settings.depth]
        assert [each.neighbour_id for each in found] == [training[place].id for place in expected]


def score(scorer: Scorer, query: Case, other: Case, data: HospitalData, settings: LibrarySettings) -> float:
    encoder = data.fit(settings.image_weight)
    (image, text), (its_image, its_text) = (encoder.parts(*data.inputs.of([case])) for case in (query, other))
    same = [
        1 if one == another else -1 for one, another in ((query.modality, other.modality), (query.organ, other.organ))
    ]
    return float(np.dot(scorer.weights, [float(image[0] @ its_image[0]), float(text[0] @ its_text[0]), *same]))


def test_a_query_may_be_hidden_as_another_case_than_it_is_compared_as(sources: LibrarySources) -> None:
    """Its rows are those of its own image; the image and the patient that are hidden are those of a stored one."""
    settings = LibrarySettings(depth=200)
    library = build_hospital_library.fn(hospital=sources, settings=settings)
    data = open_hospital_data(sources)
    first, other = data.cases[0], data.cases[30]
    queries = Queries([replace(first, image_id=other.image_id, group=other.group)], *data.inputs.of([first]))
    (found,) = serve(library, data, settings).neighbours(queries)
    hidden = {case.id for case in data.training if case.image_id == other.image_id or case.group == other.group}
    assert hidden
    assert {each.neighbour_id for each in found} == {case.id for case in data.training} - hidden
    assert found[0].neighbour_id == first.id


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_where_no_case_is_allowed_nothing_is_found(order: dict[str, str], sources: LibrarySources) -> None:
    settings = LibrarySettings(depth=4, **order)  # type: ignore[arg-type]
    library = build_hospital_library.fn(hospital=sources, settings=settings)
    data = open_hospital_data(sources)
    retriever = serve(library, data, settings)
    library_in_memory = read_library(library.folder, mapped=False)
    empty = replace(retriever, library=library_in_memory.removed({case.id for case in data.training}))
    queries = Queries(data.cases[:2], *data.inputs.of(data.cases[:2]))
    assert empty.neighbours(queries) == [[], []]
    assert retriever.neighbours(Queries([], np.zeros((0, WIDTH), np.float32), [])) == []
