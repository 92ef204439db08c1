"""What every step shares: a Prefect task that makes one folder of the store and is cached by content."""

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from prefect import Task, task
from prefect.client.schemas import TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import Serializer
from pydantic import BaseModel

from tasks.errors import StudyError
from tasks.settings import DatasetSettings, EncoderSettings, ModelChoice, ModelSettings, SynthesisSettings
from tasks.store import ROOT, Folder, Ref, stage_key, writing
from tasks.store.code import body_digest
from tasks.store.provenance import name_inputs

Body = Callable[..., None]
Leaving = Literal["tensors", "counts", "losses", "scores", "memory"]
"""What a stage may let leave a hospital: tensors learned from cases; numbers of cases, images or steps; mean losses;
measures of answers (right ones, sums by image, mean shares of the prompt's parts); bytes that a process took."""
NAMES_FILES = (DatasetSettings, EncoderSettings, SynthesisSettings)
"""Settings that name files outside the store: a stage that takes them takes their content beside them."""


class RefSerializer(Serializer):
    """Keeps references as JSON, and finds a record unreadable once its files are gone or changed.

    Prefect takes an unreadable record for a cache miss: the stage runs again and writes the record anew.
    """

    type: Literal["fed-rag-ref"] = "fed-rag-ref"

    def dumps(self, obj: Any) -> bytes:
        """A Ref as JSON; a failed run's exception as its text."""
        return obj.model_dump_json().encode() if isinstance(obj, Ref) else str(obj).encode()

    def loads(self, blob: bytes) -> Ref:
        """The Ref, its files verified."""
        return Ref.model_validate_json(blob).verified()


def stage(
    name: str,
    area: str,
    title: str | None = None,
    reads: tuple[str, ...] = (),
    chosen: tuple[str, ...] = (),
    leaves: tuple[Leaving, ...] | None = None,
) -> Callable[[Body], Task[..., Ref]]:
    """A Prefect task that makes the folder `area/name/key` and returns its Ref.

    The body gets the folder to fill, then the task's parameters. The key digests all of those parameters (references
    by their content), the code that the body runs (`code.py`), and the versions of the libraries that this code
    computes with: equal work is never done twice, in whichever run.

    Args:
        name: of the stage, as its folder and its task are called.
        area: `source`, `shared` or `hospitals/{hospital}`, filled in from the parameters.
        title: of one task run, filled in from the parameters; the name where not given.
        reads: files of the project that the body reads beside its references, as `data/glossary.txt`.
        chosen: modules that the body imports by name, filled in from the parameters. Their code counts, that of the
            others that it could have imported does not.
        leaves: kinds of what leaves a hospital in this folder, for the manifest; `()` where nothing of a hospital's
            cases is in it. Each stage in `shared` says it, and no other does. It is no part of the key.

    Raises TypeError where a stage in `shared` does not say what leaves, or another one does; and where the body takes
    settings that name files, and not the content of these: a model is taken as a ModelChoice, of the settings in
    `NAMES_FILES` the parameter `content` tells the files.
    """

    def wrap(body: Body) -> Task[..., Ref]:
        signature = inspect.signature(body)
        folder_name = next(iter(signature.parameters))
        _refuse_unknown_content(name, signature)
        _refuse_undeclared(name, area, leaves)
        digest = functools.cache(functools.partial(body_digest, body, reads))

        def key_of(parameters: Mapping[str, Any]) -> str:
            return _key(name, parameters, digest(tuple(module.format(**parameters) for module in chosen)))

        @functools.wraps(body)
        def run(**parameters: Any) -> Ref:
            key = key_of(parameters)
            with _told_as_running(TaskRunContext.get()), writing(area.format(**parameters), name, key) as folder:
                folder.inputs, folder.leaves = _paths(parameters), list(leaves or ())
                body(folder, **parameters)
            return folder.ref

        kept = [parameter for parameter in signature.parameters.values() if parameter.name != folder_name]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept],
            return_annotation=Ref,
        )

        def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
            _wait_if_halted(context)
            path = f"{area.format(**parameters)}/{name}/{key_of(parameters)}"
            name_inputs(path, _paths(parameters))
            return path.replace("/", "-")

        return task(  # type: ignore[call-overload]
            run,
            name=name,
            task_run_name=title or name,
            cache_key_fn=cache_key,
            persist_result=True,
            result_storage=(ROOT / ".records").absolute(),
            result_serializer=RefSerializer(),
        )

    return wrap


_running: list[TaskRun] = []
_halted = threading.Event()


@contextlib.contextmanager
def _told_as_running(context: TaskRunContext | None) -> Iterator[None]:
    """Around a stage's work; without a context where it runs as a plain function, outside of a flow."""
    if context is None:
        yield
        return
    _running.append(context.task_run)
    try:
        yield
    finally:
        _wait_if_halted()
        _running.remove(context.task_run)


def _wait_if_halted(beginning: TaskRunContext | None = None) -> None:
    """Go no further once the process is about to end; a stage that was to begin is told among those at work."""
    if _halted.is_set():
        if beginning:
            _running.append(beginning.task_run)
        threading.Event().wait()


def halt() -> None:
    """Let no other thread begin or end a stage: the process ends soon, and its record is being written."""
    _halted.set()


def running_stages() -> list[TaskRun]:
    """The task runs at work in this process: what a server knows of them is seconds behind."""
    return list(_running)


def _refuse_unknown_content(name: str, signature: inspect.Signature) -> None:
    content = signature.parameters.get("content")
    for parameter in signature.parameters.values():
        kinds = [each for each in (parameter.annotation, *get_args(parameter.annotation)) if isinstance(each, type)]
        if any(issubclass(kind, ModelSettings) and not issubclass(kind, ModelChoice) for kind in kinds):
            raise TypeError(f"Stage {name} takes {parameter.name} without its content: take a ModelChoice.")
        unknown = content is None or content.default is not inspect.Parameter.empty
        if unknown and any(issubclass(kind, NAMES_FILES) for kind in kinds):
            raise TypeError(f"Stage {name} takes {parameter.name} without its content: take `content: str` beside it.")


def _refuse_undeclared(name: str, area: str, leaves: tuple[Leaving, ...] | None) -> None:
    if (area == "shared") != (leaves is not None):
        raise TypeError(f"Stage {name} in {area}: say what leaves a hospital (`leaves`) in `shared`, and nowhere else.")
    if unknown := set(leaves or ()) - set(get_args(Leaving)):
        raise TypeError(f"Stage {name} lets {sorted(unknown)} leave: expected some of {get_args(Leaving)}.")


def _paths(parameters: Mapping[str, Any]) -> list[str]:
    return [ref.path for ref in _inputs(parameters)]


def _inputs(value: Any) -> list[Ref]:
    """The references in a value, in its lists, and in the fields of its records, these in the order of their names."""
    if isinstance(value, Ref):
        return [value]
    parts = value if isinstance(value, list) else [each for _, each in _fields(value)]
    return [ref for part in parts for ref in _inputs(part)]


def _settings(value: Any) -> Any:
    """A value as JSON, each reference in it a place: what this refers to is told apart by its content."""
    if isinstance(value, Ref):
        return "input"
    if isinstance(value, list):
        return [_settings(each) for each in value]
    if isinstance(value, BaseModel) and not _inputs(value):
        return value.model_dump(mode="json")
    return {name: _settings(each) for name, each in _fields(value)} if isinstance(value, BaseModel | Mapping) else value


def _fields(value: Any) -> list[tuple[str, Any]]:
    return sorted(dict(value).items()) if isinstance(value, BaseModel | Mapping) else []


def _key(name: str, parameters: Mapping[str, Any], code: str) -> str:
    return stage_key(name, _settings(parameters), _inputs(parameters), code)


class PlainErrors(logging.Filter):
    """Keeps tracebacks out of the log where the message is meant for the user."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback of a StudyError; keep the record."""
        if record.exc_info and isinstance(record.exc_info[1], StudyError):
            record.exc_info = None
        return True


for _logger in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_logger).addFilter(PlainErrors())

__all__ = ["Folder", "halt", "running_stages", "stage"]
