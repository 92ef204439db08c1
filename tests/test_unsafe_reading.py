"""Nothing that is read can run code: no pickle, and no reader that would take one. Held by reading the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layers import HERE, PICKLES, imports

SOURCES = {
    path.relative_to(HERE).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("flows", "tasks", "data", "benchmarks", "release")
    for path in sorted((HERE / folder).rglob("*.py"))
}
NEVER = {
    "eval": "no text is run",
    "exec": "no text is run",
    "read_pickle": "nothing is pickled",
    "to_pickle": "nothing is pickled",
    "unsafe_load": "YAML is read by safe_load",
    "full_load": "YAML is read by safe_load",
    "unpack_archive": "no archive is unpacked",
    "extractall": "no archive is unpacked",
}
"""Functions by their last name. `model.eval()` takes nothing, and runs no text."""
ARCHIVES = {"zipfile", "tarfile", "zipimport"}
MUST = {
    "torch.load": ("weights_only", True, "tensors alone are read"),
    "from_pretrained": ("trust_remote_code", False, "no code of a model's folder is run"),
}
"""Calls that are safe with this argument alone. A class that is named reads no code, unlike one that is looked up."""
MAY_NOT = {"allow_pickle": True, "trust_remote_code": True, "weights_only": False, "use_safetensors": False}


def unsafe(path: str, source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for name in imports(path, tree):
        if name.split(".")[0] in PICKLES:
            yield f"{path} imports {name}: nothing is pickled"
        if name.split(".")[0] in ARCHIVES:
            yield f"{path} imports {name}: no archive is unpacked"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"{path}:{node.lineno}: {problem}" for problem in problems(node))


def problems(call: ast.Call) -> Iterator[str]:
    whole = ast.unparse(call.func)
    last = whole.split(".")[-1]
    given = {each.arg: each.value.value for each in call.keywords if isinstance(each.value, ast.Constant)}
    if last in NEVER and (call.args or call.keywords):
        yield NEVER[last]
    if whole == "torch.save":
        yield "tensors are written by safetensors"
    if whole == "yaml.load" or (last == "load_all" and whole.startswith("yaml.")):
        loader = [ast.unparse(each.value) for each in call.keywords if each.arg == "Loader"]
        if not any("Safe" in each for each in loader):
            yield "YAML is read by a safe loader"
    for name, value in MAY_NOT.items():
        if given.get(name) is value:
            yield f"{name} is {value}"
    passed_on = any(each.arg is None for each in call.keywords)
    named = last == "from_pretrained" and whole[0].isupper() and not whole.startswith("Auto")
    for name, (argument, value, why) in MUST.items():
        if not named and name in (whole, last) and given.get(argument) is not value and not passed_on:
            yield f"{why}: {name} needs {argument}={value}"


@pytest.mark.parametrize("path", SOURCES)
def test_no_reader_runs_what_it_reads(path: str) -> None:
    assert list(unsafe(path, SOURCES[path])) == []


def test_the_whole_project_is_read() -> None:
    assert {"flows/resident.py", "tasks/engine/base.py", "data/export/library.py", "release/lock.py"} <= set(SOURCES)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import joblib",
        "import tarfile",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=chosen)",
        "torch.save(state, path)",
        "np.load(path, allow_pickle=True)",
        "numpy.lib.format.read_array(file, allow_pickle=True)",
        "pd.read_pickle(path)",
        "frame.to_pickle(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "AutoModel.from_pretrained(place)",
        "reader.from_pretrained(place)",
        "AutoModel.from_pretrained(place, trust_remote_code=True)",
        "reader(place, trust_remote_code=True)",
        "reader(place, use_safetensors=False)",
        "eval(text)",
        "exec(text)",
        "shutil.unpack_archive(path)",
    ],
)
def test_an_unsafe_line_is_found(line: str) -> None:
    assert list(unsafe("tasks/engine/base.py", line))


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "PeftModel.from_pretrained(model, place)",
        "np.load(path)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "AutoModel.from_pretrained(place, trust_remote_code=False)",
        "json.load(file)",
    ],
)
def test_a_safe_line_passes(line: str) -> None:
    assert list(unsafe("tasks/engine/base.py", line)) == []


def test_bases_that_come_with_the_project_hold_no_pickle() -> None:
    """Nor does anything else in `data`: each file is text, Parquet or safetensors."""
    kinds = {path.suffix for path in (HERE / "data").rglob("*") if path.is_file() and "cache" not in path.parts}
    assert kinds <= {".json", ".jinja", ".safetensors", ".parquet", ".yaml", ".py", ".pyc", ".txt", ".md"}
    for path in Path(HERE / "data").rglob("*.safetensors"):
        header = path.read_bytes()[:9]
        assert int.from_bytes(header[:8], "little") < path.stat().st_size and header[8:9] == b"{"
