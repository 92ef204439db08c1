"""What is refused before anything starts: other encodings, paths that are not there or cannot be written."""

import errno
import importlib.util
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tasks.errors import StudyError
from tasks.settings import DatasetSettings, ModelSettings, Study


def refuse_other_encodings() -> None:
    """Raise StudyError for an argument that is no UTF-8: it could be neither answered nor written to a file."""
    for number, word in enumerate(sys.argv[1:], 1):
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            escaped = word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise StudyError(
                f"Expected arguments in UTF-8, found another encoding in argument {number}, {escaped!r}: "
                "set the terminal to UTF-8, or rename the file."
            )


def refuse_absent(study: Study) -> None:
    """Raise StudyError where a study names data, a model or a package that is not there."""
    refuse_absent_data(study.dataset)
    refuse_absent_control(study)
    refuse_absent_model(study.model)
    refuse_no_folder("retrieval.encoder_model", study.retrieval.encoder_model)
    if study.retrieval.encoder == "efficientnet":
        from tasks.retrieve.encoders.efficientnet import identify_efficientnet

        identify_efficientnet()
    if study.synthesis.generator == "model":
        refuse_no_folder("synthesis.model", study.synthesis.model)


def refuse_absent_all(studies: Iterable[Study]) -> None:
    """Raise StudyError as `refuse_absent` does; presets are left out, which may have a stand-in."""
    seen: list[Study] = []
    for study in studies:
        named = Study(dataset=study.dataset, synthesis=study.synthesis, audit=study.audit, retrieval=study.retrieval)
        if named not in seen:
            seen.append(named)
            refuse_absent(named)
        refuse_no_folder("model.name", study.model.name)


def refuse_absent_data(dataset: DatasetSettings, chosen: str = "dataset.name=", folder: str = "dataset.root") -> None:
    """Raise StudyError where a dataset has no folder: one that needs none, or is had from the hub, is none of these.

    It names the two as the command takes them: settings, or options.
    """
    from tasks.ingest.datasets import DATASETS

    for name, root in dataset.sources:
        known = DATASETS[name]
        if root is None and not known.drawn and not known.hub:
            raise StudyError(
                f"Expected {folder} beside {chosen}{name}, found none: set it to the folder that holds "
                "the dataset as published."
            )
        if root is not None and not root.is_dir():
            found = "is a file" if root.exists() else "is not there"
            raise StudyError(f"Expected {folder} to be a folder, found {root}, which {found}: name the folder.")


def refuse_absent_control(study: Study) -> None:
    """Raise StudyError where the audit's negative control has no folder, or is the study's own dataset."""
    from flows.outside import control_of

    if control := control_of(study):
        refuse_absent_data(control, "audit.control=", "audit.control_root")


def refuse_absent_model(model: ModelSettings) -> None:
    """Raise StudyError where a base is neither a folder of a model nor to be had from the hub."""
    from tasks.engine.identity import identify, resolve

    refuse_no_folder("model.name", model.name)
    folder = Path(resolve(model.name))
    if not folder.is_dir() or not (folder / "config.json").is_file() or model.revision:
        identify(model.name, model.revision)  # which says what is wrong; a whole folder's digest takes long


def refuse_no_folder(setting: str, name: str | None) -> None:
    """Raise StudyError where a name that can only be a folder's is none: a hub id has two parts and no dots."""
    path = Path(name or ".")
    is_path = path.is_absolute() or str(name).startswith("./") or ".." in path.parts or len(path.parts) > 2
    if name and is_path and not path.is_dir():
        raise StudyError(
            f"Expected {setting} to be a folder or a hub id, found {name}, which is not there: correct it."
        )


def refuse_no_run(run: Path) -> None:
    """Raise StudyError where there is no folder of a run."""
    if not run.is_dir():
        raise StudyError(
            f"Expected a finished run in {run}, found no such folder: run `fed-rag run` first, or name another run."
        )


def refuse_unwritable(out: Path) -> None:
    """Raise StudyError where a file could not be written, before the work is done that fills it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise StudyError(
            f"Expected --out to be a file that can be written, found {out} ({error.strerror}): name another."
        ) from None


def refuse_unwritable_folder(out: Path) -> None:
    """Raise StudyError where a folder could not be made or written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise StudyError(
            f"Expected --out to be a folder that can be written, found {out} ({error.strerror}): name another."
        ) from None


def refuse_without_flower() -> None:
    """Raise StudyError if Flower is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise StudyError("Expected the package flwr, found none: install it with `pip install '.[flower]'`.")
