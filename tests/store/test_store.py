"""The store: folders that appear whole or not at all, manifests that tell every change, digests that never wander."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disks import small_disk
from hypothesis import given
from hypothesis import strategies as st

from tasks import store
from tasks.errors import StudyError
from tasks.store import MANIFEST, ROOT, Ref, derived_seed, file_digest, stage_key, tree_digest, writing

HERE = Path(__file__).parents[2]
CONTENT = {"cases.parquet": b"cases", "deep/down/rows.json": b"[]", "empty": b""}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(key: str = "k1", content: dict[str, bytes] = CONTENT, area: str = "source", stage: str = "ingest") -> Ref:
    with writing(area, stage, key) as folder:
        for name, data in content.items():
            folder.write(name, data)
    return folder.ref


def everything(folder: Path = ROOT) -> list[str]:
    """All files and folders, hidden ones too, below the artifacts folder's stages."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*/*"))


def in_another_process(program: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": str(HERE)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout


def test_a_finished_folder_holds_its_files_and_their_digests() -> None:
    with writing("hospitals/hospital-1", "cases", "k1") as folder:
        for name, data in CONTENT.items():
            folder.write(name, data)
        folder.write_json("answer.json", {"b": "左", "a": 1})
        folder.summary = {"cases": 3}
    ref = folder.ref
    assert ref.path == "hospitals/hospital-1/cases/k1"
    assert ref.folder == ROOT / ref.path
    manifest = ref.manifest()
    written = CONTENT | {"answer.json": '{\n  "b": "左",\n  "a": 1\n}\n'.encode()}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in written.items()
    }
    assert {name: (ref.folder / name).read_bytes() for name in written} == written
    assert manifest["digest"] == ref.digest
    assert manifest["summary"] == {"cases": 3}
    assert 0 <= manifest["seconds"] < 60
    assert 2**20 < manifest["peak_memory_bytes"] < 2**40
    assert ref.verified() == ref


def test_a_reference_survives_json() -> None:
    ref = make()
    assert Ref.model_validate_json(ref.model_dump_json()) == ref


def test_nobody_sees_an_unfinished_folder() -> None:
    with writing("source", "ingest", "k1") as folder:
        folder.write("a", b"1")
        assert not (ROOT / "source/ingest/k1").exists()
        assert not hasattr(folder, "ref")
    assert everything() == ["source/ingest/k1"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileNotFoundError, StudyError])
def test_an_error_in_the_middle_leaves_nothing(error: type[BaseException]) -> None:
    with pytest.raises(error, match="in the middle"), writing("source", "ingest", "k1") as folder:
        folder.write("deep/a", b"1")
        raise error("in the middle")
    assert everything() == []


def test_an_error_leaves_what_was_there_before() -> None:
    ref = make()
    with pytest.raises(ValueError, match="in the middle"), writing("source", "ingest", "k1") as folder:
        folder.write("cases.parquet", b"other")
        raise ValueError("in the middle")
    assert ref.verified() == ref
    assert everything() == ["source/ingest/k1"]


def test_json_that_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), writing("source", "ingest", "k1") as folder:
        folder.write_json("a.json", {"loss": float("nan")})
    assert everything() == []


def edited(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Damage that changes the manifest."""

    def damage(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        edit(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "altered byte": lambda folder: (folder / "cases.parquet").write_bytes(b"caseS"),
    "appended byte": lambda folder: (folder / "empty").write_bytes(b"\0"),
    "cut file": lambda folder: (folder / "deep/down/rows.json").write_bytes(b""),
    "deleted file": lambda folder: (folder / "deep/down/rows.json").unlink(),
    "deleted folder": lambda folder: shutil.rmtree(folder),
    "deleted manifest": lambda folder: (folder / MANIFEST).unlink(),
    "empty manifest": lambda folder: (folder / MANIFEST).write_bytes(b""),
    "manifest of another kind": lambda folder: (folder / MANIFEST).write_text("[]"),
    "manifest without content": lambda folder: (folder / MANIFEST).write_text("{}"),
    "binary manifest": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
    "another digest": edited(lambda manifest: manifest.update(digest="0" * 64)),
    "no digest": edited(lambda manifest: manifest.pop("digest")),
    "no files": edited(lambda manifest: manifest.pop("files")),
    "a file left out": edited(lambda manifest: manifest["files"].pop("empty")),
    "a file added": edited(lambda manifest: manifest["files"].update(more=manifest["files"]["empty"])),
    "another sha256": edited(lambda manifest: manifest["files"]["empty"].update(sha256="0" * 64)),
    "another size": edited(lambda manifest: manifest["files"]["empty"].update(bytes=7)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_and_the_next_writer_replaces_it(damage: Callable[[Path], object]) -> None:
    ref = make()
    damage(ref.folder)
    with pytest.raises((FileNotFoundError, ValueError)):
        ref.verified()
    assert make() == ref
    assert ref.verified() == ref
    assert everything() == ["source/ingest/k1"]


def test_a_consistent_change_of_file_and_manifest_is_told_by_the_reference() -> None:
    ref = make()
    changed = make(content=CONTENT | {"cases.parquet": b"other"})
    assert changed.verified() == changed
    with pytest.raises(ValueError, match="not the one that was referred to"):
        ref.verified()


def test_digest_follows_from_names_and_contents_alone() -> None:
    ref = make()
    backwards = make("k2", dict(reversed(CONTENT.items())), area="shared", stage="other")
    os.utime(backwards.folder / "empty", (0, 0))
    with writing("source", "ingest", "k3") as folder:
        for name, data in CONTENT.items():
            folder.write(name, data)
        folder.summary = {"note": "another"}
    assert ref.digest == backwards.digest == folder.ref.digest
    assert backwards.verified() == backwards
    others = [
        make("k4", {"renamed" if name == "empty" else name: data for name, data in CONTENT.items()}),
        make("k5", CONTENT | {"empty": b"\n"}),
        make("k6", CONTENT | {"more": b""}),
        make("k7", {"cases.parquet": b"cases"}),
        make("k8", {}),
    ]
    assert len({ref.digest, *(other.digest for other in others)}) == 6


def test_digest_is_the_same_in_another_process() -> None:
    program = (
        "from tasks.store import writing\n"
        f"with writing('shared', 'there', 'k9') as folder:\n"
        f"    for name, data in {CONTENT!r}.items(): folder.write(name, data)\n"
        "print(folder.ref.model_dump_json())"
    )
    there = Ref.model_validate_json(in_another_process(program, PYTHONHASHSEED="7"))
    assert there.digest == make().digest
    assert there.verified() == there


WAYS = {
    "one large file": "folder.write('big', bytes(100_000))",
    "many writes": "with folder.open('big') as sink:\n        for _ in range(100): sink.write(bytes(1000))",
    "a table": (
        "with folder.open('deep/t') as sink:\n"
        "        write_table(sink, Finding, [Finding('i', 'n', 'p', 's', os.urandom(100_000))])"
    ),
    "tensors": "save_file({'a': np.zeros(100_000)}, folder.path / 'a.safetensors')",
    "an index": "faiss.write_index(index, str(folder.path / 'a.faiss'))",
    "json": "folder.write_json('big.json', list(range(10_000)))",
    "the manifest itself": "for number in range(60): folder.write(str(number), b'')",
}


def test_no_room_for_a_file_is_a_study_error_that_leaves_nothing() -> None:
    """The system itself refuses: no file of the process may grow beyond 4 kB."""
    program = (
        "import os, resource, signal\n"
        "import faiss\n"
        "import numpy as np\n"
        "from safetensors.numpy import save_file\n"
        "from tasks.errors import StudyError\n"
        "from tasks.records import Finding, write_table\n"
        "from tasks.store import writing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "index = faiss.IndexFlatIP(8)\n"
        "index.add(np.zeros((4096, 8), 'f'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
    )
    for body in WAYS.values():
        program += (
            f"try:\n  with writing('source', 'ingest', 'k1') as folder:\n    {body}\n"
            "except StudyError as error:\n  print(error, error.__suppress_context__)\n"
        )
    said = in_another_process(program).splitlines()
    expected = (
        "Cannot write artifacts/source/ingest/k1: File too large; "
        "free some space or mend the permissions, and run again. True"
    )
    assert dict(zip(WAYS, said, strict=True)) == dict.fromkeys(WAYS, expected)
    assert everything() == []


@pytest.mark.parametrize(
    "options", ["size=256k", "size=64k", "nr_inodes=9"], ids=["small file", "large file", "no inodes"]
)
def test_a_full_disk_is_a_study_error_that_leaves_nothing(options: str) -> None:
    with small_disk(ROOT, options):
        ref = make("k0", {"a": bytes(20_000)})
        with pytest.raises(StudyError, match=r"k1: No space left on device; free some space") as error:
            make("k1", {str(number): bytes(20_000) for number in range(30)})
        assert "artifacts/source/ingest/k1" in str(error.value)
        assert everything() == ["source/ingest/k0"]
        assert ref.verified() == ref
        again = make("k1", {"b": bytes(20_000)})
        assert again.verified() == again


def test_a_read_only_disk_is_a_study_error() -> None:
    with small_disk(ROOT, "size=256k"):
        make()
        subprocess.run(["mount", "-o", "remount,ro", ROOT], check=True)
        with pytest.raises(StudyError, match="Read-only file system; free some space or mend the permissions"):
            make("k2")
        assert everything() == ["source/ingest/k1"]


def test_another_error_of_the_system_is_not_dressed_up() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), writing("source", "ingest", "k1"):
        Path("nowhere").read_bytes()


def hidden(stage: str = "source/ingest") -> list[str]:
    return [path.name for path in (ROOT / stage).glob(".*")]


def test_a_killed_writer_is_cleared_away_by_the_next() -> None:
    program = (
        "import os, signal\nfrom tasks.store import writing\n"
        "with writing('source', 'ingest', 'k1') as folder:\n"
        "    folder.write('deep/a', b'1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    in_another_process(program)
    assert len(hidden()) == 1
    assert not (ROOT / "source/ingest/k1").exists()
    make("k2")
    assert everything() == ["source/ingest/k2"]


def test_a_folder_left_by_an_earlier_process_of_our_number_is_cleared_away() -> None:
    """In a container the first process always has the same number."""
    left = ROOT / "source" / "ingest" / f".k1.0123abcd.{os.getpid()}.tmp"
    left.mkdir(parents=True)
    (left / "a").write_bytes(b"1")
    make("k1")
    assert everything() == ["source/ingest/k1"]


def test_a_living_writer_is_left_alone() -> None:
    program = (
        "from tasks.store import writing\n"
        "with writing('source', 'ingest', 'k1') as folder:\n"
        "    folder.write('a', b'1'); print('ready', flush=True); input()\n"
        "print(folder.ref.model_dump_json())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        make("k2")
        assert len(hidden()) == 1
        said, _ = writer.communicate("\n")
    ref = Ref.model_validate_json(said)
    assert ref.verified() == ref
    assert everything() == ["source/ingest/k1", "source/ingest/k2"]


def test_threads_that_make_the_same_folder_do_not_disturb_each_other() -> None:
    both, refs = threading.Barrier(2, timeout=20), []

    def work() -> None:
        with writing("source", "ingest", "k1") as folder:
            both.wait()
            folder.write("a", b"1")
            both.wait()
        refs.append(folder.ref)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refs) == 2
    assert refs[0] == refs[1] == refs[0].verified()
    assert everything() == ["source/ingest/k1"]


def key(
    stage: str = "train",
    settings: Any = None,
    inputs: tuple[tuple[str, str], ...] = (("shared/adapter/k1", "d1"), ("hospitals/h/cases/k2", "d2")),
    code: str = "c1",
) -> str:
    settings = {"rounds": 3, "rate": 1e-3, "targets": ["q"]} if settings is None else settings
    return stage_key(stage, settings, [Ref(path=path, digest=digest) for path, digest in inputs], code)


def test_key_changes_with_stage_settings_and_inputs() -> None:
    keys = [
        key(),
        key(stage="validate"),
        key(settings={"rounds": 4, "rate": 1e-3, "targets": ["q"]}),
        key(settings={"rounds": "3", "rate": 1e-3, "targets": ["q"]}),
        key(settings={"rounds": 3, "rate": 1e-3}),
        key(settings={}),
        key(inputs=()),
        key(inputs=(("shared/adapter/k1", "d1"),)),
        key(inputs=(("shared/adapter/k1", "d1"), ("hospitals/h/cases/k2", "d3"))),
        key(inputs=(("shared/adapter/k1", "d2"), ("hospitals/h/cases/k2", "d1"))),
        key(inputs=(("hospitals/h/cases/k2", "d2"), ("shared/adapter/k1", "d1"))),
        key(inputs=(("shared/adapter/k1", "d1"), ("hospitals/g/cases/k2", "d2"))),
        key(code="c2"),
    ]
    assert len(set(keys)) == len(keys)


def test_key_ignores_the_order_of_settings_and_the_keys_of_inputs() -> None:
    assert key() == key(settings={"targets": ["q"], "rate": 1e-3, "rounds": 3})
    # Equal content made by other settings is the same input.
    assert key() == key(inputs=(("shared/adapter/other", "d1"), ("hospitals/h/cases/other", "d2")))


@given(st.lists(st.text() | st.integers() | st.booleans(), max_size=4))
def test_derived_seed_is_in_range_and_repeats(parts: list[object]) -> None:
    assert derived_seed(*parts) == derived_seed(*parts)
    assert 0 <= derived_seed(*parts) < 2**31


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_other_parts_give_another_seed(left: list[str], right: list[str]) -> None:
    assert (derived_seed(*left) == derived_seed(*right)) == (left == right)


def test_derived_seed_keeps_its_parts_apart() -> None:
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"), ("a,", "bc"), ('a", "bc',), ("bc", "a"), ("abc", "")]
    assert len({derived_seed(*each) for each in parts}) == len(parts)
    assert len({derived_seed(0, number, hospital) for number in range(30) for hospital in range(30)}) == 900


def test_derived_seed_is_the_same_in_every_process() -> None:
    program = "from tasks.store import derived_seed; print(derived_seed(0, 'round', 3, 'hospital-1'))"
    here = derived_seed(0, "round", 3, "hospital-1")
    assert {int(in_another_process(program, PYTHONHASHSEED=seed)) for seed in ("1", "2")} == {here}
    assert here == 490312527  # written down, so that another version of the project would be noticed


def test_tree_digest_follows_from_names_and_contents(tmp_path: Path) -> None:
    def tree(name: str, content: dict[str, bytes]) -> str:
        for path, data in content.items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return tree_digest(tmp_path / name)

    first = tree("a", {"config.json": b"{}", "deep/weights": b"1"})
    assert tree("b", {"deep/weights": b"1", "config.json": b"{}"}) == first
    others = [
        tree("c", {"config.json": b"{}", "deep/weights": b"2"}),
        tree("d", {"config.json": b"{}", "weights": b"1"}),
        tree("e", {"config.json": b"{}"}),
    ]
    assert len({first, *others}) == 4


def test_tree_digest_follows_links_to_folders_once_round(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/image.png").write_bytes(b"1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "root")
    before = tree_digest(tmp_path / "root")
    (tmp_path / "elsewhere/image.png").write_bytes(b"2")
    assert tree_digest(tmp_path / "root") != before
    (tmp_path / "root/again").symlink_to(tmp_path / "elsewhere")
    found = [path.relative_to(tmp_path).as_posix() for path in store.files_below(tmp_path / "root")]
    assert found == ["root/again/image.png", "root/images/image.png"]
    (tmp_path / "elsewhere/image.png").unlink()
    (tmp_path / "elsewhere/image.png").symlink_to("image.png")  # a link to itself is no file
    assert store.files_below(tmp_path / "root") == []


def test_file_digest_is_plain_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
def test_the_peak_of_a_process_is_its_own_and_not_that_of_its_parent() -> None:
    held = bytearray(b"1") * 2**28
    command = [sys.executable, "-c", "from tasks.store import peak_memory; print(peak_memory())"]
    child = int(subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout)
    assert 2**22 < child < len(held) < store.peak_memory()
