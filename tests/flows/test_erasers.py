"""Erasers: each stage that keeps data of cases at a hospital has one."""

import ast
import subprocess
import sys
from collections.abc import Iterator

from test_layers import SOURCES

from flows.withdrawn import ERASERS


def declared() -> Iterator[tuple[str, str, str]]:
    """Package, area and name of each stage, read from its decorator."""
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and path.endswith("/step.py"):
                for each in node.decorator_list:
                    assert isinstance(each, ast.Call) and ast.unparse(each.func) == "stage"
                    (area,) = (ast.literal_eval(word.value) for word in each.keywords if word.arg == "area")
                    yield path.split("/")[1], area, ast.literal_eval(each.args[0])


def test_every_stage_of_a_hospital_has_an_eraser_in_its_package() -> None:
    owned = {(package, name) for package, area, name in declared() if area.startswith("hospitals/{")}
    assert {name for _, name in owned} == ERASERS.keys()
    assert ("partition", "cases") in owned and ("answer", "reliance") in owned
    for package, name in owned:
        eraser = ERASERS[name]
        assert eraser is None or eraser.__module__ == f"tasks.{package}.erase"
    others = {name for _, area, name in declared() if not area.startswith("hospitals/{")}
    assert not others & ERASERS.keys()


def test_to_know_the_erasers_takes_no_large_library() -> None:
    large = ("torch", "transformers", "peft", "faiss", "prefect")
    program = f"import sys, flows.forget; print([each for each in {large} if each in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
