"""The layering of the design, held by reading the imports."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
GROUND = {"cases", "errors", "records", "settings", "store", "text"}
"""Known to all; it knows nobody else."""
LIBRARIES = {"engine", "score"}
"""Open to every stage."""
STAGES = {"ingest", "synthesize", "audit", "partition", "pretrain", "promote", "features", "retrieve"}
STAGES |= {"federate", "answer", "explain", "compare", "report", "attack"}
STEPS = ["tasks", "store", "stage.py"]
"""What every step is made with: it alone, beside the steps, knows Prefect."""
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

SOURCES = {
    path.relative_to(HERE).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("flows", "tasks")
    for path in sorted((HERE / folder).rglob("*.py"))
}


def imports(path: str, tree: ast.AST) -> Iterator[str]:
    """The full names of what is imported below the node: `tasks.store.Ref` for `from tasks.store import Ref`."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield _imported_by_name(node.args[0])


def _imported_by_name(argument: ast.expr) -> str:
    """The name in a call of `import_module`; of one that is put together, the package before what varies."""
    if isinstance(argument, ast.JoinedStr):
        prefix = argument.values[0]
        assert isinstance(prefix, ast.Constant) and prefix.value.endswith("."), "name the package that it is in"
        return str(prefix.value).removesuffix(".")
    return str(ast.literal_eval(argument))


def problems(path: str, source: str) -> Iterator[str]:
    """What a module at this path may not import, and what lacks a docstring."""
    tree = ast.parse(source)
    for name in imports(path, tree):
        if problem := forbidden(path.split("/"), name.split(".")):
            yield f"{path} imports {name}: {problem}"
    if tree.body:
        yield from (f"{path}: {name} has no docstring" for name in undocumented(tree))


def forbidden(place: list[str], name: list[str]) -> str | None:
    """Why a module at this place may not import that name; None where it may."""
    top, *inner = name
    step = place[-1] == "step.py"
    serves = place[:2] == ["flows", "serve"]
    if top in PICKLES:
        return "nothing is pickled"
    if top == "prefect" and (serves or not (place[0] == "flows" or step or place == STEPS)):
        return "only flows and steps know Prefect, and not those that serve"
    if top == "flows" and place[0] == "tasks":
        return "tasks do not know the flows"
    if inner[:2] == ["store", "stage"] and place[0] == "tasks" and not step:
        return "only steps know Prefect"
    if top != "tasks" or place[0] != "tasks" or not inner:
        return None
    package, target = place[1].removesuffix(".py"), inner[0]
    if package == target:
        return None
    if package in STAGES and target in STAGES:
        return "stages do not import each other"
    if package in LIBRARIES and target not in GROUND | LIBRARIES:
        return "libraries stand on the ground alone"
    if package in GROUND and target not in GROUND:
        return "the ground stands on itself"
    return None


def undocumented(tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        yield from undocumented_in(node)


def undocumented_in(node: ast.AST) -> Iterator[str]:
    """Public functions and classes, and public methods of public classes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        if not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                yield from (f"{node.name}.{name}" for name in undocumented_in(inner))


def test_the_checker_reads_the_project() -> None:
    assert {"flows/fed_rag.py", "tasks/store/keys.py", "tasks/engine/base.py", "tasks/retrieve/step.py"} <= set(SOURCES)
    packages = {name.split("/")[1] for name in SOURCES if name.startswith("tasks/") and name.count("/") > 1}
    assert packages == STAGES | LIBRARIES | GROUND - {"errors"}
    assert {name for name in SOURCES if name.count("/") == 1 and name.startswith("tasks/")} == {
        "tasks/__init__.py",
        "tasks/errors.py",
    }
    folders = {name.split("/")[1] for name in SOURCES if name.startswith("flows/") and name.count("/") > 1}
    assert folders == {"cli", "runners", "runtimes", "serve"}
    found = set(imports("tasks/retrieve/step.py", ast.parse(SOURCES["tasks/retrieve/step.py"])))
    assert {"tasks.store.stage.stage", "tasks.retrieve.library.build_library", "tasks.store.Ref"} <= found


def test_no_module_leads_back_to_itself() -> None:
    """Along the imports of each module, at its head or within a function."""
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in SOURCES}
    uses: dict[str, set[str]] = {}
    for name, path in names.items():
        parts = (each.split(".") for each in imports(path, ast.parse(SOURCES[path])))
        known = {
            next((".".join(each[:n]) for n in range(len(each), 0, -1) if ".".join(each[:n]) in names), "")
            for each in parts
        }
        uses[name] = known - {"", name}
    assert list(TopologicalSorter(uses).static_order())


@pytest.mark.parametrize("path", SOURCES)
def test_layers_hold_and_everything_public_is_documented(path: str) -> None:
    assert list(problems(path, SOURCES[path])) == []


BAD = [
    ("tasks/retrieve/library.py", "import prefect", "only flows and steps know Prefect"),
    ("tasks/retrieve/library.py", "from prefect.artifacts import create_table_artifact", "only flows and steps"),
    ("tasks/retrieve/library.py", "def _f():\n    from prefect import task", "only flows and steps know Prefect"),
    ("tasks/retrieve/library.py", "if True:\n    import prefect as p", "only flows and steps know Prefect"),
    ("tasks/retrieve/library.py", "from tasks.store.stage import stage", "only steps know Prefect"),
    ("tasks/retrieve/library.py", "import importlib\nimportlib.import_module('prefect')", "only flows and steps"),
    ("tasks/retrieve/library.py", "from tasks.ingest.split import make_test_split", "stages do not import each other"),
    ("tasks/retrieve/library.py", "import importlib\nimportlib.import_module(f'tasks.ingest.{n}')", "stages do not"),
    ("tasks/retrieve/step.py", "from tasks.ingest.split import make_test_split", "stages do not import each other"),
    ("tasks/retrieve/step.py", "from tasks import ingest", "stages do not import each other"),
    ("tasks/retrieve/step.py", "import tasks.ingest.split", "stages do not import each other"),
    ("tasks/retrieve/library.py", "from ..ingest import split", "stages do not import each other"),
    ("tasks/retrieve/library.py", "from ..ingest.split import make_test_split", "stages do not import each other"),
    ("tasks/synthesize/captions.py", "from tasks.pretrain.text import teach", "stages do not import each other"),
    ("tasks/retrieve/library.py", "from flows.cli.terminal import console", "tasks do not know the flows"),
    ("tasks/store/keys.py", "import flows", "tasks do not know the flows"),
    ("tasks/engine/train.py", "from tasks.retrieve.library import Library", "libraries stand on the ground alone"),
    ("tasks/engine/train.py", "from tasks.unheard import of", "libraries stand on the ground alone"),
    ("tasks/engine/train.py", "from tasks.store.stage import stage", "only steps know Prefect"),
    ("tasks/records/data.py", "from tasks.engine.batch import Batch", "the ground stands on itself"),
    ("tasks/records/data.py", "from tasks.ingest.split import make_test_split", "the ground stands on itself"),
    ("tasks/score/score.py", "from tasks.answer.predict import answer_prompts", "libraries stand on the ground alone"),
    ("flows/serve/answerer.py", "import prefect", "not those that serve"),
    ("tasks/store/stage.py", "from tasks.engine.base import Base", "the ground stands on itself"),
    ("tasks/store/keys.py", "import pickle", "nothing is pickled"),
    ("flows/cli/main.py", "from pickle import loads", "nothing is pickled"),
]


@pytest.mark.parametrize(("path", "line", "problem"), BAD)
def test_a_wrong_import_is_found(path: str, line: str, problem: str) -> None:
    found = list(problems(path, f'"""A module."""\n\n{line}\n'))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("flows/cli/main.py", "from prefect import flow"),
        ("tasks/retrieve/step.py", "from prefect import task"),
        ("tasks/features/step.py", "from tasks.store.stage import stage"),
        ("tasks/retrieve/library.py", "from tasks.retrieve.similarity import Rows"),
        ("tasks/retrieve/library.py", "from .encoder import Rows"),
        ("tasks/retrieve/library.py", "from ..records import Case"),
        ("tasks/retrieve/library.py", "from tasks.engine.vision import Features"),
        ("tasks/retrieve/library.py", "from tasks.cases.groups import image_groups"),
        ("tasks/engine/train.py", "from tasks.settings import Study"),
        ("tasks/store/keys.py", "from tasks.errors import StudyError"),
        ("flows/cli/main.py", "from tasks.report.results import markdown"),
        ("tasks/retrieve/library.py", "import prefectly, pickles"),
    ],
)
def test_a_right_import_passes(path: str, line: str) -> None:
    assert list(problems(path, f'"""A module."""\n\n{line}\n')) == []


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("import json", ["the module"]),
        ('"""A module."""\ndef run(): pass', ["run"]),
        ('"""A module."""\nasync def run(): pass', ["run"]),
        ('"""A module."""\nclass Run:\n    "A class."\n    def now(self): pass\n    def _now(self): pass', ["Run.now"]),
        ('"""A module."""\nclass Run: pass', ["Run"]),
        ('"""A module."""\ndef run():\n    "Run."\n    def inner(): pass\ndef _run(): pass', []),
        ("", []),
    ],
)
def test_a_missing_docstring_is_found(source: str, lacking: list[str]) -> None:
    expected = [f"tasks/store/keys.py: {name} has no docstring" for name in lacking]
    assert list(problems("tasks/store/keys.py", source)) == expected
