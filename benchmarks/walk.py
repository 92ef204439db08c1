"""The way of a case and of an adapter through the stages, drawn from the code: the tables of docs/architecture.md.

python -m benchmarks.walk          # print them
python -m benchmarks.walk --write  # put them into the document
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.records.federation import HospitalRefs, LibrarySources
from tasks.store import Ref
from tasks.store.code import stage_imports

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
CASE = (
    "ingest.ingest",
    "partition.partition",
    "partition.take_cases",
    "features.take_features",
    "retrieve.build_hospital_library",
    "federate.train_hospital",
    "answer.predict",
    "answer.score_hospital",
)
ADAPTER = (
    "federate.initial_adapter",
    "federate.train_hospital",
    "federate.aggregate",
    "federate.validate_hospital",
    "answer.predict",
)
WAYS = {"case": CASE, "adapter": ADAPTER}


def rows(stages: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Of each stage: its name, the folders it reads, the one it leaves, and the modules whose names it uses."""
    yield "stage", "reads", "leaves", "calls"
    for name in stages:
        package, function = name.split(".")
        body = inspect.unwrap(getattr(importlib.import_module(f"tasks.{package}.step"), function).fn)
        modules = (module.removeprefix("tasks.") for module in stage_imports(body))
        called = sorted({module for module in modules if module.split(".")[0] not in ("records", "store", "errors")})
        yield f"`{package}/step.py: {function}`", words(reads(body)), words([leaves(body)]), words(called)


def reads(body: object) -> list[str]:
    """The parameters that refer to folders."""
    given = inspect.signature(body).parameters  # type: ignore[arg-type]
    kinds = (Ref, Ref | None, list[Ref], HospitalRefs, LibrarySources)
    return [name for name, each in given.items() if each.annotation in kinds]


def leaves(body: object) -> str:
    """Where its folder is, as the stage's decorator says."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(body))).body  # type: ignore[arg-type]
    assert isinstance(function, ast.FunctionDef)
    stage = function.decorator_list[0]
    assert isinstance(stage, ast.Call)
    area = next(str(ast.literal_eval(each.value)) for each in stage.keywords if each.arg == "area")
    return f"{area.replace('{hospital.name}', '{hospital}')}/{ast.literal_eval(stage.args[0])}"


def words(names: Sequence[str]) -> str:
    """Names as code."""
    return ", ".join(f"`{name}`" for name in names) or "-"


def table(stages: Sequence[str]) -> str:
    """In Markdown."""
    heading, *others = rows(stages)
    lines = [heading, tuple("---" for _ in heading), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def drawn(text: str) -> str:
    """The document with its tables as the code has them, each between two comments."""
    for way, stages in WAYS.items():
        begin, end = f"<!-- the way of the {way} -->\n", "\n<!-- its end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end, 1)
        text = f"{before}{begin}{table(stages)}{end}{after}"
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(map(table, WAYS.values())))
