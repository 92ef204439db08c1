"""Libraries of every kind: what is never returned, the same bytes, cases added and removed while others read."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import combinations
from multiprocessing.synchronize import Barrier
from pathlib import Path

import faiss
import numpy as np
import pytest

import tasks.store.folders as store
from tasks.errors import StudyError
from tasks.records import Case, ImagePair
from tasks.retrieve.entries import Entries
from tasks.retrieve.index import FINE, INDEX, Index, build_index
from tasks.retrieve.library import build_library, copies_by_image
from tasks.retrieve.library_folder import change_library, open_library
from tasks.retrieve.rows import Rows
from tasks.store import find, writing

HERE = Path(__file__).parents[2]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["faiss", "pydantic", "pyarrow.parquet", "pyarrow.compute", "pytest"])
"""Other processes, which start from one that has loaded the libraries."""
KINDS = ("flat", "ivf", "ivf of 8 bits", "hnsw")


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind of `KINDS` as `build_index` takes it; small inverted files get 8 bits where that is asked."""
    name: str = request.param
    if name.endswith("8 bits"):
        monkeypatch.setattr("tasks.retrieve.index_kinds.ROOM", 0)
    return name.split()[0]


def bytes_of(index: Index) -> bytes:
    return b"".join(faiss.serialize_index(each).tobytes() for each in (index.main, index.fine) if each is not None)


def unit_rows(number: int, width: int, seed: int = 0, centres: int = 0) -> Rows:
    """Random directions, or such around some centres."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(number, width))
    if centres:
        middle = np.random.default_rng(99).normal(size=(centres, width))
        rows = middle[rng.integers(0, centres, number)] + 0.5 * rows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def case(name: str, image: str, group: str | None = None, split: str = "train") -> Case:
    return Case(name, image, "really?", "yes", "closed", split, "d", "en", group=group)  # type: ignore[arg-type]


def cases_of(number: int) -> list[Case]:
    return [case(f"c{place}", f"i{place // 2}") for place in range(number)]


def query(image: str = "asked", group: str | None = None) -> Case:
    return case("q", image, group, "test")


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_no_forbidden_neighbour_in_thousands_of_libraries(kind: str) -> None:
    """Against the rules spelled out: the allowed cases alone, and of these the right number, the nearest first."""
    rng = np.random.default_rng(5)
    libraries = {"flat": 2000}.get(kind, 400)
    for seed in range(libraries):
        images, patients = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        patient = [f"p{rng.integers(0, patients)}" if rng.random() < 0.6 else None for _ in range(images)]
        image_numbers = rng.integers(0, images, int(rng.integers(1, 25)))
        library_cases = [case(f"c{n}", f"i{image}", patient[image]) for n, image in enumerate(image_numbers)]
        relations = ["identical_bytes", "identical_pixels", "near_duplicate", "flipped"]
        pairs = [
            ImagePair(f"i{one}", f"i{other}", rng.choice(relations), 0.9)
            for one, other in combinations(range(images), 2)
            if rng.random() < 0.2
        ]
        hide = ("identical", "near_duplicate")[seed % 2]
        hide_patient = bool(rng.random() < 0.7)
        rows, depth = unit_rows(len(image_numbers), 6, seed), int(rng.integers(1, 12))
        library = build_library(rows, library_cases, kind, hide_patient, copies_by_image(pairs, hide))
        query_cases = [query(f"i{image}", patient[image]) for image in range(images)]
        queries = unit_rows(images, 6, seed + 10**6)
        for row, one, found in zip(queries, query_cases, library.search(queries, query_cases, depth), strict=True):
            allowed = {
                each.id: float(row @ rows[place])
                for place, each in enumerate(library_cases)
                if not forbidden(one, each, pairs, hide, hide_patient)
            }
            assert {each.neighbour_id for each in found} <= set(allowed)
            assert len({each.neighbour_id for each in found}) == len(found) == min(depth, len(allowed))
            assert [each.rank for each in found] == list(range(len(found)))
            best = sorted(allowed.values(), reverse=True)[: len(found)]
            exact = 1e-5 if kind == "flat" else 2e-3
            assert [each.similarity for each in found] == pytest.approx(best, abs=exact)


def forbidden(one: Case, other: Case, pairs: list[ImagePair], hide: str, hide_patient: bool) -> bool:
    if one.image_id == other.image_id or (hide_patient and one.group is not None and one.group == other.group):
        return True
    return any(
        {pair.image_a, pair.image_b} == {one.image_id, other.image_id}
        and (hide == "near_duplicate" or pair.relation.startswith("identical"))
        for pair in pairs
    )


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_all_but_a_few_hidden_still_gives_the_few(kind: str) -> None:
    """Nine hundred cases of the query's patient are nearer than the five others."""
    rows = np.concatenate([unit_rows(900, 16, 1), unit_rows(5, 16, 2)])
    rows[:900, 0] = 5
    rows[900:, 0] = -5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    library_cases = [case(f"c{n}", f"i{n}", "p") for n in range(900)] + [case(f"o{n}", f"j{n}") for n in range(5)]
    library = build_library(rows, library_cases, kind)
    found = library.search(rows[:2], [query("i0", "p"), query("other")], 5)
    assert {each.neighbour_id for each in found[0]} == {f"o{n}" for n in range(5)}
    assert {each.neighbour_id for each in found[1]} < {f"c{n}" for n in range(900)}
    assert len(library.search(rows[:1], [query("i0", "p")], 50)[0]) == 5


@pytest.mark.parametrize("split", ["test", "validation"])
def test_only_training_cases_enter(split: str) -> None:
    with pytest.raises(ValueError, match=f"found c1 of the {split} split"):
        build_library(unit_rows(2, 4), [case("c0", "i0"), case("c1", "i1", split=split)])
    with pytest.raises(ValueError, match=f"found c1 of the {split} split"):
        build_library(unit_rows(1, 4), [case("c0", "i0")]).added(unit_rows(1, 4), [case("c1", "i1", split=split)])


@pytest.mark.parametrize("centres", [0, 40])
@pytest.mark.parametrize("kind", KINDS[1:], indirect=True)
def test_recall_at_10_and_the_same_bytes(kind: str, centres: int, tmp_path: Path) -> None:
    rows, queries = unit_rows(6000, 64, 1, centres), unit_rows(100, 64, 2, centres)
    index = build_index(rows, np.arange(6000), kind)
    nearest = np.argsort(-(queries @ rows.T), 1)[:, :10]
    found = index.search(queries, 10)[1]
    recall = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, nearest, strict=True)])
    assert recall >= 0.98
    again = build_index(rows, np.arange(6000), kind)
    assert bytes_of(again) == bytes_of(index)


@pytest.mark.parametrize("centres", [0, 40])
def test_twelve_bits_a_number_where_float16_takes_too_much(centres: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.retrieve.index_kinds.ROOM", 1000)
    rows, queries = unit_rows(6000, 64, 1, centres), unit_rows(100, 64, 2, centres)
    index = build_index(rows, np.arange(6000), "ivf")
    assert len(bytes_of(index)) < 6000 * (64 + 32 + 16 + 6)  # codes, finer codes, two numbers; the cells' centres
    near = np.sort(queries @ rows.T, 1)[:, ::-1]
    coarse, _ = index.main.search(queries, 10)
    fine, numbers = index.search(queries, 10)
    assert np.abs(fine - near[:, :10]).max() < 1e-3
    assert np.abs(fine - near[:, :10]).mean() < np.abs(coarse - near[:, :10]).mean() / 5
    assert fine == pytest.approx((queries[:, None] * rows[numbers]).sum(2), abs=1e-3)


def test_the_same_bytes_with_other_threads(tmp_path: Path) -> None:
    write_each_kind(tmp_path / "1")
    threads = {
        "OMP_NUM_THREADS": str(faiss.omp_get_max_threads() + 2),
        "PYTHONPATH": f"{HERE}:{HERE / 'tests'}:{HERE / 'tests/retrieve'}",
    }
    command = [sys.executable, "-c", f"from test_library import *; write_each_kind(Path({str(tmp_path / '2')!r}))"]
    subprocess.run(command, env=os.environ | threads, check=True)
    for kind in KINDS:
        one, other = ({path.name: path.read_bytes() for path in (tmp_path / n / kind).iterdir()} for n in "12")
        assert one == other
        assert (FINE in one) == (kind == "ivf of 8 bits")


def write_each_kind(place: Path) -> None:
    """An index of each kind of the same rows, in a folder of its name."""
    for name in KINDS:
        (place / name).mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.retrieve.index_kinds.ROOM", 0 if name.endswith("8 bits") else 1e9)
            build_index(unit_rows(2000, 32), np.arange(2000), name.split()[0]).write(place / name)


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_added_and_removed_is_as_if_it_had_always_been_so(kind: str) -> None:
    rows, cases = unit_rows(400, 16, 3), cases_of(400)
    queries, query_cases = unit_rows(20, 16, 4), [query()] * 20
    library = build_library(rows[:300], cases[:300], kind).added(rows[300:], cases[300:])
    before = library.search(queries, query_cases, 8)
    gone = {each.neighbour_id for found in before for each in found[:2]}
    library = library.removed(gone)
    assert len(library.entries) == len(library.index) == 400 - len(gone)
    left = {each.id: row for each, row in zip(cases, rows, strict=True) if each.id not in gone}
    exact = 1e-5 if kind == "flat" else 2e-3
    for row, found in zip(queries, library.search(queries, query_cases, 8), strict=True):
        assert not gone & {each.neighbour_id for each in found}
        # Each case is still found under its own row, so no number was given to another.
        for each in found:
            assert each.similarity == pytest.approx(float(row @ left[each.neighbour_id]), abs=exact)
    assert library.removed(gone).entries.table.equals(library.entries.table)
    back = library.added(unit_rows(1, 16, 9), [case(min(gone), "new")])
    assert back.entries.numbers[-1] == 400


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_nothing_of_a_removed_row_is_left_in_the_bytes(kind: str) -> None:
    rows, gone = unit_rows(300, 16, 3), np.array([7, 250])
    index = build_index(rows, np.arange(300), kind)
    codes = codes_of(index, rows[gone])
    assert len(codes) == (4 if index.fine is not None else 2)
    before = bytes_of(index)
    assert all(each in before for each in codes)
    left = index.without(gone)
    after = bytes_of(left)
    assert len(left) == 298
    assert not any(each in after for each in codes)


def codes_of(index: Index, rows: Rows) -> list[bytes]:
    """What an index stores of each of the rows."""
    if index.kind == "ivf":
        coded = index.main.sa_encode(rows)
        cell = coded.shape[1] - index.main.sq.code_size
        kept = [code[cell:].tobytes() for code in coded]
        if index.fine is None:
            return kept
        return kept + [each.tobytes() for each in index.fine.index.sa_encode(rows - index.main.sa_decode(coded))]
    inner = faiss.downcast_index(index.main.index)
    return [code.tobytes() for code in (inner.storage if index.kind == "hnsw" else inner).sa_encode(rows)]


def test_a_case_is_added_once() -> None:
    library = build_library(unit_rows(3, 4), cases_of(3))
    with pytest.raises(ValueError, match="one that is in the library"):
        library.added(unit_rows(1, 4), [case("c1", "i9")])


def stored(cases: int, seed: int = 0, kind: str = "flat") -> Path:
    with writing("hospitals/h", "library", "k") as folder:
        build_library(unit_rows(cases, 16, seed), cases_of(cases), kind).write(folder.path)
    return folder.ref.folder


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_changed_library_takes_the_place_of_the_old(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(200, kind=kind)
    (tmp_path / "artifacts/.records").mkdir()
    record = tmp_path / "artifacts/.records/one"
    record.write_text(find("hospitals/h/library/k").model_dump_json())
    old = open_library(folder)
    rows = unit_rows(5, 16, 7)
    change_library(folder, lambda library: library.added(rows, [case(f"n{n}", f"n{n}") for n in range(5)]))
    change_library(folder, lambda library: library.removed({"c0", "c1"}))
    new = open_library(folder)
    assert (len(old.entries), len(new.entries)) == (200, 203)
    assert new.search(rows[:1], [query()], 1)[0][0].neighbour_id == "n0"
    assert len(old.search(rows[:1], [query()], 3)[0]) == 3  # who has it open keeps it
    assert json.loads(record.read_text())["digest"] == find("hospitals/h/library/k").digest
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "k"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(20)
    before = find("hospitals/h/library/k")
    with pytest.raises(ValueError, match="training cases alone"):
        change_library(folder, lambda library: library.added(unit_rows(1, 16), [query()]))
    assert find("hospitals/h/library/k").verified() == before


@pytest.mark.parametrize("moment", ["entries", "manifest", "place"])
def test_a_kill_half_way_leaves_the_old_library_in_service(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies once the index is written, once all but the manifest is, or once all is but its place."""
    monkeypatch.chdir(tmp_path)
    folder = stored(20)
    process = PROCESSES.Process(target=remove_and_die, args=(folder, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(open_library(folder).entries) == 20
    change_library(folder, lambda library: library.removed({"c3"}))
    assert len(open_library(folder).entries) == 19
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "k"]  # and what was half-written is gone


def remove_and_die(folder: Path, moment: str) -> None:
    """Take a case out; the process is killed where this would go on to write entries or manifest, or to the place."""
    owner, name = {"entries": (Entries, "write"), "manifest": (store, "_finish"), "place": (store, "_put")}[moment]
    setattr(owner, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    change_library(folder, lambda library: library.removed({"c3"}))


@pytest.mark.parametrize(("kind", "name"), [("flat", INDEX), ("ivf of 8 bits", FINE)], indirect=["kind"])
def test_a_damaged_index_is_noticed(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(20, kind=kind)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(StudyError, match=rf"{name}: the content has changed.*fed-rag run"):
        open_library(folder)
    stored(20, kind=kind)
    assert len(open_library(folder).entries) == 20


def read_often(folder: Path, started: Barrier, until: Path, seen: "multiprocessing.Queue[object]") -> None:
    """What a reader finds: numbers of cases, or what went wrong."""
    sizes = set()
    row = unit_rows(1, 16, 1)
    started.wait(60)
    try:
        while not until.exists():
            library = open_library(folder)
            assert len(library.index) == len(library.entries)
            (found,) = library.search(row, [query()], 5)
            assert len(found) == 5
            sizes.add(len(library.entries))
        seen.put(sorted(sizes))
    except BaseException as error:
        seen.put(repr(error))


def test_readers_see_a_whole_library_while_one_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(50)
    seen: multiprocessing.Queue[object] = PROCESSES.Queue()
    started = PROCESSES.Barrier(3)
    readers = [PROCESSES.Process(target=read_often, args=(folder, started, tmp_path / "stop", seen)) for _ in range(2)]
    for reader in readers:
        reader.start()
    started.wait(60)
    for number in range(40):
        added = [case(f"n{number}", f"n{number}")]
        change_library(
            folder, lambda library, added=added, number=number: library.added(unit_rows(1, 16, number), added)
        )
    (tmp_path / "stop").touch()
    found = [seen.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
    assert all(isinstance(sizes, list) for sizes in found), found
    assert all(set(sizes) <= set(range(50, 91)) for sizes in found)  # type: ignore[arg-type, call-overload]
    assert len(open_library(folder).entries) == 90


def test_two_writers_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(10)
    started = PROCESSES.Barrier(2)
    writers = [PROCESSES.Process(target=add_often, args=(folder, started, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    library = open_library(folder)
    assert len(library.entries) == 30
    assert len(set(library.entries.numbers.tolist())) == 30


def add_often(folder: Path, started: Barrier, name: str) -> None:
    """Ten cases, each by a change of its own."""
    started.wait(60)
    for number in range(10):
        new = [case(f"{name}{number}", f"{name}{number}")]
        change_library(folder, lambda library, new=new, number=number: library.added(unit_rows(1, 16, number), new))


def test_copies_count_both_ways_and_by_relation() -> None:
    pairs = [ImagePair("a", "b", "near_duplicate", 0.9), ImagePair("b", "c", "identical_pixels", 1.0)]
    assert copies_by_image(pairs, "near_duplicate") == {"a": {"b"}, "b": {"a", "c"}, "c": {"b"}}
    assert copies_by_image(pairs, "identical") == {"b": {"c"}, "c": {"b"}}
