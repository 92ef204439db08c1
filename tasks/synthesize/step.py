"""The questions step: makes question-answer pairs from captions, and open questions from multiple choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import StudyError
from tasks.records import Caption, Case, Synthetic, read_table, write_table
from tasks.settings import SynthesisSettings
from tasks.store import MANIFEST, Ref, tree_digest
from tasks.store.stage import Folder, stage

if TYPE_CHECKING:
    from tasks.synthesize.generate import Writer


@stage("questions", area="source")
def synthesize_questions(
    folder: Folder, dataset: Ref, settings: SynthesisSettings, content: str, device: str, seed: int
) -> None:
    """Write the dataset's cases and the synthetic ones.

    `content` identifies the state of the language model's files, and `device` where it runs; both are "" without a
    model.
    """
    from tasks.synthesize.choices import reword
    from tasks.synthesize.generate import askable, synthesize

    published = read_table(dataset.folder / "cases.parquet", Case)
    captions = read_table(dataset.folder / "captions.parquet", Caption)
    cases, written = published, list[Case]()
    origins, report = list[Synthetic](), dict[str, Any]()
    if settings.choices == "open":
        cases = [reword(case) for case in published]
    if settings.generator != "none":
        written, origins, report = synthesize(
            askable(captions, published),
            settings.generator,
            seed=seed,
            ask_sex_and_age=settings.ask_sex_and_age,
            model=settings.model,
            writer=_open_writer(settings.model, content, device) if settings.generator == "model" else None,
            published=cases,
        )
    with folder.open("cases.parquet") as sink:
        write_table(sink, Case, [*cases, *written])
    with folder.open("synthetic.parquet") as sink:
        write_table(sink, Synthetic, origins)
    with folder.open("choices.parquet") as sink:  # as published, for scoring by option
        write_table(sink, Case, (case for case in published if case.options))
    folder.write_json("quality.json", report)
    made_open = sum(bool(case.options) for case in published) - sum(bool(case.options) for case in cases)
    folder.summary = {
        "published": len(published),
        "synthetic": len(written),
        "choices": {"published": sum(bool(case.options) for case in published), "without options": made_open},
        "quality": report.get("after", {}),
    }


def _open_writer(model: str | None, content: str, device: str) -> "Writer | None":
    """Load the language model, if one is named; StudyError where its folder changed while the study ran."""
    if not model:
        return None
    from tasks.synthesize.model import load_writer

    writer = load_writer(model, device)
    if Path(model).is_dir() and tree_digest(Path(model), without=(MANIFEST,)) != content:
        raise StudyError(
            f"Expected the model in {model} to stay as it was when the work began, found it changed: "
            "run it again, with one model throughout."
        )
    return writer
