"""Multiple choice: OmniMedVQA and PMC-VQA in their published layouts, drawn here."""

import csv
from pathlib import Path
from typing import Any

import pytest
from ingest_samples import picture, write_bytes, write_json

from tasks.errors import StudyError
from tasks.ingest import omnimedvqa, pmc_vqa
from tasks.ingest.choices import choose
from tasks.ingest.rows import Row


def omni_row(number: int, **fields: Any) -> dict[str, Any]:
    row = {
        "dataset": "ACRIMA",
        "question_id": f"ACRIMA_{number:04}",
        "question_type": "Modality Recognition",
        "question": "What imaging technique was employed to obtain this picture?",
        "gt_answer": "Fundus imaging",
        "image_path": f"Images/ACRIMA/Im{number}_g_ACRIMA.png",
        "option_A": "PET scan",
        "option_B": "CT scan",
        "option_C": "Blood test",
        "option_D": "Fundus imaging",
        "modality_type": "Fundus Photography",
    }
    return row | fields


def write_omni(root: Path, images: int = 3, **files: list[dict[str, Any]]) -> Path:
    for name, rows in files.items():
        access = "Restricted-access" if name.startswith("restricted") else "Open-access"
        write_json(root / "QA_information" / access / f"{name}.json", rows)
    for number in range(images):
        write_bytes(root / "Images" / "ACRIMA" / f"Im{number}_g_ACRIMA.png", picture(number))
    return root


def pmc_row(number: int, **fields: Any) -> dict[str, Any]:
    row = {
        "Figure_path": f"PMC{number}_F1.jpg",
        "Question": "What is the uptake pattern in the breast? ",
        "Answer": "Focal uptake pattern",
        "Choice A": " A:Diffuse uptake pattern ",
        "Choice B": " B:Focal uptake pattern ",
        "Choice C": " C:No uptake pattern ",
        "Choice D": " D:Cannot determine from the information given ",
        "Answer_label": "B",
    }
    return row | fields


def write_pmc(root: Path, folder: str = "images", **files: list[dict[str, Any]]) -> Path:
    for name, rows in files.items():
        root.mkdir(parents=True, exist_ok=True)
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as sink:
            table = csv.DictWriter(sink, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    for number in range(3):
        write_bytes(root / folder / f"PMC{number}_F1.jpg", picture(number, form="JPEG"))
    return root


def read_choice(options: list[str | None], gold: str) -> tuple[tuple[str, ...], str]:
    return choose(Row(Path("f"), 1, {}), options, gold)


def test_options_keep_their_order_and_lose_their_repetitions() -> None:
    assert read_choice(["No.", "Yes", None, "no"], "NO") == (("No.", "Yes"), "No.")
    assert read_choice(["b", "a"], "A.") == (("b", "a"), "a")


def test_the_gold_answer_is_a_text_or_a_letter_by_its_place() -> None:
    assert read_choice(["C. albicans", "E. coli"], "E. coli") == (("C. albicans", "E. coli"), "E. coli")
    assert read_choice(["MRI", "mri", None, "CT"], "D") == (("MRI", "CT"), "CT")
    assert read_choice(["A. MRI", "B. CT"], "B") == (("MRI", "CT"), "CT")
    assert read_choice(["T2", "T2*"], "T2*") == (("T2", "T2*"), "T2*")


def test_gold_answer_outside_the_options_and_too_few_options_are_refused() -> None:
    with pytest.raises(StudyError, match="f, row 1: expected the answer among the options, found 'c'"):
        read_choice(["a", "b"], "c")
    with pytest.raises(StudyError, match="f, row 1: expected at least 2 options, found 1"):
        read_choice(["a", "A.", None], "a")


def test_omnimedvqa_row_becomes_a_closed_case(tmp_path: Path) -> None:
    (case,) = omnimedvqa.read(write_omni(tmp_path, ACRIMA=[omni_row(0)])).cases
    assert (case.id, case.image_id) == ("omnimedvqa:ACRIMA_0000", "ACRIMA/Im0_g_ACRIMA.png")
    assert (case.kind, case.answer, case.split) == ("closed", "Fundus imaging", "train")
    assert case.options == ("PET scan", "CT scan", "Blood test", "Fundus imaging")
    assert (case.modality, case.topic) == ("fundus photography", "Modality Recognition")


def test_omnimedvqa_traps(tmp_path: Path) -> None:
    two = omni_row(1, gt_answer="no", option_A="Yes.", option_B="No.")
    del two["option_C"], two["option_D"]
    other = omni_row(2, modality="CT(Computed Tomography)", gt_answer="ct SCAN.", option_A="CT scan")
    del other["modality_type"]
    source = omnimedvqa.read(write_omni(tmp_path, a=[omni_row(0)], b=[two, other]))
    cases = {case.id.split("_")[-1]: case for case in source.cases}
    assert (cases["0001"].options, cases["0001"].answer) == (("Yes.", "No."), "No.")
    assert cases["0002"].modality == "ct"
    assert (cases["0002"].options, cases["0002"].answer) == (("CT scan", "Blood test", "Fundus imaging"), "CT scan")


def test_omnimedvqa_reads_every_file_of_both_folders(tmp_path: Path) -> None:
    missing = omni_row(3, image_path="Images/Restricted/x.png")
    root = write_omni(tmp_path, a=[omni_row(0)], b=[omni_row(1)], restricted=[omni_row(2), missing])
    source = omnimedvqa.read(root)
    assert [case.id[-4:] for case in source.cases] == ["0000", "0001", "0002"]
    assert source.notes == {"restricted rows left out whose image is not there": 1}
    with pytest.raises(StudyError, match=r"c.json, row 1, image .*: expected a whole image, found no such file"):
        omnimedvqa.read(write_omni(root, c=[omni_row(4, image_path="Images/gone.png")]))


def test_pmc_vqa_row_becomes_a_closed_case(tmp_path: Path) -> None:
    root = write_pmc(tmp_path, train=[pmc_row(0), pmc_row(1)], test=[pmc_row(2)])
    source = pmc_vqa.read(root, name="pmc-vqa")
    assert [(case.id, case.split) for case in source.cases] == [
        ("pmc-vqa:train:0", "train"),
        ("pmc-vqa:train:1", "train"),
        ("pmc-vqa:test:0", "test"),
    ]
    case = source.cases[0]
    assert (case.image_id, case.group, case.answer) == ("PMC0_F1", "PMC0", "Focal uptake pattern")
    assert case.options[0] == "Diffuse uptake pattern"
    assert len(case.options) == 4


def test_pmc_vqa_version_two_has_its_own_files_and_columns(tmp_path: Path) -> None:
    rows = [{"index": n, **pmc_row(n), "Caption": "a, b", "split": "train"} for n in range(2)]
    for row in rows:
        del row["Answer_label"]
    rows[1]["Answer"] = "C"  # by its letter
    root = write_pmc(write_pmc(tmp_path, train=[pmc_row(2)]), "images_2", train_2=rows)
    source = pmc_vqa.read(root, name="pmc-vqa-v2")
    assert [case.answer for case in source.cases] == ["Focal uptake pattern", "No uptake pattern"]
    assert {case.dataset for case in source.cases} == {"pmc-vqa-v2"}
    assert len(pmc_vqa.read(root, name="pmc-vqa").cases) == 1


def test_pmc_vqa_wrong_rows_are_rejected_with_file_and_row(tmp_path: Path) -> None:
    rows = [pmc_row(0), pmc_row(1, Answer_label="E"), pmc_row(1, **{"Choice B": "", "Answer_label": "B"}), pmc_row(9)]
    source = pmc_vqa.read(write_pmc(tmp_path, train=rows), name="pmc-vqa", max_rejected=0.75)
    assert [(each.file, each.row) for each in source.rejected] == [("train.csv", 2), ("train.csv", 3), ("train.csv", 4)]
    assert [each.reason.split(",")[0] for each in source.rejected] == [
        "expected a label that names a choice",
        "expected a label that names a choice",
        "expected a whole image",
    ]
