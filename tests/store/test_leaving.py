"""What leaves a hospital is what its stage declared, and docs/privacy.md lists the same."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from test_keys import found_stages
from test_layers import HERE
from typing_extensions import is_typeddict

from tasks.errors import StudyError
from tasks.records.shared_documents import (
    AbstentionDocument,
    GainDocument,
    ScoresDocument,
    SeenDocument,
    UpdateDocument,
)
from tasks.records.shared_files import ADAPTER, FUSION, STATE
from tasks.score.image_sums import sums_schema
from tasks.store import ROOT
from tasks.store.leaving import AdapterConfig, Content, Document, Files, OfPublicData, Table, declared
from tasks.store.stage import Folder, stage

UPDATE = {"hospital": "a", "round": 1, "samples": 9, "loss": 0.5, "steps": 3, "base": "c"}
GAIN = {"hospital": "a", "images": [[3.0, 1.0, 2]], "withheld": False}
SCORES: dict[str, Any] = {
    "hospital": "a",
    "tallies": {
        "fed": {
            "closed": {"n": 1, "correct": 0, "confusion": [["no", "yes", 1]]},
            "open": {"n": 2, "sums": {"f1": 1.5}},
            "choice": {"n": 0, "correct": 0},
        }
    },
    "withheld": {"questions": [], "labels": False, "groups": {}, "by_kind": {}},
}
SEEN_PART = {"n": 9, "seen": None, "identical": None, "at_least": 0}
SEEN = {"hospital": "a", "record": "0", "images": SEEN_PART, "cases": SEEN_PART}
ABSTENTION = {"hospital": "a", "held_out_cases": "withheld", "held_out_images": 7, "images": [], "withheld": ["open"]}


def shared() -> dict[str, Files]:
    """The files of each stage of the project that writes to `shared/`, by name of the stage; some have one name."""
    found: dict[str, Files] = {}
    for _, task in found_stages():
        if task.fn.writes is not None:
            found[task.name] = {**found.get(task.name, {}), **task.fn.writes}
    return found


def problems(content: Content, value: Any, path: Path) -> list[str]:
    path.write_text(json.dumps(value))
    return list(content.undeclared(path))


def changed(document: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a path such as `a.b.0`."""
    copy = json.loads(json.dumps(document))
    *outer, last = where.split(".")
    at = copy
    for name in outer:
        at = at[int(name) if name.isdigit() else name]
    at[last] = value
    return copy


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (UpdateDocument, UPDATE),
        (UpdateDocument, UPDATE | {"loss": None}),
        (GainDocument, GAIN),
        (ScoresDocument, SCORES),
        (SeenDocument, SEEN),
        (AbstentionDocument, ABSTENTION),
    ],
)
def test_a_document_as_declared_passes(kind: type, whole: dict[str, Any], tmp_path: Path) -> None:
    assert problems(Document(kind), whole, tmp_path / "file.json") == []


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (UpdateDocument, UPDATE | {"patient": "Anna"}),
        (UpdateDocument, UPDATE | {"samples": "Anna"}),
        (UpdateDocument, {name: value for name, value in UPDATE.items() if name != "steps"}),
        (UpdateDocument, [UPDATE]),
        (GainDocument, GAIN | {"images": [["Anna"]]}),
        (ScoresDocument, changed(SCORES, "tallies.fed.closed.patient", "Anna")),
        (ScoresDocument, changed(SCORES, "tallies.fed.closed.confusion", [["no", "yes", "Anna"]])),
        (ScoresDocument, changed(SCORES, "tallies.fed.open.sums.f1", "Anna")),
        (ScoresDocument, changed(SCORES, "withheld.case_ids", [])),
        (SeenDocument, changed(SEEN, "images.ids", ["Anna"])),
        (AbstentionDocument, ABSTENTION | {"held_out_cases": "Anna"}),
    ],
)
def test_a_document_with_anything_else_is_refused(kind: type, wrong: Any, tmp_path: Path) -> None:
    found = problems(Document(kind), wrong, tmp_path / "file.json")
    assert len(found) == 1 and "Anna" not in found[0]


NAME = "base_model.model.layers.0.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("name", "kind", "metadata", "sound"),
    [
        (NAME, np.float32, {"format": "pt"}, True),
        (NAME, np.float32, None, True),
        (NAME, np.float32, {"format": "pt", "patient": "Anna"}, False),
        (NAME, np.float32, {"format": "Anna"}, False),
        (NAME, np.uint8, None, False),
        ("Anna Muster", np.float32, None, False),
        (f"{NAME} of Anna", np.float32, None, False),
    ],
)
def test_tensors_are_those_declared(
    name: str, kind: type, metadata: dict[str, str] | None, sound: bool, tmp_path: Path
) -> None:
    save_file({name: np.zeros(2, kind)}, tmp_path / "file.safetensors", metadata)
    assert (list(ADAPTER.undeclared(tmp_path / "file.safetensors")) == []) == sound
    assert list(FUSION.undeclared(tmp_path / "file.safetensors"))  # no adapter's
    with (tmp_path / "file.safetensors").open("ab") as file:
        file.write(b"Anna")
    assert list(ADAPTER.undeclared(tmp_path / "file.safetensors")) == ["no safetensors file"]


def test_a_table_has_its_columns_and_no_more(tmp_path: Path) -> None:
    path, schema = tmp_path / "file.parquet", sums_schema()
    table = Table(schema)
    empty = schema.empty_table()
    noted = empty.replace_schema_metadata({"patient": "Anna"})
    longer = empty.append_column("case_id", pa.array([], pa.string()))
    for written, sound in ((empty, True), (noted, False), (longer, False), (empty.drop_columns(["n"]), False)):
        pq.write_table(written, path)
        assert (list(table.undeclared(path)) == []) == sound
    with pq.ParquetWriter(path, schema) as writer:
        writer.add_key_value_metadata({"patient": "Anna"})
    assert list(table.undeclared(path))
    path.write_bytes(b"Anna")
    assert list(table.undeclared(path)) == ["no Parquet table"]


def test_a_configuration_is_peft_s(tmp_path: Path) -> None:
    from peft import LoraConfig

    found = {name: str(value) for name, value in LoraConfig(r=4).to_dict().items()}
    assert problems(AdapterConfig(), found, tmp_path / "file.json") == []
    assert problems(AdapterConfig(), found | {"patient": "Anna"}, tmp_path / "file.json")
    assert problems(AdapterConfig(), ["Anna"], tmp_path / "file.json") == ["no JSON object"]


def test_names_stand_for_files_of_one_folder() -> None:
    files = {"*/a.json": OfPublicData(), "b-*.json": OfPublicData()}
    assert declared("north/a.json", files) and declared("b-1.json", files)
    assert not any(declared(name, files) for name in ("a.json", "north/x/a.json", "north/b-1.json", "b.json"))
    assert declared("adapter-first-moment.safetensors", STATE) and not declared("cases.safetensors", STATE)


@stage("test-leaving", area="shared", leaves=("counts",), writes={"update.json": Document(UpdateDocument)})
def leave(folder: Folder, extra: str) -> None:
    """Write the declared file, and something else."""
    folder.write_json("update.json", UPDATE | ({"patient": "Anna"} if extra == "field" else {}))
    if extra == "file":
        folder.write("Anna/cases.parquet", b"")
    if extra == "summary":
        folder.summary = {"cases": 3}


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("field", "update.json with values that UpdateDocument has not (extra_forbidden)"),
        ("file", "(update.json), found another file: nothing was stored"),
        ("summary", "a summary in its manifest"),
    ],
)
def test_of_a_stage_that_writes_anything_else_nothing_is_stored(
    extra: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=re.escape(told)) as error:
        leave.fn(extra=extra)
    assert "Anna" not in str(error.value) and "\n" not in str(error.value)
    assert not [path for path in ROOT.rglob("*") if path.is_file()]
    assert leave.fn(extra="nothing").verified().manifest()["leaves"] == ["counts"]


def test_every_stage_in_shared_declares_its_files() -> None:
    """The decorator refuses others; this looks that it saw all of them, and that what leaves is looked into."""
    names = {"update", "updates", "adapter", "secure-mean", "fusion", "fusion-update", "validation", "scores"}
    names |= {"abstention", "failure-counts", "shares", "seen", "gain", "privacy", "privacy-spent", "footprint"}
    names |= {"falsified", "coalitions", "contributions", "hospital", "told-scores", "trained-elsewhere", "used"}
    bases = {"tower", "base", "stage", "radiology", "twin"}
    found = shared()
    assert found.keys() == names | bases
    for name, files in found.items():
        assert files and (name in bases or not any(isinstance(each, OfPublicData) for each in files.values()))


def section() -> str:
    text = (HERE / "docs/privacy.md").read_text(encoding="utf-8")
    return text.split("\n## Field by field\n")[1].split("\n## ")[0]


def quoted(text: str) -> set[str]:
    return {word for span in re.findall(r"`([^`]+)`", text) for word in re.split(r"[^\w.*/-]+", span)}


def test_the_table_of_what_leaves_is_what_stages_declare() -> None:
    rows = [line.split("|") for line in section().splitlines() if line.startswith("| `")]
    listed = {
        folder.removesuffix("/"): set(re.findall(r"`([^`]+)`", files))
        for _, folders, files, *_ in rows
        for folder in re.findall(r"`([^`]+)`", folders)
    }
    assert listed == {name: set(files) for name, files in shared().items()}


def fields_of(kind: Any) -> Iterator[str]:
    """The names of a document's fields, and of those within them."""
    if is_typeddict(kind):
        for name, inner in get_type_hints(kind).items():
            yield name
            yield from fields_of(inner)
    for part in get_args(kind):
        yield from fields_of(part)


def test_every_field_of_what_leaves_is_documented() -> None:
    points = section().split("\n- **")[1:]
    documents = {
        (file.rpartition("/")[2], content.of)
        for files in shared().values()
        for file, content in files.items()
        if isinstance(content, Document)
    }
    assert len(documents) > 10
    for file, kind in documents:
        (point,) = (each for each in points if each.split("**")[0].startswith(f"`{file}`"))
        assert set(fields_of(kind)) <= quoted(point), (file, set(fields_of(kind)) - quoted(point))
    (table,) = (each for each in points if each.startswith("`sums.parquet`"))
    assert {"configuration", "group", "value", "yes", "no", "another"} <= quoted(table)
