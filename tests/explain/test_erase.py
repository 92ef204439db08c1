"""Maps and shares without a patient, against the rows that name nobody who is gone."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.cases.erasure import Patient
from tasks.explain.erase import ERASERS, erase_saliency
from tasks.records import Saliency, Share, read_table, write_table
from tasks.store import ROOT, find, revising, writing

MAP = Saliency("c0", "occlusion", None, None, None, "i0", None, 1, 1, (0.5,), (0.0, 0.0, 8.0, 8.0))
SHARE = Share("c0", "occlusion", None, None, None, "question", 1.0)


def test_maps_of_a_patients_images_go_wherever_they_were_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    maps = [MAP, replace(MAP, case_id="c1", image_id="i1"), replace(MAP, case_id="c1", rank=0)]
    with writing("hospitals/a", "saliency", "0") as folder:
        with folder.open("saliency.parquet") as sink:
            write_table(sink, Saliency, maps)
        with folder.open("shares.parquet") as sink:
            write_table(sink, Share, [SHARE, replace(SHARE, case_id="c1")])
    path = folder.ref.path
    with revising(path) as folder:
        counts = erase_saliency(ROOT / path, folder, Patient(frozenset({"c0"}), frozenset({"i0"})))
    assert counts == {"maps": 2, "shares": 1} and ERASERS["saliency"] is erase_saliency
    assert read_table(ROOT / path / "saliency.parquet", Saliency) == maps[1:2]
    assert read_table(ROOT / path / "shares.parquet", Share) == [replace(SHARE, case_id="c1")]
    find(path).verified()
