"""The decorator `stage`: makes a Prefect task that writes one folder of the store and is cached by content."""

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, Literal, ParamSpec, get_args
from uuid import UUID

from prefect import Task, task
from prefect.client.schemas import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.results import get_result_store
from prefect.serializers import Serializer
from pydantic import BaseModel

from tasks.errors import StudyError
from tasks.settings import DatasetSettings, EncoderSettings, ModelChoice, ModelSettings, SynthesisSettings
from tasks.store import ROOT, Folder, Ref, kept, stage_key, writing
from tasks.store.again import asked_again
from tasks.store.code import body_digest
from tasks.store.leaving import Files, OfPublicData, refuse_undeclared
from tasks.store.provenance import name_inputs

Given = ParamSpec("Given")
Leaving = Literal["tensors", "counts", "losses", "scores", "memory"]
"""What may leave a hospital: tensors learned from cases; numbers of cases, images or steps; mean losses; scores of
answers (correct ones, sums by image, mean shares of the prompt's parts); the memory of a process in bytes."""
NAMES_FILES = (DatasetSettings, EncoderSettings, SynthesisSettings)
"""Settings that name files outside the store. A stage that takes them must also take the files' content."""


class RefSerializer(Serializer):
    """Stores references as JSON. Reading one fails if its files are missing or have changed.

    Prefect treats an unreadable record as a cache miss, so the stage runs again and rewrites the record.
    """

    type: Literal["fed-rag-ref"] = "fed-rag-ref"

    def dumps(self, obj: Any) -> bytes:
        """A Ref as JSON; a failed run's exception as its text."""
        return obj.model_dump_json().encode() if isinstance(obj, Ref) else str(obj).encode()

    def loads(self, blob: bytes) -> Ref:
        """The Ref, after verifying its files."""
        return Ref.model_validate_json(blob).verified()


def stage(
    name: str,
    area: str,
    title: str | None = None,
    reads: tuple[str, ...] = (),
    chosen: tuple[str, ...] = (),
    leaves: tuple[Leaving, ...] | None = None,
    writes: Files | None = None,
) -> Callable[[Callable[Concatenate[Folder, Given], None]], Task[Given, Ref]]:
    """Turn a function into a Prefect task that writes the folder `area/name/key` and returns its Ref.

    The function gets the folder to fill, then the task's parameters. The key is a digest of all these parameters
    (references by content), the code that the function runs (`code.py`), and the versions of the libraries that this
    code uses. So the same work is never done twice, in any run.

    Args:
        name: name of the stage, of its folder and of its task.
        area: `source`, `shared` or `hospitals/{hospital}`, formatted with the parameters.
        title: name of one task run, formatted with the parameters; default `name`.
        reads: files of the project that the function reads besides its references, such as `data/glossary.txt`.
        chosen: modules that the function imports dynamically, formatted with the parameters. Only these count in the
            key, not the alternatives.
        leaves: kinds of data that leave a hospital in this folder, for the manifest; `()` if it holds nothing of a
            hospital's cases. Required for stages in `shared`, forbidden for others. Not part of the key.
        writes: the files that the function may write, each with the fields that it may hold. Anything else is an error,
            and nothing is stored. Required for stages in `shared`, forbidden for others. Not part of the key.

    Raises TypeError if `leaves` or `writes` is missing in `shared` or given elsewhere, if `leaves` has unknown kinds,
    or if files are written unseen though something leaves. Raises TypeError also if the function takes settings that
    name files but not the files' content: it must take a model as a ModelChoice, and a required parameter `content`
    beside settings in `NAMES_FILES`.
    """

    def wrap(body: Callable[Concatenate[Folder, Given], None]) -> Task[Given, Ref]:
        signature = inspect.signature(body)
        _refuse_unknown_content(name, signature)
        _refuse_to_leave(name, area, leaves, writes)
        digest = functools.cache(functools.partial(body_digest, body, reads))

        def key_of(parameters: Mapping[str, Any]) -> str:
            return _key(name, parameters, digest(tuple(module.format(**parameters) for module in chosen)))

        def path_of(parameters: Mapping[str, Any]) -> str:
            return f"{area.format(**parameters)}/{name}/{key_of(parameters)}"

        def covered(parameters: Mapping[str, Any]) -> bool:
            """Whether the folder of these parameters was asked for again, and is not made yet."""
            again = asked_again()
            if again is None:
                return False
            path = path_of(parameters)
            return again.covers(path, (name, *_parts()), _paths(parameters)) and not again.is_done(path)

        @functools.wraps(body)
        def run(**parameters: Any) -> Ref:
            with _listed_as_running(TaskRunContext.get()):
                key, again = key_of(parameters), asked_again()
                if not again and (made := kept(f"{area.format(**parameters)}/{name}/{key}")):
                    return made  # by another machine
                with writing(area.format(**parameters), name, key) as folder:
                    folder.inputs, folder.leaves = _paths(parameters), list(leaves or ())
                    folder.again = again.run if again else None
                    body(folder, **parameters)  # type: ignore[call-arg]  # a stage is called by names alone
                    if writes is not None:
                        refuse_undeclared(name, folder, writes)
                return folder.ref

        run.__signature__ = _without_folder(signature)  # type: ignore[attr-defined]
        run.writes = writes  # type: ignore[attr-defined]
        run.covered = covered  # type: ignore[attr-defined]

        def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
            _wait_if_halted(context)
            path = path_of(parameters)
            record = path.replace("/", "-")
            if covered(parameters):
                (ROOT / ".records" / record).unlink(missing_ok=True)  # Prefect then runs the stage
            name_inputs(path, _paths(parameters))
            return record

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


def found_or_made(made_by: Task[..., Ref], parameters: Mapping[str, Any]) -> Ref:
    """A stage's folder, as a task run of its own would find or make it, within the task run that calls this."""
    context = TaskRunContext.get()
    assert context is not None
    assert made_by.cache_key_fn is not None
    given = inspect.signature(made_by.fn).bind(**parameters)
    given.apply_defaults()
    key = made_by.cache_key_fn(context, given.arguments)
    assert key is not None
    records: Any = get_result_store().update_for_task(made_by)  # of Prefect's two types, not the coroutine
    if records.exists(key):  # it is unreadable, and so does not, if the folder's files are missing or have changed
        found: Ref = records.read(key).result
        return found
    made = made_by.fn(**given.arguments)
    records.write(made, key)
    return made


def _parts() -> list[str]:
    """What the flow run is called that asks for a stage: within a part of a flow, the part's name."""
    context = FlowRunContext.get()
    return [context.flow_run.name] if context and context.flow_run else []


_running: dict[UUID, TaskRun] = {}
"""By id: while one is looked for in a list by comparing, another thread may change the list."""
_halted = threading.Event()


@contextlib.contextmanager
def _listed_as_running(context: TaskRunContext | None) -> Iterator[None]:
    """List a stage as running while it works; `context` is None if it runs as a plain function, outside a flow."""
    if context is None:
        yield
        return
    _running[context.task_run.id] = context.task_run
    try:
        yield
    finally:
        _wait_if_halted()
        del _running[context.task_run.id]


def _wait_if_halted(beginning: TaskRunContext | None = None) -> None:
    """Block forever once the process is about to exit; a stage that was about to begin is listed as running first."""
    if _halted.is_set():
        if beginning:
            _running[beginning.task_run.id] = beginning.task_run
        threading.Event().wait()


def halt() -> None:
    """Stop all threads from beginning or ending stages, while the run's end is recorded before the process exits."""
    _halted.set()


def running_stages() -> list[TaskRun]:
    """The task runs that are running in this process; a server learns of them seconds later."""
    return list(_running.values())


def _refuse_unknown_content(name: str, signature: inspect.Signature) -> None:
    content = signature.parameters.get("content")
    for parameter in signature.parameters.values():
        kinds = [each for each in (parameter.annotation, *get_args(parameter.annotation)) if isinstance(each, type)]
        if any(issubclass(kind, ModelSettings) and not issubclass(kind, ModelChoice) for kind in kinds):
            raise TypeError(f"Stage {name} takes {parameter.name} without its content: take a ModelChoice.")
        unknown = content is None or content.default is not inspect.Parameter.empty
        if unknown and any(issubclass(kind, NAMES_FILES) for kind in kinds):
            raise TypeError(f"Stage {name} takes {parameter.name} without its content: take `content: str` beside it.")


def _refuse_to_leave(name: str, area: str, leaves: tuple[Leaving, ...] | None, writes: Files | None) -> None:
    if not (area == "shared") == (leaves is not None) == (writes is not None):
        raise TypeError(
            f"Stage {name} in {area}: say what leaves a hospital (`leaves`) and in which files (`writes`) in `shared`, "
            "and nowhere else."
        )
    if unknown := set(leaves or ()) - set(get_args(Leaving)):
        raise TypeError(f"Stage {name} lets {sorted(unknown)} leave: expected some of {get_args(Leaving)}.")
    if leaves and (unseen := [file for file, content in (writes or {}).items() if isinstance(content, OfPublicData)]):
        raise TypeError(f"Stage {name} lets something leave: say what {unseen[0]} may hold.")


def _without_folder(signature: inspect.Signature) -> inspect.Signature:
    """The signature of the task: without the folder, the first parameter, and returning its Ref."""
    _, *kept = signature.parameters.values()
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
    return signature.replace(parameters=parameters, return_annotation=Ref)


def _paths(parameters: Mapping[str, Any]) -> list[str]:
    return [ref.path for ref in _inputs(parameters)]


def _inputs(value: Any) -> list[Ref]:
    """The references in a value, including its lists and the fields of its records, fields sorted by name."""
    if isinstance(value, Ref):
        return [value]
    parts = value if isinstance(value, list) else [each for _, each in _fields(value)]
    return [ref for part in parts for ref in _inputs(part)]


def _settings(value: Any) -> Any:
    """A value as JSON, with a placeholder for each reference: the key holds references by content, separately."""
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
    """Keeps tracebacks of errors that are meant for the user out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback of a StudyError; keep the record."""
        if record.exc_info and isinstance(record.exc_info[1], StudyError):
            record.exc_info = None
        return True


for _logger in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_logger).addFilter(PlainErrors())

__all__ = ["Folder", "found_or_made", "halt", "running_stages", "stage"]
