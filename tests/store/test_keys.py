"""Keys of all stages: whatever a stage reads is in its key, so that a change of it is never answered from the cache."""

import ast
import importlib
import inspect
import re
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from prefect import Task
from pydantic import BaseModel
from test_layers import HERE, SOURCES, imports
from typing_extensions import TypedDict

from tasks import store
from tasks.engine import identity
from tasks.engine.identity import choose_model
from tasks.pretrain.step import GLOSSARY
from tasks.records.federation import Dealt, HospitalRefs, LibrarySources, SeenBefore, TrainingData
from tasks.settings import (
    DatasetSettings,
    EncoderSettings,
    Lesson,
    LocalSteps,
    ModelChoice,
    ModelSettings,
    RetrievalSettings,
    SynthesisSettings,
)
from tasks.settings.recipe import Stage
from tasks.store import Ref, code, libraries
from tasks.store.leaving import Document, OfPublicData
from tasks.store.stage import Folder, stage

CHOSEN = ModelChoice(name="model", device="cpu", content="0")
STEPS = LocalSteps(epochs=1, batch_size=16, by_image=False)
MADE: dict[type, BaseModel] = {
    ModelChoice: CHOSEN,
    Lesson: Lesson(title="lesson"),
    LocalSteps: STEPS,
    Stage: Stage(title="stage"),
}
CARRYING = {
    "cryptography",
    "filelock",
    "fsspec",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "markupsafe",
    "platformdirs",
    "matplotlib",
    "prefect",
    "psutil",
}
CARRYING |= {"pyarrow", "pydantic", "safetensors", "tqdm", "typing_extensions", "yaml"}
"""Libraries that carry, draw or fetch what is computed: another version leaves what was computed before right."""


def found_stages() -> Iterator[tuple[str, Task[..., Ref]]]:
    """Each stage of the project: its module and name, and the task."""
    for path in sorted((HERE / "tasks").rglob("*step.py")):
        if path.parent.name != "tasks":
            module = path.relative_to(HERE).with_suffix("").as_posix().replace("/", ".")
            for name, each in vars(importlib.import_module(module)).items():
                if isinstance(each, Task):
                    yield f"{module}:{name}", each


def parameters(task: Task[..., Ref]) -> dict[str, Any]:
    """The annotations of what a stage is called with."""
    return {name: each.annotation for name, each in inspect.signature(task.fn).parameters.items()}


def key(task: Task[..., Ref], given: dict[str, Any]) -> str:
    """What Prefect looks a stage up by."""
    found = task.cache_key_fn(None, given)  # type: ignore[misc, arg-type]
    assert isinstance(found, str)
    return found


def example(task: Task[..., Ref]) -> dict[str, Any]:
    return {name: value(annotation, name) for name, annotation in parameters(task).items()}


def value(annotation: Any, name: str = "") -> Any:
    """A value of this type."""
    if get_origin(annotation) in (Union, types.UnionType):
        return value(get_args(annotation)[0], name)
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        return [inner(str(each)) if inner in (str, int) else value(inner, f"{name}-{each}") for each in range(2)]
    if get_origin(annotation) is dict:
        key, inner = get_args(annotation)
        return {value(key): value(inner)}
    if annotation is Ref:
        return Ref(path=f"source/{name or 'any'}/0", digest="0")
    if get_origin(annotation) is Literal:
        return get_args(annotation)[-1]
    if annotation is HospitalRefs:
        parts = {each: value(Ref, f"{name}-{each}") for each in ("cases", "features", "library", "adapter")}
        return HospitalRefs(name=f"north {name}", **parts)
    if annotation is LibrarySources:
        parts = {each: value(Ref, f"{name}-{each}") for each in ("cases", "features", "encoded")}
        return LibrarySources(name=f"north {name}", **parts)
    if annotation in (TrainingData, Dealt, SeenBefore):
        return annotation(**{each: value(Ref, f"{name}-{each}") for each in annotation.model_fields})
    if issubclass(annotation, BaseModel):
        return MADE[annotation] if annotation in MADE else annotation()
    return annotation("1")


def others(annotation: Any, given: Any) -> Iterator[tuple[str, Any]]:
    """Each other value that differs from the given one in a single thing, with what differs."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if type(None) in kinds and given is not None:
        yield "none", None
    if given is None:
        yield "some", value(next(each for each in kinds if each is not type(None)))
    elif get_origin(kinds[0]) is Literal:
        yield "other", next(each for each in get_args(kinds[0]) if each != given)
    elif isinstance(given, Ref):
        yield "content", given.model_copy(update={"digest": "1"})
        yield "stage", given.model_copy(update={"path": "shared/else/0"})
    elif isinstance(given, BaseModel):
        for name, field in type(given).model_fields.items():
            for what, other in others(field.annotation, getattr(given, name)):
                yield f"{name} {what}", given.model_copy(update={name: other})
    elif isinstance(given, list | tuple):
        yield "another", given[:-1] if given else type(given)(["more"])
        if len(given) > 1:
            yield "order", given[::-1]
    elif isinstance(given, dict):
        yield "another", given | {"more": 1}
    elif isinstance(given, bool):
        yield "other", not given
    elif isinstance(given, int | float):
        yield "other", given + 1
    else:
        yield "other", f"{given}-other"


STAGES = dict(found_stages())


def test_every_stage_is_found() -> None:
    assert len(STAGES) >= 30
    assert {"tasks.federate.step:train_hospital", "tasks.explain.step:explain_some"} < set(STAGES)
    decorated = sum(source.count("\n@stage(") for source in SOURCES.values())
    assert len(STAGES) == decorated


@pytest.mark.parametrize("name", STAGES)
def test_whatever_a_stage_is_called_with_is_in_its_key(name: str) -> None:
    task = STAGES[name]
    plain = example(task)
    keys = {key(task, plain): "as it is"}
    for parameter, annotation in parameters(task).items():
        for what, other in others(annotation, plain[parameter]):
            found = key(task, plain | {parameter: other})
            assert found not in keys, f"{parameter} {what} as {keys[found]}"
            keys[found] = f"{parameter} {what}"
    assert len(keys) > 1


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_loads_a_model_takes_its_content(name: str) -> None:
    """Those that reach the function that loads a base, through any chain of imports."""
    task = STAGES[name]
    module, body = name.split(":")
    path = module.replace(".", "/") + ".py"
    node = next(each for each in ast.parse(SOURCES[path]).body if getattr(each, "name", "") == body)
    text = ast.unparse(node)
    loads = [
        word for word in ("shared_engine", "shared_base", "exclusive_base", "_see(", "answer_prompts") if word in text
    ]
    if loads or "model" in parameters(task):
        assert parameters(task)["model"] is ModelChoice


@pytest.mark.slow
@pytest.mark.parametrize("library", sorted(libraries.COMPUTING))
def test_the_versions_of_libraries_are_in_the_digests_of_code(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the stages whose code imports them, and of no others."""
    bodies = {name: inspect.unwrap(task.fn) for name, task in STAGES.items()}
    before = {name: code.body_digest(body) for name, body in bodies.items()}
    version_of = libraries._version
    changed = libraries.COMPUTING[library][0]
    monkeypatch.setattr(libraries, "_version", lambda each: "another" if each == changed else version_of(each))
    different = {name for name, body in bodies.items() if code.body_digest(body) != before[name]}
    behind = {library, *(other for other, names in libraries.COMPUTING.items() if changed in names)}
    assert different == {name for name in STAGES if behind & libraries_of(name)}
    if library in ("torch", "transformers", "peft"):
        assert {"tasks.federate.step:train_hospital", "tasks.answer.step:predict"} <= different


LIBRARIES = {
    path: {each.split(".")[0] for each in imports(path, ast.parse(source))}
    for path, source in SOURCES.items()
    if path.startswith("tasks/")
}
"""What each module imports, read as Python reads it."""


def libraries_of(name: str) -> set[str]:
    """The libraries that the code of a stage imports."""
    _, names = code._code_of(inspect.unwrap(STAGES[name].fn))
    files = [path for module in code.reached(names) for path in LIBRARIES if in_module(path, module)]
    return {each.split(".")[0] for each in names}.union(*(LIBRARIES[path] for path in files))


def in_module(path: str, module: str) -> bool:
    return path in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py")


def test_every_library_is_known_to_compute_or_to_carry() -> None:
    """A new one has to be put on one side or the other."""
    standard = importlib.import_module("sys").stdlib_module_names
    used = set().union(*LIBRARIES.values())
    assert used - standard - {"tasks"} <= libraries.COMPUTING.keys() | CARRYING
    assert not libraries.COMPUTING.keys() & CARRYING


def test_an_absent_library_has_no_version() -> None:
    versions = libraries.versions(["transformers", "numpy"])
    assert list(versions) == ["numpy", "transformers", "tokenizers", "bitsandbytes"]
    assert versions["numpy"] == importlib.import_module("numpy").__version__


def test_files_of_the_project_that_stages_read_are_in_their_keys() -> None:
    """Each that asks where shipped files are: for the code itself, models, and the words of radiology."""
    reading = {path for path, source in SOURCES.items() if path.startswith("tasks/") and "store.shipped" in source}
    models = {
        f"tasks/engine/{name}.py" for name in ("identity", "families/llava", "families/fast_vlm")
    }  # see identify()
    assert reading == {"tasks/store/code.py", "tasks/pretrain/step.py"} | models
    for path, source in SOURCES.items():
        for node in ast.parse(source).body if path.endswith("step.py") else []:
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                words = "GLOSSARY" in "\n".join(map(ast.unparse, node.body))
                assert words == ("data/glossary.txt" in ast.unparse(node.decorator_list[0])), node.name
    assert GLOSSARY.is_file()


def test_the_environment_decides_nothing_but_what_is_told() -> None:
    """Modules that read it: for a sentence of an error, what oneDNN keeps, what MKL may do, whether threads are set."""
    readers = {path for path, source in SOURCES.items() if re.search(r"\benviron\b|\bgetenv\b", source)}
    assert {path for path in readers if path.startswith("tasks/")} <= {
        "tasks/__init__.py",
        "tasks/engine/identity.py",
        "tasks/engine/cores.py",
        "tasks/ingest/hub.py",
        "tasks/retrieve/encoders/located.py",
    }


def test_a_stage_that_forgets_content_is_an_error_at_import() -> None:
    def of_a_model(folder: Folder, model: ModelSettings) -> None: ...
    def of_maybe_a_model(folder: Folder, model: ModelSettings | None) -> None: ...
    def of_a_choice(folder: Folder, model: ModelChoice) -> None: ...
    def of_data(folder: Folder, settings: DatasetSettings, seed: int) -> None: ...
    def of_data_at_will(folder: Folder, settings: DatasetSettings, content: str = "") -> None: ...
    def of_an_encoder(folder: Folder, settings: RetrievalSettings) -> None: ...
    def of_a_writer(folder: Folder, settings: SynthesisSettings) -> None: ...
    def of_both(folder: Folder, settings: EncoderSettings, model: ModelChoice, content: str) -> None: ...

    wrap = stage("test", area="shared", leaves=(), writes={})
    for body in (of_a_model, of_maybe_a_model, of_data, of_data_at_will, of_an_encoder, of_a_writer):
        with pytest.raises(TypeError, match="without its content"):
            wrap(body)
    for body in (of_a_choice, of_both):
        assert isinstance(wrap(body), Task)


def test_a_stage_that_does_not_declare_what_leaves_is_an_error_at_import() -> None:
    def body(folder: Folder, seed: int) -> None: ...

    for area, leaves in (("shared", None), ("source", ()), ("hospitals/{hospital}", ("counts",))):
        with pytest.raises(TypeError, match="say what leaves a hospital"):
            stage("test", area=area, leaves=leaves, writes={})(body)  # type: ignore[arg-type]
    for area, files in (("shared", None), ("source", {})):
        with pytest.raises(TypeError, match="in which files"):
            stage("test", area=area, leaves=() if area == "shared" else None, writes=files)(body)
    with pytest.raises(TypeError, match=r"lets something leave: say what a\.json may hold"):
        stage("test", area="shared", leaves=("counts",), writes={"a.json": OfPublicData()})(body)
    with pytest.raises(TypeError, match=r"lets \['names'\] leave: expected some of \('tensors', 'counts'"):
        stage("test", area="shared", leaves=("names",), writes={})(body)  # type: ignore[arg-type]


class Seed(TypedDict):
    """A document."""

    seed: int


def test_what_leaves_is_in_the_manifest_and_in_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def body(folder: Folder, seed: int) -> None:
        folder.write_json("seed.json", {"seed": seed})

    writes = {"seed.json": Document(Seed)}
    one, other = (
        stage("test", area="shared", leaves=leaves, writes=writes)(body) for leaves in ((), ("tensors", "counts"))
    )
    assert key(one, {"seed": 0}) == key(other, {"seed": 0}) != key(one, {"seed": 1})
    assert one.fn(seed=0).manifest()["leaves"] == []
    assert other.fn(seed=0).manifest()["leaves"] == ["tensors", "counts"]


FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja"])
def test_every_file_of_a_model_tells_it_apart(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    settings = ModelSettings(name=str(folder))
    before = choose_model(settings)
    assert choose_model(settings) == before
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # as long as before
    path.write_bytes(data)
    changed = choose_model(settings)
    assert changed.content != before.content
    data[-1] ^= 1
    path.write_bytes(data)
    assert choose_model(settings) == before
    (folder / store.MANIFEST).write_text("{}")  # the store's, of when the model was made
    assert choose_model(settings) == before


def test_a_hub_model_is_told_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def content(commit: str) -> str:
        monkeypatch.setattr("transformers.utils.hub.cached_file", lambda *given, **how: f"/hub/{commit}/config.json")
        return choose_model(ModelSettings(name="some/model")).content

    assert content("a1") != content("b2")
    assert content("a1") == content("a1") == "some/model@a1"


@pytest.mark.parametrize(("driver", "device", "expected"), [(1, 1, "cuda"), (1, 0, "cpu"), (0, 1, "cpu")])
def test_auto_is_where_torch_would_run(
    driver: bool, device: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_may_have_cuda", lambda: bool(driver))
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(device))
    assert identity.device_of("auto") == choose_model(ModelSettings()).device == expected
    assert (identity.device_of("cpu"), identity.device_of("cuda")) == ("cpu", "cuda")


def test_torch_is_asked_wherever_it_could_find_a_device() -> None:
    """Here, that is: what is said without torch is what torch says."""
    import torch

    assert identity._may_have_cuda() or not torch.cuda.is_available()
    assert identity.device_of("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
