"""A study of many hospitals and rounds: Prefect's record keeps up with it, and the dashboard shows all of it."""

import threading
from pathlib import Path

import pytest
from command import COMMAND, Server, run

HOSPITALS, ROUNDS = 64, 20
SETTINGS = (
    f"partition.hospitals={HOSPITALS}", "partition.scheme=iid", f"federation.rounds={ROUNDS}", "dataset.images=80",
    "evaluation.reliance=0", "evaluation.saliency=0", "evaluation.max_new_tokens=4", "evaluation.min_cell=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_the_record_keeps_up_with_64_hospitals_in_20_rounds(database: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    server = Server(tmp_path / "prefect", database)
    ended, behind = threading.Event(), list[int]()

    def watch() -> None:
        while not ended.wait(5):
            finished = len(list(tmp_path.glob("artifacts/shared/update/[!.]*/manifest.json")))
            names = {"task_runs": {"name": {"like_": "train "}, "state": {"type": {"any_": ["COMPLETED"]}}}}
            behind.append(finished - server.post("task_runs/count", names))

    watching = threading.Thread(target=watch)
    try:
        server.wait()
        watching.start()
        words = [word for each in (f"model.name={tiny_folder}", *SETTINGS) for word in ("--set", each)]
        done = run(server, tmp_path, [str(COMMAND), "run", *words])
    finally:
        ended.set()
        watching.join()
        server.await_records()
        parts = server.parts_of(server.newest_run()["id"])
        server.stop()
    assert done.returncode == 0, done.stderr
    assert sum(part["name"].startswith("round") for part in parts) == ROUNDS
    assert max(behind) <= 2 * HOSPITALS
