"""The digest of the code that a stage runs: held to what really runs, and to what a change of a file does to it."""

import importlib
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from test_layers import HERE

from tasks.federate.step import aggregate, train_hospital, validate_hospital
from tasks.records.federation import HospitalRefs, LibrarySources
from tasks.settings import DatasetSettings, LibrarySettings, LocalRule, ModelSettings, StrategySettings, Study
from tasks.store import Ref, code
from tasks.store.stage import stage

FILES = {
    "tasks/__init__.py": "",
    "tasks/records/__init__.py": "from tasks.records.case import Case\nfrom tasks.records.row import Row\n",
    "tasks/records/case.py": "class Case: ...\n",
    "tasks/records/row.py": "class Row: ...\n",
    "tasks/settings/__init__.py": "class Study: ...\n",
    "tasks/deep.py": "import numpy\nimport tasks.round as around\n",
    "tasks/round.py": "from tasks import deep\n",
    "tasks/late.py": "WORDS = 1\n",
    "tasks/typed.py": "class Typed: ...\n",
    "tasks/other.py": "import torch\n",
    "tasks/train/__init__.py": "",
    "tasks/train/table.py": "import pandas\n",
    "tasks/train/pure.py": """
        from typing import TYPE_CHECKING
        from tasks.deep import numpy
        from tasks.settings import Study
        if TYPE_CHECKING:
            from tasks.typed import Typed
        def work():
            from tasks.late import WORDS
            return WORDS
    """,
    "tasks/train/step.py": """
        import json
        from tasks.other import torch
        from tasks.records import Case, Row
        SIZE = 3
        NUMBER = 4

        @staticmethod
        def train(folder, rows: list[Row]) -> Row:
            from tasks.train.pure import work
            return _helper(work, Case)

        def _helper(work, kind):
            return SIZE

        def show():
            return torch
    """,
    "data/words.txt": "lung\n",
}
"""A project in which the stage `train` runs some of the modules."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`FILES`, in place of this project."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(inspect.cleandoc(text) + "\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    code.forget_code()
    yield tmp_path
    code.forget_code()


def digest(project: Path, reads: tuple[str, ...] = ()) -> str:
    """Of the stage `train`, read anew."""
    code.forget_code()
    return code.body_digest(stage_of(project), reads)


def stage_of(project: Path) -> Callable[..., None]:
    """The stage's function, as it stands in its file, which is not run."""
    path = project / "tasks/train/step.py"
    inspect.linecache.clearcache()  # type: ignore[attr-defined]
    space: dict[str, Any] = {}
    source = path.read_text()
    start = source[: source.index("@staticmethod")].count("\n")
    block = source.split("\n")[start:]
    length = next(each for each, line in enumerate(block) if line.startswith("def _helper"))
    body = "\n" * start + "\n".join(block[:length]).replace("@staticmethod", "@(lambda function: function)")
    exec(compile(body, str(path), "exec"), {"Row": object, "list": list}, space)
    found = space["train"]
    assert callable(found)
    return found


def test_the_modules_that_a_stage_runs(project: Path) -> None:
    assert code.reached(["tasks.train.pure.work", "tasks.records.Case", "json.dumps"]) == [
        "tasks.deep",
        "tasks.late",
        "tasks.records.case",
        "tasks.round",
        "tasks.train.pure",
    ]
    assert code.reached(["tasks.records"]) == ["tasks.records", "tasks.records.case", "tasks.records.row"]
    assert code.reached(["tasks.train.pure", "numpy.array"])[-1] == "tasks.train.pure"
    assert code.reached([]) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tasks/train/pure.py", "return WORDS", "return 2 * WORDS"),
        ("tasks/late.py", "1", "2"),
        ("tasks/deep.py", "import numpy", "import numpy as np"),
        ("tasks/round.py", "deep", "deep as d"),
        ("tasks/records/case.py", "...", "pass"),
        ("tasks/train/step.py", "return _helper(work, Case)", "return _helper(Case, work)"),
        ("tasks/train/step.py", "return SIZE", "return SIZE + 1"),
        ("tasks/train/step.py", "SIZE = 3", "SIZE = 5"),
        ("tasks/train/step.py", "records import Case, Row", "other import torch as Case, Row"),
        ("data/words.txt", "lung", "lobe"),
    ],
)
def test_what_a_stage_runs_is_in_its_digest(name: str, old: str, new: str, project: Path) -> None:
    before = digest(project, ("data/words.txt",))
    assert digest(project, ("data/words.txt",)) == before
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    assert digest(project, ("data/words.txt",)) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tasks/other.py", "import torch", "import faiss"),
        ("tasks/typed.py", "...", "pass"),
        ("tasks/settings/__init__.py", "...", "pass"),
        ("tasks/records/row.py", "...", "pass"),
        ("tasks/train/table.py", "pandas", "numpy"),
        ("tasks/train/step.py", "NUMBER = 4", "NUMBER = 5"),
        ("tasks/train/step.py", "return torch", "return None"),
        ("tasks/train/step.py", "list[Row]) -> Row:", "list[Row]) -> list:  # rows"),
        ("data/words.txt", "lung", "lobe"),
    ],
)
def test_what_a_stage_does_not_run_is_not_in_its_digest(name: str, old: str, new: str, project: Path) -> None:
    before = digest(project)
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    (project / "tasks/train/new.py").write_text("import torch\n")
    assert digest(project) == before


def test_code_that_is_not_there_is_an_error(project: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest(project, ("data/absent.txt",))


def digests() -> dict[str, str]:
    """Of this project's stages that train, average, answer and score."""
    code.forget_code()
    bodies = {
        f"{each.__module__}.{each.__name__}": inspect.unwrap(each.fn)
        for module in ("federate", "answer", "retrieve", "ingest", "partition")
        for each in vars(importlib.import_module(f"tasks.{module}.step")).values()
        if hasattr(each, "fn")
    }
    return {name: code.body_digest(body) for name, body in bodies.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tasks/records/text_table.py", "tasks/report/page/plots.py", "tasks/federate/strategies/krum.py"]
)
def test_a_new_strategy_or_another_table_reruns_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(HERE / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    before = digests()
    with (tmp_path / name).open("a") as file:
        file.write("\nADDED = True\n")
    assert digests() == before
    with (tmp_path / "tasks/federate/door.py").open("a") as file:
        file.write("\nADDED = True\n")
    changed = {name for name, each in digests().items() if each != before[name]}
    through_the_door = ("aggregate", "aggregate_fusion", "take_adapter")
    assert changed == {f"tasks.federate.step.{each}" for each in through_the_door}
    code.forget_code()


@pytest.mark.parametrize("name", ["aggregate", "aggregate_fusion"])
def test_another_strategy_is_not_in_the_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.federate import step

    shutil.copytree(HERE / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    state, update = Ref(path="shared/adapter/0", digest="0"), Ref(path="shared/update/0", digest="1")

    def keys() -> dict[str, str]:
        code.forget_code()
        task = stage("adapter", area="shared", chosen=(step.STRATEGY,), leaves=(), writes={})(
            inspect.unwrap(getattr(step, name).fn)
        )
        given: dict[str, Any] = {"state": state, "updates": [update], "round_number": 1, "base": "", "hospitals": ["a"]}
        return {
            each: str(task.cache_key_fn(None, given | {"strategy": StrategySettings(strategy=each)}))  # type: ignore
            for each in ("fedavg", "fedprox", "none")
        }

    before = keys()
    for changed, strategies in (("fedprox", {"fedprox"}), ("fedavg", {"fedavg", "fedprox"}), ("krum", set())):
        with (tmp_path / f"tasks/federate/strategies/{changed}.py").open("a") as file:
            file.write("\nADDED = True\n")
        after = keys()
        assert {each for each in after if after[each] != before[each]} == strategies
        before = after
    code.forget_code()


CHOSEN = {"aggregate": ["tasks.federate.strategies.fedavg", "tasks.federate.lora_mean.factors"]}
"""What stages import by name, with a default study's settings."""
MACHINERY = {
    f"tasks.store.{name}"
    for name in (
        "stage",
        "leaving",
        "code",
        "collector",
        "libraries",
        "folders",
        "manifest",
        "keys",
        "digests",
        "memory",
        "names",
        "shared_store",
        "again",
    )
}
"""What carries a stage, and decides nothing of what it makes."""


def ran(work: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What a call gives, and the project's modules of which a function ran meanwhile."""
    seen = set[str]()

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":  # a package that is imported on the way runs nothing
            seen.add(frame.f_code.co_filename)

    sys.setprofile(record)
    try:
        made = work()
    finally:
        sys.setprofile(None)
    inside = (Path(path) for path in seen if path.startswith(str(HERE / "tasks")))
    return made, {".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__") for path in inside}


def test_whatever_runs_in_a_stage_is_in_its_digest(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small study, stage by stage, each watched while it runs."""
    from tasks.answer.step import answer_baselines, predict, score_hospital
    from tasks.engine.identity import choose_model
    from tasks.features.step import see_images, take_features
    from tasks.federate.step import initial_adapter
    from tasks.ingest.step import ingest
    from tasks.partition.step import partition, take_cases
    from tasks.retrieve.step import build_hospital_library

    monkeypatch.chdir(tmp_path)
    study = Study(dataset=DatasetSettings(images=6), model=ModelSettings(name=str(tiny_folder), device="cpu"))
    model = choose_model(study.model)
    unknown: dict[str, set[str]] = {}

    def run(task: Any, **given: Any) -> Any:
        made, modules = ran(lambda: task.fn(**given))
        body = inspect.unwrap(task.fn)
        known = {*code.reached([*code._code_of(body)[1], *CHOSEN.get(body.__name__, [])]), body.__module__, *MACHINERY}
        unknown.setdefault(body.__name__, set()).update(
            each for each in modules - known if not each.startswith(code.LEFT_OUT)
        )
        assert body.__module__ in modules
        return made

    dataset = run(ingest, settings=study.dataset, content="", seed=0)
    assignment = run(partition, cases=dataset, settings=study.partition, seed=0)
    names = [row["hospital"] for row in assignment.manifest()["summary"]["hospitals"]]
    cases = run(take_cases, hospital=names[0], cases=dataset, dataset=dataset, assignment=assignment, forgotten=[])
    seen = run(see_images, images=dataset.only("images.parquet"), model=model.seeing)
    features = run(take_features, hospital=names[0], cases=cases, model=model.seeing, seen=seen)
    folders: dict[str, Any] = {"cases": cases, "features": features}
    sources = LibrarySources(name=names[0], **folders)
    run(build_hospital_library, hospital=sources, settings=LibrarySettings(depth=2, diversity=0.5))
    library = run(build_hospital_library, hospital=sources, settings=LibrarySettings(depth=2, rerank="learned"))
    start = run(initial_adapter, model=model, lora=study.lora, seed=0)
    common: dict[str, Any] = {"model": model, "lora": study.lora, "context": study.retrieval.context}
    training = {"federation": study.federation.local, "round_number": 1, "seed": 0}
    hospital = HospitalRefs(name=names[0], **folders, library=library, adapter=start)
    update = run(train_hospital, hospital=hospital, **common, **training, local=LocalRule())
    sent: dict[str, Any] = {"hospitals": [names[0]], "updates": [update], "round_number": 1, "base": model.content}
    sent |= {"share": 1, "steps": study.federation.asked_steps, "ranks": {}}
    after = run(aggregate, strategy=study.federation.server, state=start, **sent)
    hospital = hospital.given(after)
    run(validate_hospital, hospital=hospital, **common, **training, min_cell=5)
    answering = {"configuration": "fed+rag", "answering": study.evaluation.answering}
    answered = [run(predict, hospital=hospital, **common, **answering)]
    answered.append(run(answer_baselines, hospital=names[0], **folders, library=library, seed=0))
    run(score_hospital, hospital=names[0], cases=cases, predictions=answered, min_cell=1)
    assert len(unknown) == 13
    assert not any(unknown.values()), unknown
