"""Folders that go to a store which several machines share, here one in memory, or on a server that speaks S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from flows.shared_artifacts import bring_up_to_date, refuse_shared, share
from flows.withdrawals import finished_folders, take_all, write_list
from tasks.cases.withdrawn import FORGOTTEN, all_digests, forgotten_at
from tasks.errors import StudyError
from tasks.store import MANIFEST, ROOT, discard, find, here, kept, revising, writing
from tasks.store.shared_store import SharedStore

URL = "memory://bucket/study"
PATH = "hospitals/north/cases/k1"


class Machine:
    """A machine with an artifacts folder of its own; what is done with it is done there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self._folder, self._monkeypatch = folder, monkeypatch

    def __enter__(self) -> None:
        self._monkeypatch.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store."""
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        yield URL
        return
    from moto.server import ThreadedMotoServer
    from s3_samples import bucket

    with bucket(ThreadedMotoServer) as place:
        yield place


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "one", monkeypatch)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "other", monkeypatch)


def make(path: str = PATH, **files: bytes) -> None:
    area, stage, key = path.rsplit("/", 2) if path.count("/") > 1 else ("", *path.split("/"))
    with writing(area, stage, key) as folder:
        for name, data in (files or {"a": b"1", "b": b"2"}).items():
            folder.write(f"{name}.bin", data)


def content(path: str = PATH) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in here(path).iterdir() if each.name != MANIFEST}


def test_what_one_machine_makes_another_finds_whole(url: str, one: Machine, other: Machine) -> None:
    with one:
        share(url)
        make()
        digest = find(PATH).digest
    with other:
        share(url)
        assert kept("hospitals/north/cases/k2") is None
        found = kept(PATH)
        assert found and found.digest == digest
        assert content() == {"a.bin": b"1", "b.bin": b"2"}
        make("shared/scores/k3")
    with one:
        assert content("shared/scores/k3") == {"a.bin": b"1", "b.bin": b"2"}


def test_what_was_finished_before_is_shared_too_and_the_folder_keeps_its_store(
    url: str, one: Machine, other: Machine
) -> None:
    with one:
        make()
        share(url)
        share(None)  # a later command, which does not name it
        make("source/audit/k4")
        with pytest.raises(
            StudyError, match=rf"Expected artifacts.root={url}, which .* is a part of, found memory://o"
        ):
            share("memory://other")
    with other:
        share(url)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}
        assert content("source/audit/k4")


def test_a_folder_that_is_made_anew_replaces_the_former_one_and_leaves_nothing_of_it(
    url: str, one: Machine, other: Machine
) -> None:
    with one:
        share(url)
        make()
        with revising(PATH) as folder:
            (folder.path / "b.bin").unlink()
            folder.write("a.bin", b"3")
    with other:
        share(url)
        assert content() == {"a.bin": b"3"}
    held = fsspec.core.url_to_fs(url)[0].find(url)
    assert sorted(Path(each).name for each in held if PATH in each) == ["a.bin", MANIFEST]


def test_a_folder_that_is_erased_is_gone_from_the_store_and_one_that_is_pruned_is_not(
    url: str, one: Machine, other: Machine
) -> None:
    with one:
        share(url)
        make()
        discard(ROOT / PATH, everywhere=False)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}  # fetched again
    with other:
        share(url)
        assert content()
        discard(ROOT / PATH)
        assert SharedStore(url).paths() == []
        assert not [each for each in fsspec.core.url_to_fs(url)[0].find(url) if PATH in each]
        assert kept(PATH) is None


def test_what_the_store_lacks_is_given_to_it_and_nothing_is_removed_here(
    url: str, one: Machine, other: Machine
) -> None:
    with one:
        share(url)
        make()
        SharedStore(url).remove(PATH)  # or a machine was killed as it put the folder there
        make("hospitals/north/checkpoint/k7")
        SharedStore(url).remove("hospitals/north/checkpoint/k7")  # a training's, which has ended elsewhere
        bring_up_to_date()
        assert SharedStore(url).paths() == [PATH]
    with other:
        share(url)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}


def test_two_writers_of_one_folder_leave_a_whole_one(
    one: Machine, other: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's folder is there before the first has written its manifest."""
    fsspec.filesystem("memory").store.clear()
    files = type(fsspec.filesystem("memory"))
    whole = files.pipe_file

    def meanwhile(self: Any, *given: Any, **more: Any) -> Any:
        monkeypatch.setattr(files, "pipe_file", whole)
        with other:
            make(a=b"9")
        with one:
            return whole(self, *given, **more)

    for machine in (other, one):
        with machine:
            share(URL)
    with one:
        monkeypatch.setattr(files, "pipe_file", meanwhile)
        make()
        discard(ROOT / PATH, everywhere=False)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}


@pytest.mark.parametrize("after", range(3))
def test_a_kill_at_any_write_leaves_no_folder_or_a_whole_one(
    url: str, after: int, one: Machine, other: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """No code of ours catches it, as none runs after a kill."""

    files, left = type(fsspec.core.url_to_fs(url)[0]), [after]
    for method in ("put_file", "pipe_file"):
        whole = getattr(files, method)

        def half(self: Any, *given: Any, whole: Any = whole, **more: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return whole(self, *given, **more)

        monkeypatch.setattr(files, method, half)
    with one:
        share(url)
        with pytest.raises(Killed):
            make()
        assert not (ROOT / PATH).exists()
    with other:
        share(url)
        assert SharedStore(url).paths() == []
        assert kept(PATH) is None
    left[0] = 10
    with one:
        make()
    with other:
        assert kept(PATH)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}


def test_a_reader_of_a_folder_that_is_being_replaced_sees_one_of_both(
    one: Machine, other: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").store.clear()
    with one:
        share(URL)
        make()
    whole = SharedStore.read

    def replaced_meanwhile(store: SharedStore, name: str) -> bytes | None:
        found = whole(store, name)
        monkeypatch.setattr(SharedStore, "read", whole)
        with one:
            make(a=b"9")
        with other:
            return found

    with other:
        share(URL)
        monkeypatch.setattr(SharedStore, "read", replaced_meanwhile)
        assert kept(PATH)  # the former manifest's files are gone, so it looks once more
        assert content() == {"a.bin": b"9"}


@pytest.mark.parametrize("damage", [b"x", b""])
def test_a_damaged_file_is_fetched_again_and_a_damaged_store_is_not_believed(
    damage: bytes, one: Machine, other: Machine
) -> None:
    fsspec.filesystem("memory").store.clear()
    with one:
        share(URL)
        make()
    with other:
        share(URL)
        assert kept(PATH)
        (ROOT / PATH / "a.bin").write_bytes(damage)
        assert kept(PATH)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}
    memory = fsspec.filesystem("memory")
    (stored,) = (name for name in memory.find(URL) if name.endswith("a.bin"))
    memory.pipe_file(stored, damage)
    with other:
        discarded = ROOT / PATH
        for each in discarded.iterdir():
            each.unlink()
        discarded.rmdir()
        assert kept(PATH) is None
        assert not (ROOT / PATH).exists()


def test_withdrawals_on_two_machines_are_on_the_lists_of_both(url: str, one: Machine, other: Machine) -> None:
    rows = [
        {"digest": f"d{number}", "images": [f"i{number}"], "on": f"2026-12-0{number}", "adapters": [f"a{number}"]}
        for number in (1, 2)
    ]
    again = rows[0] | {"images": ["i3"], "on": "2026-11-30", "adapters": []}
    with one:  # before it shares anything
        (ROOT / "hospitals/north").mkdir(parents=True)
        write_list(ROOT / "hospitals/north", rows[:1])
        share(url)
    with other:
        share(url)
        assert all_digests() == ["d1", "i1"]
        (ROOT / "hospitals/north" / FORGOTTEN).write_text(json.dumps([again, rows[1]]))  # as if the store was away
        bring_up_to_date()
    with one:
        bring_up_to_date()
        both = rows[0] | {"images": ["i1", "i3"], "on": "2026-11-30", "adapters": ["a1"]}
        assert sorted(forgotten_at(ROOT / "hospitals/north"), key=lambda row: str(row["digest"])) == [both, rows[1]]
    with other:
        bring_up_to_date()
        assert all_digests() == ["d1", "d2", "i1", "i2", "i3"]


def test_all_of_a_hospital_can_be_fetched_before_something_of_it_is_erased(
    url: str, one: Machine, other: Machine
) -> None:
    with one:
        share(url)
        for path in (PATH, "shared/update/k5", "hospitals/south/cases/k6", "runs/20261201-000000-abc"):
            make(path)
    with other:
        share(url)
        assert sorted(finished_folders()) == ["runs/20261201-000000-abc"]
        take_all("north")
        assert sorted(finished_folders()) == [PATH, "runs/20261201-000000-abc", "shared/update/k5"]


def test_a_store_that_cannot_be_used_is_one_sentence(one: Machine) -> None:
    with one:
        with pytest.raises(StudyError, match=r"Expected a store that .* at nope://x \(artifacts.root\), found none"):
            share("nope://x")
        with pytest.raises(StudyError, match=r"to be an object store such as .*, found the folder /nas/study"):
            share("/nas/study")
        assert not (ROOT / ".root").exists()


def test_a_folder_that_shares_a_store_is_no_place_for_what_stays_on_one_machine(one: Machine) -> None:
    with one:
        refuse_shared("at a hospital")
        share(URL)
        with pytest.raises(StudyError, match=rf"Expected artifacts of one machine at a hospital, .* shares {URL}: run"):
            refuse_shared("at a hospital")


def test_without_a_shared_store_nothing_is_looked_for(one: Machine) -> None:
    with one:
        make()
        share(None)
        assert kept(PATH) is None
        assert content() == {"a.bin": b"1", "b.bin": b"2"}


def planted(name: str, data: bytes) -> None:
    fsspec.filesystem("memory").store.clear()
    SharedStore(URL).write(name, data)


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"files": 1, "digest": "d"}', b'{"files": {}}'])
def test_what_is_no_manifest_is_no_folder_and_a_writer_replaces_it(manifest: bytes, one: Machine) -> None:
    planted(f"{PATH}/{MANIFEST}", manifest)
    with one:
        share(URL)
        assert kept(PATH) is None
        make()
        discard(ROOT / PATH, everywhere=False)
        assert content() == {"a.bin": b"1", "b.bin": b"2"}


def test_names_in_the_store_lead_out_of_no_folder(one: Machine, tmp_path: Path) -> None:
    planted(f"{PATH}/{MANIFEST}", b'{"files": {"../../../../../x": {}}, "digest": "d"}')
    SharedStore(URL).write(f"{PATH}/.d/../../../../../x", b"not here")
    with one:
        share(URL)
        with pytest.raises(StudyError, match=r"Expected a name that stays in its folder, found '../../../../../x'"):
            kept(PATH)
    planted("hospitals/../forgotten/d.json", b'{"digest": "d", "images": [], "on": "", "adapters": []}')
    with one, pytest.raises(StudyError, match=r"Expected a name that stays in its folder, found '\.\.'"):
        bring_up_to_date()
    assert not list(tmp_path.rglob("x")) and not list(tmp_path.rglob(FORGOTTEN))
