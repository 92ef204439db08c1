"""The whole study as a user runs it: the command, against a real Prefect server on loopback."""

import base64
import csv
import io
import json
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pyarrow.parquet as pq
import pytest
from command import COMMAND, GIVEN, SHELL, Server, hear_ctrl_c, launcher, run, seconds_in, shell
from dicom_samples import CANARY, dicom
from ingest_samples import picture, write_bytes
from test_ingest_choices import omni_row, write_omni
from traces import Traces

from flows.interrupt import MESSAGE
from flows.serve.explainer import Wanted, explain_case, explain_image, methods_of
from tasks.engine.identity import identify
from tasks.errors import StudyError
from tasks.records import Case, FailureModes, Prediction, Saliency, Share, read_table


def arguments(model: Path, *more: str) -> list[str]:
    """Of so few images nothing would be told, had it to be of five cases."""
    settings = (f"model.name={model}", "dataset.images=10", "federation.rounds=2", "partition.hospitals=3")
    few = ("evaluation.max_new_tokens=4", "evaluation.min_cell=1", "evaluation.saliency=2", "evaluation.reliance=6")
    return [str(COMMAND), "run"] + [word for each in (*settings, *few, *more) for word in ("--set", each)]


LOSSES = ("update.json", "round.json", "validation.json")
"""What holds losses of a round."""
UNEXPLAINED = ("evaluation.reliance=0", "evaluation.saliency=0")
"""Where a test looks at adapters alone: to alter and explain answers takes half of such a study's time."""


def newest(folder: Path) -> Path:
    return (folder / "artifacts/latest").resolve()


def final_adapter(run: Path) -> bytes:
    references = json.loads((run / "references.json").read_text())
    return (run.parents[1] / references["adapter"] / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def first_run(server: Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Tests that run again beside it must not ask for the newest one afterwards."""
    folder = tmp_path_factory.mktemp("study")
    result = run(server, folder, arguments(tiny_folder))
    assert result.returncode == 0, result.stderr
    assert not re.search("Loading weights|model shards", result.stderr)  # the libraries' own bars
    return newest(folder)


@pytest.fixture
def finished(first_run: Path) -> Path:
    """The folder in which that run was made."""
    return first_run.parents[2]


def test_a_study_leaves_results_of_the_documented_shape(first_run: Path, finished: Path, tiny_folder: Path) -> None:
    results = json.loads((first_run / "results.json").read_text())
    base = {"name": str(tiny_folder), "revision": None}
    assert results["model"] == base | {"content": identify(str(tiny_folder), None)}
    assert base.items() <= json.loads((first_run / "settings.json").read_text())["model"].items()
    assert set(results["configurations"]) == {"fed+rag"}
    assert set(results["baselines"]) == {"base", "majority", "question_only", "image_and_question", "copy_nearest"}
    everything = results["configurations"]["fed+rag"]
    assert set(everything["closed"]) == {"n", "accuracy", "f1_macro"}
    assert set(everything["open"]) == {"n", "exact_match", "bleu", "rouge_l", "token_recall", "f1"}
    assert set(everything["hospitals"]) == {"hospital-1", "hospital-2", "hospital-3"}
    assert sum(each["closed"]["n"] for each in everything["hospitals"].values()) == everything["closed"]["n"]
    assert [row["round"] for row in results["rounds"]] == [1, 2]
    assert all(row["train_loss"] > 0 and row["eval_loss"] > 0 for row in results["rounds"])
    assert results["peak_memory_bytes"] > 0
    assert results["split"]["disjoint"] == "none"
    assert results["split"]["published_split_shares"]["same_image"] == 0
    assert results["split"]["control"]["dataset"] == "phantom-public"
    assert {"ingest", "audit", "partition", "update", "predictions"} <= set(results["timings_s"])
    for hospital in everything["hospitals"]:
        assert list((finished / "artifacts/hospitals" / hospital / "predictions").glob("*/predictions.parquet"))


def test_times_are_of_all_that_a_run_was_made_from(first_run: Path, finished: Path) -> None:
    """In a store where nothing was before, each folder is of this run: none of them is missed, none counted twice."""
    timings = json.loads((first_run / "results.json").read_text())["timings_s"]
    assert timings == pytest.approx(seconds_in(finished / "artifacts"))


def test_what_leaves_a_hospital_is_what_its_stage_declares(finished: Path) -> None:
    """By the files: tensors that were made of a hospital's folders, and documents with losses."""
    for path in (finished / "artifacts/shared").glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        learned = bool(manifest["inputs"]) and any(name.endswith(".safetensors") for name in manifest["files"])
        assert ("tensors" in manifest["leaves"]) == learned, path
        documents = "".join(each.read_text() for each in path.parent.rglob("*.json") if each.name in LOSSES)
        assert ("losses" in manifest["leaves"]) == ("loss" in documents), path
        assert bool(manifest["leaves"]) == bool(manifest["inputs"]), path


def test_commands_have_what_a_shell_has_and_nothing_of_this_process(
    server: Server, first_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    assert "TRANSFORMERS_VERBOSITY" not in shell()
    expected = {*SHELL, *GIVEN}
    given = [psutil.Process(each.process.pid).environ() for each in (launcher(), server)]
    assert [{name for name in each if not name.startswith("PREFECT_")} - expected for each in given] == [set(), set()]
    assert {name for name in server.environment if name.startswith("PREFECT_")} == {"PREFECT_API_URL", "PREFECT_HOME"}


def test_failure_modes_are_shared_as_counts_alone(first_run: Path, finished: Path) -> None:
    failing = json.loads((first_run / "results.json").read_text())["failures"]["fed+rag"]
    places = json.loads((first_run / "references.json").read_text())["hospitals"].values()
    tables = [pq.read_table(finished / "artifacts" / place["failures"] / "failures.parquet") for place in places]
    assert len(failing["hospitals"]) == 3 and sum(map(len, tables)) == failing["n"] > 0
    found = Counter(mode for table in tables for modes in table["modes"].to_pylist() for mode in modes)
    assert {mode: row["cases"] for mode, row in failing["modes"].items() if row["cases"]} == found
    page = (first_run / "report.html").read_text()
    assert "How fed+rag fails" in page
    assert not any(case in page for table in tables for case in table["case_id"].to_pylist())


def test_the_dashboard_shows_tables_results_and_progress(server: Server, finished: Path) -> None:
    keys = {row["key"]: row for row in server.post("artifacts/latest/filter", {})}
    assert {"audit", "audit-control", "audit-scores", "partition", "rounds", "results", "study-progress"} <= set(keys)
    assert "fed+rag" in keys["results"]["data"]
    assert keys["study-progress"]["data"] == 100


def test_rounds_and_losses_stand_once_in_a_run_and_can_be_read(server: Server, first_run: Path) -> None:
    found = server.post("artifacts/filter", {"artifacts": {"key": {"any_": ["rounds", "losses", "results"]}}})
    runs = Counter((each["flow_run_id"], each["key"]) for each in found)
    assert set(runs.values()) == {1}
    first = next(each["flow_run_id"] for each in found if each["key"] == "results" and first_run.name in each["data"])
    rows = json.loads(next(each["data"] for each in found if (each["flow_run_id"], each["key"]) == (first, "rounds")))
    assert [row["round"] for row in rows] == ["1", "2"]
    assert all(re.fullmatch(r"\d+\.\d{4}", row[name]) for row in rows for name in ("training loss", "held-out loss"))
    assert all(isinstance(cell, str) and len(cell) < 20 for row in rows for cell in row.values())


def test_latest_is_a_run_with_page_and_card(first_run: Path) -> None:
    assert {"report.html", "card.md", "results.json", "results.md"} <= {path.name for path in first_run.iterdir()}


def test_no_case_can_be_identified_from_what_is_shared(server: Server, finished: Path) -> None:
    """Not by an id, a question or an answer, and not by a digest of one, whoever guesses it."""
    artifacts = finished / "artifacts"
    tables = [read_table(path, Case) for path in artifacts.glob("hospitals/*/cases/*/cases.parquet")]
    cases = [case for table in tables for case in table]
    assert len({case.id for case in cases}) > 50
    traces = Traces(text for case in cases for text in (case.id, case.image_id, case.question, case.group or case.id))
    answers = Traces(case.answer for case in cases)
    answers.plain.clear()  # many are words of the vocabulary
    assert traces.found([next(artifacts.glob("hospitals/hospital-1/predictions/*"))])
    for each in (traces, answers):
        assert not each.found([artifacts / "shared", artifacts / "runs", server.home])


@pytest.mark.slow
def test_of_few_cases_nothing_is_shared(server: Server, finished: Path, tiny_folder: Path) -> None:
    """The same study again with the default: its answers are found, and less is told of them."""
    assert run(server, finished, arguments(tiny_folder, "evaluation.min_cell=5")).returncode == 0
    redone = {name.split(" ")[0] for name, state in server.task_states().items() if state == "Completed"}
    assert redone == {"validate", "score", "count", "shares"}
    results = json.loads((newest(finished) / "results.json").read_text())
    assert results["withheld"]["min_cell"] == 5
    assert all("where answers come from" in words for words in results["withheld"]["hospitals"].values())
    assert len(results["withheld"]["hospitals"]) == 3
    assert not any(0 < entry["n"] < 5 for entry in results["scores"])
    rows = [row for named in (results["configurations"], results["baselines"]) for row in named.values()]
    counted = [each for row in rows for each in (row, *row["hospitals"].values())]
    assert not any(0 < each[kind]["n"] < 5 for each in counted for kind in ("closed", "open", "choice"))
    counts = [count for row in results["partition"]["hospitals"] for count in row.values() if isinstance(count, int)]
    assert not any(0 < count < 5 for count in counts)
    for name in ("results.md", "report.html"):
        assert "fewer than 5 cases" in (newest(finished) / name).read_text()
    tables = {row["key"]: row["data"] for row in server.post("artifacts/latest/filter", {})}
    for key in ("audit", "audit-control", "audit-hospitals", "partition"):
        numbers = [value for row in json.loads(tables[key]) for value in row.values() if isinstance(value, int)]
        assert not any(0 < number < 5 for number in numbers), key
    control = json.loads(tables["audit-control"])
    assert not {row[side].split()[0] for row in control for side in ("test images", "control images")} & set("1234")


@pytest.mark.slow
def test_nothing_changed_means_nothing_done(server: Server, finished: Path, tiny_folder: Path) -> None:
    before = newest(finished)
    again = run(server, finished, [*arguments(tiny_folder), "--quiet", "--json"])
    assert (again.returncode, again.stderr) == (0, "")
    assert newest(finished) != before
    assert json.loads(again.stdout) == json.loads((newest(finished) / "results.json").read_text())
    assert set(server.task_states().values()) == {"Cached"}
    newest_run = server.newest_run()
    assert newest_run["name"] == "phantom fed+rag seed 0"
    parts = [part["name"] for part in server.parts_of(newest_run["id"])]
    assert parts == ["prepare", "round 1", "round 2", "evaluate"]


@pytest.mark.slow
def test_another_coverage_answers_held_out_cases_alone(server: Server, finished: Path, tiny_folder: Path) -> None:
    assert run(server, finished, arguments(tiny_folder, "evaluation.coverage=0.7")).returncode == 0
    redone = {name.split(" ")[0] for name, state in server.task_states().items() if state == "Completed"}
    assert redone == {"calibration", "abstention"}
    abstention = json.loads((newest(finished) / "results.json").read_text())["abstention"]
    assert abstention["coverage_asked"] == 0.7
    assert all(count > 0 for count in abstention["held_out_cases"].values())
    assert 0 <= abstention["coverage"]["value"] <= 1
    assert "Answers withheld" in (newest(finished) / "results.md").read_text()
    assert "answers withheld" in (newest(finished) / "report.html").read_text()


def test_a_few_answers_are_explained_and_their_mean_shares_alone_leave_the_hospital(
    first_run: Path, finished: Path
) -> None:
    saliency = json.loads((first_run / "results.json").read_text())["saliency"]["fed+rag"]
    assert saliency["n"] == sum(each["n"] for each in saliency["hospitals"].values()) == 6
    for method, shares in saliency["methods"].items():
        whole = sum(shares.values())
        assert whole == pytest.approx(1) or (method == "occlusion" and 0 <= whole < 1)  # an answer may lose nothing
    for hospital in saliency["hospitals"]:
        place = finished / "artifacts/hospitals" / hospital
        (folder,) = (place / "saliency").iterdir()
        maps = read_table(folder / "saliency.parquet", Saliency)
        ids = {each.case_id for each in maps}
        assert len(maps) == 2 * 4 * 4  # cases, methods, images of a prompt
        (failing,) = (place / "failures").iterdir()
        assert ids <= {each.case_id for each in read_table(failing / "failures.parquet", FailureModes)}
        assert (place / "report.html").read_text().count('data-explained="yes"') == 2
        shared = [path.read_text() for path in finished.glob("artifacts/shared/shares/*/*.json")]
        assert shared and not any(name in text for text in shared for name in ids)


def test_the_dashboard_shows_key_plots_and_the_way_to_the_page(server: Server, first_run: Path) -> None:
    artifacts = server.post("artifacts/filter", {"artifacts": {"key": {"any_": ["results"]}}})
    (text,) = (each["data"] for each in artifacts if first_run.name in each["data"])
    assert f"`{first_run / 'report.html'}`" in text
    assert "file://" not in text  # which no browser opens from the dashboard
    plots = re.findall(r"^!\[([^\]]+)\]\(data:image/png;base64,([^)]+)\)$", text, flags=re.MULTILINE)
    assert [title.split()[0] for title, _ in plots] == ["Scores", "Losses", "Where"]
    for _, data in plots:
        assert PIL.Image.open(io.BytesIO(base64.b64decode(data))).width > 300
    assert "| fed+rag |" in text


@pytest.mark.slow
def test_another_k_redoes_neither_ingestion_nor_partition_nor_libraries(
    server: Server, finished: Path, tiny_folder: Path
) -> None:
    assert run(server, finished, arguments(tiny_folder, "retrieval.k=1", "evaluation.saliency=1")).returncode == 0
    states = server.task_states()
    redone = {name.split()[0] for name, state in states.items() if state != "Cached"}
    looked = {"reliance", "failures", "count", "saliency", "shares"}
    assert redone <= {"train", "aggregate", "validate", "fed+rag", "base", "score"} | looked
    assert "train" in redone


@pytest.mark.slow
def test_another_partition_runs_the_tower_on_no_image(server: Server, finished: Path, tiny_folder: Path) -> None:
    changes = ("partition.hospitals=2", "model.gradient_checkpointing=true", *UNEXPLAINED)
    assert run(server, finished, arguments(tiny_folder, *changes)).returncode == 0
    states = server.task_states()
    assert states["vision"] == "Cached"
    assert {name for name in states if name.startswith("features")} == {"features hospital-1", "features hospital-2"}
    assert len(list((finished / "artifacts/source/vision").iterdir())) == 1


@pytest.mark.slow
def test_hospitals_trained_together_have_folders_of_their_own(
    server: Server, finished: Path, tiny_folder: Path
) -> None:
    together = arguments(tiny_folder, "engine.executor=batched", "evaluation.saliency=1")
    assert run(server, finished, together).returncode == 0
    states = server.task_states()
    redone = {name.split()[0] for name, state in states.items() if state != "Cached"}
    looked = {"reliance", "failures", "count", "saliency", "shares"}
    assert redone == {"train", "update", "aggregate", "validate", "fed+rag", "score"} | looked
    assert {f"update hospital-{each} round 2" for each in (1, 2, 3)} < set(states)
    adapter = final_adapter(newest(finished))
    assert run(server, finished, together).returncode == 0
    assert set(server.task_states().values()) == {"Cached"}
    assert final_adapter(newest(finished)) == adapter


@pytest.mark.slow
def test_hospitals_alone_go_on_from_their_own_adapters_and_send_nothing(
    server: Server, finished: Path, first_run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    command = arguments(tiny_folder, "federation.strategy=none", "evaluation.saliency=1")
    assert run(server, finished, command).returncode == 0
    states = server.task_states()
    rounds = finished.glob("artifacts/shared/adapter/*/round.json")
    kept = [path for path in rounds if {each.name for each in path.parent.iterdir()} == {"round.json", "manifest.json"}]
    assert len(kept) == 2  # of each round its counts and losses, and no tensors
    assert {state for name, state in states.items() if name.endswith("round 1") and "train" in name} == {"Cached"}
    assert {state for name, state in states.items() if name.endswith("round 2")} == {"Completed"}
    alone = newest(finished)
    results = json.loads((alone / "results.json").read_text())
    assert set(results["configurations"]) == {"local+rag"}
    assert [(row["round"], row["bytes_up"], row["bytes_down"]) for row in results["rounds"]] == [(1, 0, 0), (2, 0, 0)]
    references = json.loads((alone / "references.json").read_text())
    assert references["adapter"] is None
    assert len({each["adapter"] for each in references["hospitals"].values()}) == 3
    # What it trained in round 1 is what the federated study trained; that one's bytes are its files'.
    rounds = json.loads((first_run / "results.json").read_text())["rounds"]
    updates = [path.parent for path in finished.glob("artifacts/shared/update/*/update.json")]
    sizes = [sum(file.stat().st_size for file in each.iterdir() if file.name != "manifest.json") for each in updates]
    assert min(sizes) * 3 <= rounds[0]["bytes_up"] <= max(sizes) * 3
    assert all(row["seconds"] > 0 and row["bytes_down"] > 0 for row in rounds)
    image = tmp_path / "image.png"
    image.write_bytes(picture(1))
    question = ["ask", "--run", str(alone), "--hospital", "hospital-2", str(image), "What is seen?"]
    assert run(server, finished, [str(COMMAND), *question]).returncode == 0


@pytest.mark.slow
def test_a_damaged_file_is_noticed_and_made_again(
    server: Server, first_run: Path, finished: Path, tiny_folder: Path
) -> None:
    references = json.loads((first_run / "references.json").read_text())
    path = finished / "artifacts" / references["hospitals"]["hospital-2"]["features"] / "features.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run(server, finished, arguments(tiny_folder)).returncode == 0
    states = server.task_states()
    assert {name for name, state in states.items() if state != "Cached"} == {"features hospital-2"}
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_a_failed_hospital_alone_runs_again(server: Server, tiny_folder: Path, tmp_path: Path, first_run: Path) -> None:
    blocked = tmp_path / "artifacts/hospitals/hospital-2/library"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    command = arguments(tiny_folder, *UNEXPLAINED)
    failed = run(server, tmp_path, command)
    assert failed.returncode == 1
    assert "hospital-2" in failed.stderr
    assert not (tmp_path / "artifacts/latest").exists()
    blocked.unlink()
    assert run(server, tmp_path, command).returncode == 0
    states = server.task_states()
    assert {name: states[f"library {name}"] for name in ("hospital-1", "hospital-2", "hospital-3")} == {
        "hospital-1": "Cached",
        "hospital-2": "Completed",
        "hospital-3": "Cached",
    }
    assert final_adapter(newest(tmp_path)) == final_adapter(first_run)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_ends_in_a_round_goes_on_from_the_finished_hospitals(
    server: Server, tiny_folder: Path, tmp_path: Path, first_run: Path, how: signal.Signals
) -> None:
    command = arguments(tiny_folder, *UNEXPLAINED)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=hear_ctrl_c,
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob("artifacts/shared/update/[!.]*/manifest.json")):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(how)
    printed = process.communicate()[0].decode()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert printed.endswith(f"{MESSAGE}\n") and "Traceback" not in printed
        assert server.newest_run()["state_name"] == "Crashed"
        assert "Running" not in server.task_states().values()
    kept = {path.parent.name for path in tmp_path.glob("artifacts/shared/update/[!.]*/manifest.json")}
    assert 1 <= len(kept) < 6
    assert run(server, tmp_path, command).returncode == 0
    assert final_adapter(newest(tmp_path)) == final_adapter(first_run)
    assert not list(tmp_path.glob("artifacts/**/.*.tmp"))


def test_asking_shows_the_answer_and_the_cases(server: Server, first_run: Path, finished: Path, tmp_path: Path) -> None:
    from tasks.ingest import phantom

    image = tmp_path / "image.png"
    image.write_bytes(phantom.read(images=4, seed=9, public=False, test_fraction=0.3).images[0].data)
    question = [str(image), "What abnormality is seen?"]
    command = [str(COMMAND), "ask", "--run", str(first_run), "--hospital", "hospital-1", *question]
    result = run(server, finished, command)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("phantom:site-1") == 3


@pytest.mark.slow
def test_explaining_draws_and_writes_where_an_answer_comes_from(
    server: Server, first_run: Path, finished: Path, tmp_path: Path
) -> None:
    place = finished / "artifacts/hospitals/hospital-2"
    answered = json.loads((first_run / "references.json").read_text())["hospitals"]["hospital-2"]["predictions"]
    answers = [
        row
        for path in (finished / "artifacts" / each / "predictions.parquet" for each in answered)
        for row in read_table(path, Prediction)
    ]
    chosen = next(row for row in answers if row.configuration == "fed+rag")
    command = [str(COMMAND), "explain", str(first_run), "--hospital", "hospital-2"]
    result = run(server, finished, [*command, "--case", chosen.case_id])
    assert result.returncode == 0, result.stderr
    (folder,) = (place / "explained").iterdir()
    methods = ("attention", "rollout", "relevance", "occlusion")
    for method in methods:
        with PIL.Image.open(folder / f"{method}.png") as drawn:
            assert np.asarray(drawn.convert("RGB")).std() > 10
    document = json.loads((folder / "answer.json").read_text())
    assert (document["answer"], document["case"], document["question"]) == (
        chosen.prediction,
        chosen.case_id,
        chosen.question,
    )
    assert [case["id"] for case in document["shown"]] == list(chosen.neighbours)
    maps = read_table(folder / "saliency.parquet", Saliency)
    shares = read_table(folder / "shares.parquet", Share)
    whole = [each for each in maps if each.layer is None]
    assert [(each.method, each.rank) for each in whole] == [
        (name, rank) for name in methods for rank in (2, 1, 0, None)
    ]
    assert {each.layer for each in maps if each.head is not None} == {0, 1}
    for method in methods:
        method_shares = [each.share for each in shares if (each.method, each.layer) == (method, None)]
        assert sum(method_shares) == pytest.approx(1)
        assert all(f"{share:.3f}" in result.stdout for share in method_shares)

    image = tmp_path / "mine.png"
    image.write_bytes(picture(9, size=(40, 30)))
    question = ["--image", str(image), "--question", "What is $x_1$ <b>seen</b> 肺?", "--method", "attention"]
    few = [*question, "--layer", "1", "--head", "0", "--token", "0", "--out", "drawn"]
    result = run(server, finished, [*command, *few])
    assert result.returncode == 0, result.stderr
    written = {"answer.json", "attention.png", "saliency.parquet", "shares.parquet"}
    assert {path.name for path in (finished / "drawn").iterdir()} == written


def test_what_cannot_be_explained_is_refused(first_run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    wanted, missing = Wanted(), Path("none.png")
    with pytest.raises(StudyError, match=r"hospital-1's \d+ cases, as phantom:site-.*, found 'phantom:none'"):
        explain_case(first_run, "hospital-1", "phantom:none", wanted)
    with pytest.raises(StudyError, match="one of hospital-1, hospital-2, hospital-3, found 'hospital-9'"):
        explain_case(first_run, "hospital-9", "phantom:none", wanted)
    with pytest.raises(StudyError, match="expected a whole image, found no such file"):
        explain_image(first_run, "hospital-1", missing, "What?", wanted)
    with pytest.raises(StudyError, match="Expected a question, found none"):
        explain_image(first_run, "hospital-1", missing, " ", wanted)
    with pytest.raises(StudyError, match="all or one of attention, rollout, relevance, occlusion, found 'guess'"):
        methods_of("guess")


@pytest.mark.slow
def test_the_audit_alone_writes_its_file_and_shows_a_table(server: Server, finished: Path) -> None:
    command = [str(COMMAND), "audit", "--set", "dataset.images=10", "--out", "found/audit.json"]
    result = run(server, finished, command)
    assert result.returncode == 0, result.stderr
    document = json.loads((finished / "found/audit.json").read_text())
    same = document["train_test"]["same_image"]
    assert same["n"] == len(same["test_cases"]) == 0
    assert document["scores"]["question_only"]["closed"]["n"] > 0
    assert "restated question" in result.stdout
    control = document["control"]
    assert (control["dataset"], control["control_images"]["n"]) == ("phantom-public", 10)
    assert "Negative control: " in result.stdout
    # What the study had audited is found, not made again.
    assert len(list((finished / "artifacts/source/audit").glob("*/audit.json"))) == 1
    # With questions made of captions, these are what is audited.
    made = run(server, finished, [*command, "--set", "synthesis.generator=rules", "--set", "synthesis.choices=open"])
    assert made.returncode == 0, made.stderr
    questions = json.loads(next((finished / "artifacts/source/questions").glob("*/manifest.json")).read_text())
    audited = json.loads((finished / "found/audit.json").read_text())["cases"]
    assert sum(audited.values()) == questions["summary"]["published"] + questions["summary"]["synthetic"]


def small(model: Path, *more: str) -> list[str]:
    few = ("federation.rounds=1", "partition.hospitals=2", "partition.scheme=iid")
    return arguments(model, *few, "evaluation.examined=1", "evaluation.saliency=1", *more)


@pytest.mark.slow
def test_multiple_choice_is_scored_by_option_beside_a_control_without_images(
    server: Server, tiny_folder: Path, tmp_path: Path
) -> None:
    rows = [omni_row(number, question=f"What is shown in {number}?") for number in range(12)]
    root = write_omni(tmp_path / "omni", images=12, ACRIMA=rows)
    command = small(tiny_folder, "dataset.name=omnimedvqa", f"dataset.root={root}", "dataset.test_fraction=0.4")
    result = run(server, tmp_path, command)
    assert result.returncode == 0, result.stderr
    assert "by option" in result.stdout
    results = json.loads((tmp_path / "artifacts/latest/results.json").read_text())
    trained, control = results["configurations"]["fed+rag"], results["baselines"]["text_only"]
    assert trained["choice"]["n"] == trained["closed"]["n"] == control["choice"]["n"] > 0
    assert results["baselines"]["majority"]["choice"]["accuracy"] == 1  # all rows have the same answer
    # Without options in the test cases there is nothing to score so.
    more = ["--set", "synthesis.choices=open", "--set", "partition.disjoint=image"]
    assert run(server, tmp_path, [*command, *more]).returncode == 0
    reworded = json.loads((tmp_path / "artifacts/latest/results.json").read_text())
    assert "text_only" not in reworded["baselines"]
    assert (results["split"]["disjoint"], reworded["split"]["disjoint"]) == ("none", "image")
    assert "Split: no test image is a training image" in (tmp_path / "artifacts/latest/results.md").read_text()
    assert reworded["configurations"]["fed+rag"]["choice"]["n"] == 0
    assert reworded["configurations"]["fed+rag"]["open"]["n"] == trained["choice"]["n"]


def write_export(root: Path, count: int) -> Path:
    """A hospital's table of DICOM files that name a patient in every way they can; the last two are damaged."""
    names = [f"{CANARY}-{number}.dcm" for number in range(count)]
    for number, name in enumerate(names):
        write_bytes(root / name, dicom(np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)))
    write_bytes(root / names[-2], (root / names[-2]).read_bytes()[:-30])
    write_bytes(root / names[-1], (root / names[-1]).read_bytes().replace(b"PN", b"ZZ"))
    write_bytes(root / f"{CANARY}.png", picture(3))
    rows = [{"image": name, "question": "where?", "answer": "left", "patient": f"{CANARY} {name}"} for name in names]
    with (root / "cases.csv").open("w", newline="", encoding="utf-8") as sink:
        table = csv.DictWriter(sink, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.mark.slow
def test_no_patient_gets_into_artifacts_logs_or_database(server: Server, tiny_folder: Path, tmp_path: Path) -> None:
    root = write_export(tmp_path / "export", 14)
    work = tmp_path / "work"
    work.mkdir()
    more = ("dataset.name=table", f"dataset.root={root}", "dataset.max_rejected=0.5", "dataset.test_fraction=0.3")
    server.environment["PREFECT_LOGGING_LEVEL"] = "DEBUG"
    try:
        done = run(server, work, small(tiny_folder, *more))
        refused = run(server, work, small(tiny_folder, *more, "dataset.max_rejected=0"))
    finally:
        del server.environment["PREFECT_LOGGING_LEVEL"]
    assert done.returncode == 0, done.stderr
    assert "rows are unusable, more than dataset.max_rejected=0 allows" in refused.stderr
    rejected = json.loads(next(work.glob("artifacts/source/ingest/*/rejected.json")).read_text())
    assert {each["row"] for each in rejected} >= {13}
    files = [path for folder in (work, server.home) for path in folder.rglob("*") if path.is_file()]
    tables = [repr(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet"]
    contents = [path.read_bytes() for path in files]
    assert any(content.startswith(b"SQLite") for content in contents)
    assert any(b"rows are unusable" in content for content in contents)  # the server keeps what tasks log
    for content in [done.stdout, done.stderr, refused.stdout, refused.stderr]:
        assert CANARY not in content
    assert not any(CANARY.encode() in content for content in [*tables, *contents])
    assert not any(CANARY in str(path) for path in files)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "--set", "retrival.k=3"], "did you mean retrieval.k"),
        (["run", "--set", "dataset.name=vqa-rad", "--set", "dataset.root=/nowhere"], "/nowhere"),
        (["run", "--set", "model.name=no/such-model"], "no/such-model"),
        (["run", "--set", "lora.tower_targets=[no]"], "of the vision tower, found 'no', which it lacks: choose among"),
        (["audit", "--against", "/nowhere"], "/nowhere"),
        (["audit", "--out", "."], "Expected --out to be a file that can be written, found . (it is a folder)"),
        (["audit", "--out", "/dev/null/audit.json"], "found /dev/null/audit.json (File exists)"),
        (["ask", "--run", "nowhere", "image.png", "What?"], "nowhere"),
        (["ask", "--hospital", "hospital-9", "seen.png", "What?"], "hospital-9"),
        (["ask", "image.png", "What?"], "image.png"),
        (["explain"], "Expected either --case, or --image with --question."),
    ],
)
def test_bad_input_is_one_sentence_without_a_traceback(
    server: Server, finished: Path, command: list[str], message: str
) -> None:
    write_bytes(finished / "seen.png", picture())
    result = run(server, finished, [str(COMMAND), *command])
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
