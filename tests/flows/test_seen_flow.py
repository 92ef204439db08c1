"""A base that was trained on test images: the audit, a study and a comparison say so, and nothing is trained anew."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command import COMMAND, Server, run

from tasks.cases.seen import join, seen_images
from tasks.engine.identity import RECORD
from tasks.records import Case, SeenImage, read_images, read_table, write_table

STUDY = (
    "dataset.images=8",
    "federation.rounds=1",
    "partition.hospitals=2",
    "evaluation.max_new_tokens=4",
    "evaluation.reliance=0",
    "evaluation.saliency=0",
    "evaluation.min_cell=1",
)


def called(server: Server, folder: Path, command: str, *settings: str) -> str:
    """What the command prints, as one line."""
    words = [word for each in settings for word in ("--set", each)]
    done = run(server, folder, [str(COMMAND), command, *words])
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.slow
def test_what_the_base_has_seen_is_told_wherever_scores_are(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    study = (*STUDY, f"model.name={base}")
    assert "whether it has seen test images is unknown" in called(server, tmp_path, "audit", *study)
    assert "was trained on" not in called(server, tmp_path, "run", *study)
    assert json.loads((tmp_path / "artifacts/latest/results.json").read_text())["seen"] is None

    ingested = (path.parent for path in tmp_path.glob("artifacts/source/ingest/*/cases.parquet"))
    split = {
        each: {case.image_id for case in read_table(each / "cases.parquet", Case) if case.split == "test"}
        for each in ingested
    }
    (dataset,) = (each for each, images in split.items() if images)  # the negative control has no test images
    tested = sorted(split[dataset])
    half = dict.fromkeys(tested[::2], "phantom")
    with (base / RECORD).open("wb") as sink:
        write_table(sink, SeenImage, join(seen_images(read_images(dataset / "images.parquet"), half)))

    stages = set((tmp_path / "artifacts").glob("*/*/*")) | set((tmp_path / "artifacts/hospitals").glob("*/*/*"))
    # Drawn images are much alike, so more may count as seen than were.
    sentence = re.compile(
        rf"The base was trained on (\d) of the {len(tested)} test images.*?no measure of new images\."
    )
    printed = [called(server, tmp_path, "audit", *study), called(server, tmp_path, "run", *study)]
    counts = {int(count) for each in printed for count in sentence.findall(each)}
    (count,) = counts
    assert count >= len(half)
    run_folder = (tmp_path / "artifacts/latest").resolve()
    seen = json.loads((run_folder / "results.json").read_text())["seen"]
    assert (seen["images"]["seen"], seen["images"]["identical"]) == (count, len(half))
    for name in ("results.md", "card.md", "report.html"):
        assert sentence.search((run_folder / name).read_text())
    made = set((tmp_path / "artifacts").glob("*/*/*")) | set((tmp_path / "artifacts/hospitals").glob("*/*/*"))
    assert {path.parent.name for path in made - stages if path.is_dir()} == {"seen", "audit-seen"}

    settings = [f"study.{each}" for each in study]
    printed.append(called(server, tmp_path, "compare", *settings, "seeds=[0]", "configurations={fed+rag: {}}"))
    assert sentence.search(printed[-1])
    tables = (tmp_path / "artifacts/comparisons/comparison/comparison.md").read_text().split("\n## ")
    assert all(sentence.search(each) or each.startswith("What it took") for each in tables)
