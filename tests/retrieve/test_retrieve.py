"""Retrieval against plain NumPy: the right neighbours, never the own image, and rows that mean what they say."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.records import Case, ImagePair, Neighbour, read_table, write_table
from tasks.records.federation import LibrarySources
from tasks.retrieve.index import INDEX
from tasks.retrieve.library import ENTRIES, RULES, Library, build_library, read_library
from tasks.retrieve.rows import Rows
from tasks.retrieve.similarity import Encoder, fit_encoder
from tasks.settings import LibrarySettings

QUESTIONS = ("Where is the mass?", "Is there a mass?", "What modality is this?", "图中有哪个器官？", "???", "")


def random_rows(number: int, width: int, seed: int = 0) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(prefix: str, numbers: Sequence[int]) -> list[str]:
    return [f"{prefix}{number}" for number in numbers]


def made_cases(names: Sequence[str], images: Sequence[str], split: str = "train") -> list[Case]:
    return [
        Case(name, image, "really?", "yes", "closed", split, "d", "en")  # type: ignore[arg-type]
        for name, image in zip(names, images, strict=True)
    ]


def library_of(rows: Rows, images: Sequence[int], kind: str = "auto") -> Library:
    return build_library(rows, made_cases(named("case", range(len(rows))), named("image", images)), kind)


def searched(
    library: Library, rows: Rows, names: Sequence[str], images: Sequence[str], depth: int
) -> list[list[Neighbour]]:
    return library.search(rows, made_cases(names, images, "test"), depth)


def cosine(left: Rows, right: Rows) -> float:
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


@st.composite
def searches(draw: st.DrawFn) -> tuple[Rows, list[int], Rows, list[int], int]:
    """A library's rows and images, the queries' rows and images, and how many neighbours are wanted."""
    cases, queries = draw(st.integers(1, 30)), draw(st.integers(0, 30))
    images = st.integers(0, 6)
    seed = draw(st.integers(0, 2**16))
    return (
        random_rows(cases, 5, seed),
        draw(st.lists(images, min_size=cases, max_size=cases)),
        random_rows(queries, 5, seed + 1),
        draw(st.lists(images, min_size=queries, max_size=queries)),
        draw(st.integers(0, 35)),
    )


@settings(deadline=None)
@given(searches())
def test_neighbours_are_those_of_brute_force(search: tuple[Rows, list[int], Rows, list[int], int]) -> None:
    rows, images, queries, query_images, depth = search
    names = named("query", range(len(queries)))
    found = searched(library_of(rows, images), queries, names, named("image", query_images), depth)
    assert len(found) == len(queries)
    for number, neighbours in enumerate(found):
        similarities = rows.astype(np.float64) @ queries[number].astype(np.float64)
        others = [place for place in range(len(rows)) if images[place] != query_images[number]]
        expected = sorted(others, key=lambda place: -similarities[place])[:depth]
        assert [each.rank for each in neighbours] == list(range(len(expected)))
        assert {each.case_id for each in neighbours} <= {f"query{number}"}
        # Cases as near as each other may change places.
        assert [each.similarity for each in neighbours] == pytest.approx(similarities[expected].tolist(), abs=1e-5)
        places = [int(each.neighbour_id.removeprefix("case")) for each in neighbours]
        assert len(set(places)) == len(places)
        assert [each.similarity for each in neighbours] == pytest.approx(similarities[places].tolist(), abs=1e-5)
        assert all(images[place] != query_images[number] for place in places)
        assert all(-1 <= each.similarity <= 1 for each in neighbours)


def test_ranks_by_hand() -> None:
    rows = np.asarray([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    library = library_of(rows, [0, 1, 2, 3])
    assert searched(library, np.asarray([[1, 0]], np.float32), ["q"], ["elsewhere"], 3) == [
        [
            Neighbour("q", 0, "case0", 1.0),
            Neighbour("q", 1, "case1", pytest.approx(0.6)),
            Neighbour("q", 2, "case2", 0.0),
        ]
    ]


def test_the_querys_image_is_left_out_however_many_cases_it_has() -> None:
    """Twenty cases of the own image are nearer than all others."""
    rows = np.concatenate([np.tile(np.float32([[1, 0]]), (20, 1)), random_rows(6, 2)])
    library = library_of(rows, [0] * 20 + [1, 2, 3, 4, 5, 6])
    found = searched(library, rows[:1], ["case0"], ["image0"], 5)[0]
    assert len(found) == 5
    assert {each.neighbour_id for each in found} <= set(named("case", range(20, 26)))


@pytest.mark.parametrize(("depth", "count"), [(0, 0), (1, 1), (4, 4), (5, 4), (500, 4)])
def test_a_small_library_gives_fewer(depth: int, count: int) -> None:
    library = library_of(random_rows(5, 3), [0, 1, 2, 3, 4])
    assert [len(each) for each in searched(library, random_rows(2, 3), ["a", "b"], ["image0", "image4"], depth)] == [
        count,
        count,
    ]


def test_a_library_of_the_querys_image_alone_gives_none() -> None:
    assert searched(library_of(random_rows(3, 4), [7, 7, 7]), random_rows(1, 4), ["q"], ["image7"], 3) == [[]]


def test_without_queries_nothing_is_found() -> None:
    assert searched(library_of(random_rows(5, 3), range(5)), np.zeros((0, 3), np.float32), [], [], 3) == []
    encoder = fit_encoder(random_rows(3, 4), QUESTIONS[:3], 0.5)
    rows = encoder.encode(np.zeros((0, 4), np.float32), [])
    assert rows.shape == (0, 4 + len(encoder.vocabulary))


def test_an_empty_library_finds_nothing() -> None:
    library = library_of(np.zeros((0, 3), np.float32), [])
    assert searched(library, random_rows(2, 3), ["a", "b"], ["i", "j"], 3) == [[], []]


def test_ids_that_do_not_match_the_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="a row for each of"):
        searched(library_of(random_rows(3, 3), range(3)), random_rows(2, 3), ["a"], ["i"], 2)


def test_rounding_does_not_leave_the_range() -> None:
    rows = random_rows(200, 700)
    found = searched(library_of(rows, range(200)), rows, named("q", range(200)), ["none"] * 200, 1)
    raw = (rows * rows).sum(1)
    assert raw.max() > 1  # or this test would show nothing
    assert all(0.999 < each[0].similarity <= 1 for each in found)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=12),
    st.lists(st.sampled_from([*QUESTIONS, "unheard of"]), max_size=6),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 2**16),
)
def test_rows_are_unit_or_without_direction(library: list[str], questions: list[str], weight: float, seed: int) -> None:
    images = random_rows(len(library) + len(questions), 6, seed) * 3 + 2
    encoder = fit_encoder(images[: len(library)], library, weight)
    rows = encoder.encode(images[len(library) :], questions)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows.shape == (len(questions), 6 + len(encoder.vocabulary))
    known = [any(word in encoder.vocabulary for word in analysed(question)) for question in questions]
    for row, spoken in zip(rows, known, strict=True):
        directed = weight > 0 or spoken
        assert np.linalg.norm(row) == pytest.approx(float(directed), abs=1e-5)


def analysed(question: str) -> list[str]:
    """The words of a question: Chinese by character."""
    spaced = "".join(f" {each} " if each > "\u2fff" else each for each in question.lower())
    return spaced.replace("?", " ").replace("？", " ").replace(",", " ").split()


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_inner_product_is_the_weighted_sum_of_cosines(weight: float) -> None:
    questions = ["where is the mass", "is there a mass", "what modality is this", "cyst, where is the cyst"]
    images = random_rows(4, 6) * np.float32(5) + np.float32(1)
    encoder = fit_encoder(images, questions, weight)
    rows = encoder.encode(images, questions)
    centred = images - images.mean(0)
    words = counted(encoder, questions)
    for i in range(4):
        for j in range(4):
            expected = weight * cosine(centred[i], centred[j]) + (1 - weight) * cosine(words[i], words[j])
            assert float(rows[i] @ rows[j]) == pytest.approx(expected, abs=1e-5)


def counted(encoder: Encoder, questions: Sequence[str]) -> Rows:
    """TF-IDF by hand: one plus the logarithm of the count, times the smoothed inverse document frequency."""
    texts = [analysed(question) for question in questions]
    rows = np.zeros((len(texts), len(encoder.vocabulary)), np.float32)
    for column, word in enumerate(encoder.vocabulary):
        rarity = math.log((1 + len(texts)) / (1 + sum(word in text for text in texts))) + 1
        for row, text in enumerate(texts):
            rows[row, column] = (1 + math.log(text.count(word))) * rarity if word in text else 0
    return rows


def test_weights_at_the_ends_hear_one_side_only() -> None:
    images, questions = random_rows(4, 6), ["mass", "cyst", "mass left", "cyst left"]
    for weight, other_images, other_questions in ((1.0, images, questions[::-1]), (0.0, images[::-1], questions)):
        encoder = fit_encoder(images, questions, weight)
        assert np.array_equal(encoder.encode(images, questions), encoder.encode(other_images, other_questions))
        assert not np.array_equal(
            encoder.encode(images, questions), encoder.encode(images[::-1].copy(), questions[::-1])
        )


def test_a_question_without_a_known_word_leaves_the_image_to_decide() -> None:
    images = random_rows(5, 6)
    encoder = fit_encoder(images, ["mass"] * 5, 0.1)
    rows = encoder.encode(images, ["quid est hoc", "", "?!", "_", "🫀"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert not rows[:, 6:].any()


@pytest.mark.parametrize("questions", [["???", "", " "], ["", "", ""], ["_", "!", "🫀"]])
def test_a_library_without_any_word_is_searched_by_image(questions: list[str]) -> None:
    images = random_rows(3, 6)
    encoder = fit_encoder(images, questions, 0.5)
    assert encoder.vocabulary == ()
    rows = encoder.encode(images, ["where is the mass?", "", "?"])
    assert rows.shape == (3, 6)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert searched(library_of(rows, range(3)), rows[:1], ["q"], ["image0"], 3)[0][0].rank == 0


def test_the_nearest_question_is_found_in_chinese_and_of_single_letters() -> None:
    questions = ["肺在哪里？", "这是什么模态？", "Is this a T2 image?", "Is this a T1 image?"]
    images = np.tile(random_rows(1, 6), (4, 1))
    encoder = fit_encoder(images, questions, 0.5)
    assert {"肺", "模", "t2", "t1", "a"} <= set(encoder.vocabulary)
    library = library_of(encoder.encode(images, questions), range(4))
    queries = encoder.encode(images, ["哪里是肺", "什么模态", "t2?", "T1"])
    found = searched(library, queries, named("q", range(4)), ["none"] * 4, 1)
    assert [each[0].neighbour_id for each in found] == named("case", range(4))


@pytest.mark.parametrize("cases", [1, 3, 7, 1000])
def test_a_library_of_one_image_gives_that_image_no_direction(cases: int) -> None:
    """Rounding in the mean must not pass for a direction."""
    images = np.tile(random_rows(1, 64) / 3, (cases, 1))
    rows = fit_encoder(images, ["mass"] * cases, 0.5).encode(images, ["mass"] * cases)
    assert not rows[:, :64].any()
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(cases), abs=1e-5)


def test_neither_image_nor_word_is_a_zero_row() -> None:
    images = random_rows(1, 4)
    assert not fit_encoder(images, ["mass"], 0.5).encode(images, ["unheard"]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    """FAISS would answer them with the place -1: the last case, for every one of them."""
    images = random_rows(4, 3)
    encoder = fit_encoder(images, ["mass"] * 4, 0.5)
    images[2, 1] = value
    with pytest.raises(StudyError, match="found others for 1 of 4 cases"):
        fit_encoder(images, ["mass"] * 4, 0.5)
    with pytest.raises(StudyError, match="found others for 1 of 4 cases"):
        encoder.encode(images, ["mass"] * 4)


@pytest.mark.parametrize("mapped", [True, False])
def test_the_index_is_an_ordinary_faiss_file(tmp_path: Path, mapped: bool) -> None:
    rows = random_rows(9, 4)
    library = library_of(rows, range(9))
    library.write(tmp_path)
    index = faiss.read_index(str(tmp_path / INDEX))
    assert (index.ntotal, index.d, index.metric_type) == (9, 4, faiss.METRIC_INNER_PRODUCT)
    assert np.array_equal(faiss.downcast_index(index.index).reconstruct_n(0, 9), rows)
    again = read_library(tmp_path, mapped)
    search = (rows, named("q", range(9)), ["none"] * 9, 3)
    assert searched(again, *search) == searched(library, *search)
    written = {name: (tmp_path / name).read_bytes() for name in (INDEX, ENTRIES, RULES)}
    (tmp_path / "again").mkdir()
    again.write(tmp_path / "again")
    assert written == {name: (tmp_path / "again" / name).read_bytes() for name in written}


def hospital_cases(test_question: str) -> list[Case]:
    """Three images with two questions each; the last image is a test image, the fourth for validation."""
    splits = ("train", "train", "test", "validation")
    return [
        Case(
            id=f"d:{image}:{number}",
            image_id=f"image{image}",
            question=test_question if split == "test" else question,
            answer="left",
            kind="open",
            split=split,  # type: ignore[arg-type]
            dataset="d",
            language="en",
        )
        for image, split in enumerate(splits)
        for number, question in enumerate(("where is the mass", "is there a cyst"))
    ]


def build(
    folder: Path, key: str, cases: list[Case], features: dict[str, Rows], diversity: float = 0
) -> tuple[dict[str, bytes], list[Neighbour]]:
    """What the step writes for a hospital with these cases and features, and the neighbours among it."""
    import torch

    from tasks.engine.vision import FEATURES, Features
    from tasks.retrieve.step import build_hospital_library
    from tasks.store import writing

    with writing("hospitals/h", "cases", key) as cases_folder:
        sink = io.BytesIO()
        write_table(sink, Case, cases)
        cases_folder.write("cases.parquet", sink.getvalue())
        sink = io.BytesIO()
        write_table(sink, ImagePair, [])
        cases_folder.write("copies.parquet", sink.getvalue())
    with writing("hospitals/h", "features", key) as seen:
        rows = torch.from_numpy(np.concatenate(list(features.values())))
        starts = {image: place * 2 for place, image in enumerate(features)}
        seen.write(FEATURES, Features(rows, starts, dict.fromkeys(features, (1, 2, 4)), 2).to_bytes())
    made = build_hospital_library.fn(
        hospital=LibrarySources(name="h", cases=cases_folder.ref, features=seen.ref),
        settings=LibrarySettings(diversity=diversity, depth=2),
    )
    assert made.manifest()["summary"]["cases"] == 4
    files = {path.name: path.read_bytes() for path in (folder / "artifacts" / made.path).iterdir()}
    return files, read_table(made.folder / "neighbours.parquet", Neighbour)


def test_a_library_holds_training_cases_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other test cases change neither the encoder nor the index nor the neighbours of training cases."""
    monkeypatch.chdir(tmp_path)
    features = {f"image{number}": random_rows(2, 6, number) for number in range(4)}
    files, neighbours = build(tmp_path, "k1", hospital_cases("what organ is shown"), features)
    training = {f"d:{image}:{number}" for image in (0, 1) for number in (0, 1)}
    assert {each.neighbour_id for each in neighbours} == training
    assert {each.case_id for each in neighbours} == training | {"d:2:0", "d:2:1"}
    assert all(each.case_id.split(":")[1] != each.neighbour_id.split(":")[1] for each in neighbours)
    assert faiss.deserialize_index(np.frombuffer(files[INDEX], np.uint8)).ntotal == 4

    others, other_neighbours = build(
        tmp_path, "k2", hospital_cases("quid est hoc"), features | {"image2": random_rows(2, 6, 99)}
    )
    for name in (INDEX, ENTRIES, RULES, "encoder.json"):
        assert files[name] == others[name]
    assert [each for each in neighbours if each.case_id in training] == [
        each for each in other_neighbours if each.case_id in training
    ]
    assert neighbours != other_neighbours


def test_diverse_neighbours_begin_with_the_nearest_and_are_not_its_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    features = {f"image{number}": random_rows(2, 6, number) for number in range(4)}
    cases = hospital_cases("what organ is shown")
    _, nearest = build(tmp_path, "k1", cases, features)
    _, diverse = build(tmp_path, "k2", cases, features, diversity=0.9)
    assert [each for each in diverse if each.rank == 0] == [each for each in nearest if each.rank == 0]
    assert diverse != nearest
    assert len(diverse) == len(nearest)
