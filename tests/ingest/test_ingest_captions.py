"""Datasets of captions: ROCO and ROCOv2 in their published layouts, drawn here; MedPix 2.0 as it really is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_samples import picture, real, write_bytes, write_json

from tasks.errors import StudyError
from tasks.ingest import medpix, roco, rocov2
from tasks.ingest.source import Source


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_roco(root: Path) -> Path:
    for split, number in (("train", 1), ("validation", 2), ("test", 3)):
        folder = root / "data" / split / "radiology"
        write_text(folder / "captions.txt", f"ROCO_0000{number}\t Axial MRI (coronal view).\n")
        write_bytes(folder / "images" / f"ROCO_0000{number}.jpg", picture(number, form="JPEG"))
    write_text(root / "data" / "train" / "non-radiology" / "captions.txt", "ROCO_00009\t A photograph.\n")
    return root


def write_rocov2(root: Path) -> Path:
    for name, number in (("train", 1), ("valid", 2), ("test", 3)):
        image = f"ROCOv2_2023_{name}_00000{number}"
        write_text(root / f"{name}_captions.csv", f'ID,Caption\n{image},"CT, chest ""a"""\n')
        write_text(root / f"{name}_concepts.csv", f"ID,CUIs\n{image},C0817096;C0040405\n")
        write_bytes(root / name / f"{image}.jpg", picture(number, form="JPEG"))
    return root


@pytest.mark.parametrize("nested", ["", "data"])
def test_roco_lines_become_captions(tmp_path: Path, nested: str) -> None:
    source = roco.read(write_roco(tmp_path) / nested)
    assert [(each.image_id, each.split) for each in source.captions] == [
        ("ROCO_00001", "train"),
        ("ROCO_00002", "validation"),
        ("ROCO_00003", "test"),
    ]
    assert {each.text for each in source.captions} == {"Axial MRI (coronal view)."}
    assert len(source.images) == 3
    assert source.cases == []


def test_roco_links_name_the_image_and_its_article(tmp_path: Path) -> None:
    folder = write_roco(tmp_path) / "data" / "train" / "radiology"
    link = "wget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/0a/1b/PMC4083729.tar.gz -O x"
    write_text(folder / "dlinks.txt", f"ROCO_00001\t{link}\tAMHSR-4-14-g002.jpg\n")
    write_bytes(folder / "images" / "PMC4083729_AMHSR-4-14-g002.jpg", picture(9, form="JPEG"))
    source = roco.read(tmp_path)
    assert source.captions[0].group == "PMC4083729"
    assert source.images[0].data == picture(9, form="JPEG")


def test_roco_wrong_lines_are_rejected(tmp_path: Path) -> None:
    path = write_roco(tmp_path) / "data" / "train" / "radiology" / "captions.txt"
    path.write_bytes(path.read_bytes() + b"ROCO_00001\t again\n\nROCO_00004\nROCO_00005\t \xff\nROCO_00006\t gone\n")
    source = roco.read(tmp_path, max_rejected=0.9)
    assert [(each.file, each.row, each.reason.split(",")[0]) for each in source.rejected] == [
        ("train/radiology/captions.txt", 2, "expected an id of its own"),
        ("train/radiology/captions.txt", 3, "expected text in field 'caption'"),
        ("train/radiology/captions.txt", 4, "expected text in UTF-8"),
        ("train/radiology/captions.txt", 5, "expected a whole image"),
    ]


def test_rocov2_rows_become_captions_with_their_modality(tmp_path: Path) -> None:
    source = rocov2.read(write_rocov2(tmp_path))
    assert [each.split for each in source.captions] == ["train", "validation", "test"]
    assert {(each.text, each.modality) for each in source.captions} == {('CT, chest "a"', "ct")}


def test_rocov2_wrong_rows_of_either_file_are_rejected(tmp_path: Path) -> None:
    root = write_rocov2(tmp_path)
    for name in ("train_captions.csv", "train_concepts.csv"):
        write_text(root / name, (root / name).read_text() + "ROCOv2_2023_train_000009,a,b\n")
    source = rocov2.read(root, max_rejected=0.5)
    assert [(each.file, each.row, each.reason) for each in source.rejected] == [
        ("train_concepts.csv", 2, "expected 2 cells, found 3"),
        ("train_captions.csv", 2, "expected 2 cells, found 3"),
    ]
    (root / "train_concepts.csv").unlink()
    assert rocov2.read(root, max_rejected=0.5).captions[0].modality is None


def test_rocov2_in_the_hugging_face_layout(tmp_path: Path) -> None:
    columns = {
        "image": [{"bytes": picture(1), "path": None}],
        "image_id": ["ROCOv2_2023_train_000001"],
        "caption": ["A chest x-ray."],
        "cui": [["C1306645"]],
    }
    pq.write_table(pa.table(columns), tmp_path / "train-00000-of-00001.parquet")
    (caption,) = rocov2.read(tmp_path).captions
    assert (caption.image_id, caption.modality) == ("ROCOv2_2023_train_000001", "x-ray")


@pytest.fixture(scope="module")
def medpix_source() -> Source:
    return medpix.read(real("medpix-2.0"))


def described() -> pd.DataFrame:
    rows = json.loads((real("medpix-2.0") / "MedPix-2-0" / "Descriptions.json").read_text(encoding="utf-8"))
    return pd.json_normalize(rows).set_index("image")


def test_real_medpix_counts(medpix_source: Source) -> None:
    table = described()
    captioned = table[~table["Description.Caption"].str.startswith("Replace this")]
    lists = json.loads((real("medpix-2.0") / "MedPix-2-0/splitted_dataset/uid_list.json").read_text(encoding="utf-8"))
    assert {each.image_id for each in medpix_source.captions} == set(captioned.index)
    assert len(medpix_source.images) == len(captioned) == 1829
    assert medpix_source.notes == {"images without a caption of their own left out": 21}
    assert Counter(each.modality for each in medpix_source.captions) == Counter(
        captioned["Type"].map({"CT": "ct", "MR": "mri"})
    )
    splits = Counter("validation" if case in lists["dev"] else "train" for case in captioned["U_id"])
    assert Counter(each.split for each in medpix_source.captions) == splits == {"train": 1638, "validation": 191}


def test_real_medpix_captions_agree_with_the_file(medpix_source: Source) -> None:
    table = described()
    for caption in medpix_source.captions:
        row = table.loc[caption.image_id]
        assert caption.text.startswith(" ".join(row["Description.Caption"].split()))
        assert " Diagnosis: " in caption.text
        assert (caption.group, caption.age or "0") == (row["U_id"], row["Description.Age"])
        assert "Diagnosis: Diagnosis" not in caption.text
        assert (caption.organ or "bethesda, md") == row["Location"].lower()
        assert caption.sex == {"N/A": None}.get(row["Description.Sex"], row["Description.Sex"])
    assert sum(caption.sex is None for caption in medpix_source.captions) > 0
    assert len({caption.text for caption in medpix_source.captions}) < 1829  # many repeat


def medpix_row(number: int, **fields: Any) -> dict[str, Any]:
    known = {"Age": "73", "Sex": "N/A", "Plane": None, "Caption": "pelvis"} | fields
    return {"Type": "MR", "U_id": "MPX1", "image": f"MPX1_synpic{number}", "Description": known, "Location": "Chest"}


def write_medpix(root: Path, rows: list[dict[str, Any]]) -> Path:
    write_json(root / "Descriptions.json", rows)
    cases = [f"MPX{number}" for number in range(1, 4)]
    write_json(root / "Case_topic.json", [{"U_id": case, "Case": {"Case Diagnosis": "Cyst."}} for case in cases])
    write_text(root / "splitted_dataset" / "data_train.jsonl", "".join(f'{{"U_id": "{case}"}}\n' for case in cases))
    for number in range(3):
        write_bytes(root / "images" / f"MPX1_synpic{number}.png", picture(number))
    return root


def test_medpix_fillers_are_not_stated(tmp_path: Path) -> None:
    rows = [medpix_row(0, Age="0") | {"Location": "Bethesda, MD"}, medpix_row(1)]
    root = write_medpix(tmp_path, rows)
    cases = [{"U_id": f"MPX{number}", "Case": {"Case Diagnosis": "Diagnosis: Cyst"}} for number in range(1, 4)]
    write_json(root / "Case_topic.json", cases)
    first, second = medpix.read(root).captions
    assert (first.age, first.organ, second.age, second.organ) == (None, None, "73", "chest")
    assert second.text == "pelvis. Diagnosis: Cyst."


def test_medpix_traps(tmp_path: Path) -> None:
    rows = [medpix_row(0), medpix_row(1, Caption=medpix.PLACEHOLDER), medpix_row(2) | {"U_id": "MPX9"}]
    source = medpix.read(write_medpix(tmp_path, rows), max_rejected=0.5)
    (caption,) = source.captions
    assert (caption.text, caption.sex, caption.plane, caption.group) == ("pelvis. Diagnosis: Cyst.", None, None, "MPX1")
    assert source.notes == {"images without a caption of their own left out": 1}
    assert [(each.row, each.reason[:27]) for each in source.rejected] == [(3, "expected a case of Case_top")]
    with pytest.raises(StudyError, match=r"1 of 3 rows are unusable, more than dataset.max_rejected=0 allows"):
        medpix.read(tmp_path, max_rejected=0)
