"""Every record class as a Parquet table: what was written comes back, for us and for those who open it elsewhere."""

import io
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.records import (
    BATCH,
    Caption,
    Case,
    Finding,
    Image,
    Neighbour,
    Prediction,
    Synthetic,
    UpdateCounts,
    among,
    read_images,
    read_table,
    schema,
    write_table,
)

RECORDS = (Case, Image, Caption, Synthetic, Finding, Neighbour, UpdateCounts, Prediction)
OPTIONAL = {
    Prediction: {"confidence"},
    Case: {"modality", "organ", "topic", "group", "site"},
    Caption: {"modality", "plane", "organ", "sex", "age", "group", "site"},
}

# What Parquet can hold: Unicode text without lone surrogates, 64-bit integers, any number but NaN (unequal to itself).
BY_TYPE: dict[type, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(codec="utf-8"), max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=8),
    type(None): st.none(),
}

CASE = Case("d:1", "i1", "where is it?", "left", "open", "train", "d", "en")
EXAMPLES = {
    Case: CASE,
    Image: Image("i1", b"\x89PNG", 4, 3),
    Caption: Caption("i1", "A chest x-ray.", "train", "d", "en"),
    Synthetic: Synthetic("d:synthetic:i1:0", "caption", 2, 13, "chest x-ray", "rules"),
    Finding: Finding("i1", "mass", "upper left", "small", b"\x89PNG"),
    Neighbour: Neighbour("d:1", 0, "d:2", 0.5),
    UpdateCounts: UpdateCounts("hospital-1", 1, 20, 0.25, 3, "0a1b"),
    Prediction: Prediction("fed+rag", "d:1", "hospital-1", "open", "where?", "left", "right", ("d:2", "d:3"), (), 0.5),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of one annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(BY_TYPE[arguments[0]], max_size=3).map(tuple)
    return st.one_of(BY_TYPE[each] for each in arguments or (hint,))


def rows_of(record: Any) -> st.SearchStrategy[list[Any]]:
    hints = get_type_hints(record)
    return st.lists(st.builds(record, **{name: values_of(hint) for name, hint in hints.items()}), max_size=20)


def write(path: Path, record: Any, rows: Sequence[Any]) -> Path:
    with path.open("wb") as sink:
        write_table(sink, record, rows)
    return path


@pytest.mark.parametrize("record", RECORDS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read_in_its_order(record: Any, tmp_path: Path, data: st.DataObject) -> None:
    rows = data.draw(rows_of(record))
    assert read_table(write(tmp_path / "rows.parquet", record, rows), record) == rows


@pytest.mark.parametrize("record", RECORDS)
def test_an_empty_table_keeps_its_columns(record: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", record, [])
    assert read_table(path, record) == []
    assert pq.read_schema(path).names == [field.name for field in fields(record)]


@pytest.mark.parametrize("record", RECORDS)
def test_same_rows_give_the_same_bytes(record: Any) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for sink in (first, second):
        write_table(sink, record, [EXAMPLES[record]] * 3)
    assert first.getvalue() == second.getvalue()


@pytest.mark.parametrize("record", RECORDS)
def test_pandas_opens_it(record: Any, tmp_path: Path) -> None:
    frame = pd.read_parquet(write(tmp_path / "rows.parquet", record, [EXAMPLES[record]] * 2))
    assert len(frame) == 2
    for name, value in asdict(EXAMPLES[record]).items():
        found = frame[name][1]
        assert pd.isna(found) if value is None else (tuple(found) if isinstance(value, tuple) else found) == value


@pytest.mark.parametrize("record", RECORDS)
def test_datasets_opens_it(record: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    path = write(tmp_path / "rows.parquet", record, [EXAMPLES[record]] * 2)
    table = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"), keep_in_memory=True)
    expected = asdict(EXAMPLES[record])
    assert table[1] == {name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()}


@pytest.mark.parametrize("record", RECORDS)
def test_only_optional_columns_are_nullable(record: Any, tmp_path: Path) -> None:
    assert {field.name for field in schema(record) if field.nullable} == OPTIONAL.get(record, set())
    path = write(tmp_path / "rows.parquet", record, [EXAMPLES[record]])
    assert pq.read_schema(path).equals(schema(record))


@pytest.mark.parametrize(("record", "name"), [(record, field.name) for record in RECORDS for field in fields(record)])
def test_none_is_written_only_where_it_is_optional(record: Any, name: str, tmp_path: Path) -> None:
    values = [getattr(EXAMPLES[record], field.name) for field in fields(record)]
    values[[field.name for field in fields(record)].index(name)] = None
    row = record(*values)
    if name in OPTIONAL.get(record, set()):
        assert read_table(write(tmp_path / "rows.parquet", record, [row]), record) == [row]
    else:
        with pytest.raises(ValueError, match=f"Expected a {name} in every {record.__name__}"):
            write(tmp_path / "rows.parquet", record, [row])


@pytest.mark.parametrize("record", RECORDS)
def test_a_value_of_another_type_is_refused(record: Any) -> None:
    first = fields(record)[0].name
    values = {field.name: getattr(EXAMPLES[record], field.name) for field in fields(record)} | {first: 7}
    with pytest.raises(pa.ArrowException):
        write_table(io.BytesIO(), record, [record(**values)])


@pytest.mark.parametrize("record", RECORDS)
def test_columns_that_do_not_fit_are_refused(record: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", record, [EXAMPLES[record]])
    table = pq.read_table(path)
    changed = {
        "missing": table.drop_columns([table.column_names[-1]]),
        "missing optional": table.drop_columns([next(iter(OPTIONAL.get(record, {table.column_names[0]})))]),
        "extra": table.append_column("extra", pa.array(["x"])),
        "renamed": table.rename_columns(["other", *table.column_names[1:]]),
        "retyped": table.set_column(0, table.field(0).with_type(pa.binary()), table.column(0).cast(pa.binary())),
        "in another order": table.select(table.column_names[::-1]),
        "of another record": pq.read_table(write(path, *example_beside(record))),
    }
    for what, wrong in changed.items():
        pq.write_table(wrong, path)
        with pytest.raises(ValueError, match=f"Expected the columns of {record.__name__}"):
            pytest.fail(f"{what}: {read_table(path, record)}")


def example_beside(record: Any) -> tuple[Any, list[Any]]:
    other = RECORDS[RECORDS.index(record) - 1]
    return other, [EXAMPLES[other]]


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "site=1" / "colour=2"
    folder.mkdir(parents=True)
    assert read_table(write(folder / "cases.parquet", Case, [CASE]), Case) == [CASE]


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "absent.parquet", Case)


def test_a_cut_table_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "cases.parquet", Case, [CASE])
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(pa.ArrowInvalid):
        read_table(path, Case)


@pytest.mark.parametrize("record", RECORDS)
def test_records_are_frozen_and_hashable(record: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(EXAMPLES[record], fields(record)[0].name, "other")
    assert len({EXAMPLES[record], EXAMPLES[record]}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_wanted_images_and_cases_are_those_of_all_that_have_these_names(seed: int, tmp_path: Path) -> None:
    draw = Random(seed)
    images = [Image(f"i{number}", bytes([number]), 1, 1) for number in range(3 * BATCH - 7)]
    with (tmp_path / "images").open("wb") as sink:
        write_table(sink, Image, images)
    wanted = {each.id for each in draw.sample(images, 3)} | {"unknown"}
    assert list(read_images(tmp_path / "images", wanted)) == [each for each in images if each.id in wanted]
    assert list(read_images(tmp_path / "images", set())) == []
    found = read_table(tmp_path / "images", Image, among("id", wanted))
    assert found == [each for each in images if each.id in wanted]
    assert read_table(tmp_path / "images", Image, among("id", [])) == []
