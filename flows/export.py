"""Exports a hospital's part of a run to a folder that works without this project: model, adapter, library, script."""

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save

from flows.export_readme import readme
from flows.files import writing_folder
from flows.serve.place import Place, open_place
from tasks.engine.adapter import CONFIG, WEIGHTS, as_one, load_state
from tasks.engine.base import Base
from tasks.engine.batch import broken, ending_marks
from tasks.engine.context import readable
from tasks.engine.engine import Engine
from tasks.engine.hospital import answering_context, mixture_of
from tasks.engine.identity import RECORD, resolve
from tasks.engine.shared import exclusive_base
from tasks.engine.vision import FEATURES, encode_images, load_features
from tasks.engine.written import write_base, write_companions
from tasks.errors import OURS, StudyError
from tasks.records import Case, Image, read_images, read_table
from tasks.records.pixels import picture_digest, to_rgb
from tasks.retrieve.encoded import Inputs
from tasks.retrieve.library import ENTRIES, Library, build_library, read_library
from tasks.retrieve.retriever_files import ENCODER, open_library_encoder
from tasks.retrieve.similarity import TOKENS, Encoder, encoder_to_json, fit_encoder
from tasks.store import here, shipped
from tasks.text.options import lettered

SCRIPTS = shipped.DATA / "export"
PIXELS = shipped.ROOT / "tasks" / "records" / "pixels.py"
WEIGHED = ("config.json", "*.safetensors", "*.safetensors.index.json", RECORD, "LICENSE*")
"""Files of a base's folder that are copied; all others are written anew, as the engine uses them."""


@dataclass(frozen=True)
class Hub:
    """A base that is not copied, because it can be downloaded from the hub."""

    name: str
    revision: str


def export(run: Path, hospital: str, out: Path, merge: bool = False, personal: bool = False) -> Path:
    """Write a hospital's model, adapter and library into a folder, completely or not at all; returns the folder.

    Args:
        run: a finished run.
        hospital: the hospital to export.
        out: a folder that does not exist, or is empty.
        merge: write one model with the adapter merged into the base, instead of both.
        personal: take the hospital's personal adapter instead of the one for all.

    Raises StudyError as `open_place` does (for an unknown run or hospital, or a base that is not the run's), if the
    run's images were pooled to fewer tokens, and if the folder is not empty or cannot be written.
    """
    place = open_place(run, hospital, "library", personal=personal)
    for part, tokens in (("model", place.model.image_tokens), ("retrieval", place.study.retrieval.image_tokens)):
        if tokens is not None:
            raise StudyError(
                f"Expected a run with all tokens of an image, found {part}.image_tokens {tokens}, which transformers "
                "alone cannot do: export a run without it."
            )
    plain = {"device": "cpu", "precision": "float32", "quantisation": "none", "gradient_checkpointing": False}
    with writing_folder(out) as folder, exclusive_base(place.model.model_copy(update=plain)) as base:
        hub = None if merge else _hub(place)
        pattern = ending_marks(base)
        _write_model(folder, place, base, hub, merge)
        library, encoder, as_run = _library(place, base if merge and place.study.lora.tower_targets else None)
        _write_library(folder, place, library, encoder, pattern)
        learned = base.family.projector if place.study.lora.projector else None
        settings = _settings(place, hub, merge) | {"projector": learned, "marks": pattern.pattern}
        (folder / "export.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _write_scripts(folder)
        (folder / "README.md").write_text(
            readme(place, hospital, len(library.entries), settings, as_run), encoding="utf-8"
        )
    return out


def _hub(place: Place) -> Hub | None:
    """The base's name and commit on the hub; None for a local folder."""
    name = resolve(place.model.name)
    return None if Path(name).is_dir() else Hub(name, place.model.content.rpartition("@")[2])


def _settings(place: Place, hub: Hub | None, merge: bool) -> dict[str, Any]:
    """The settings that the exported scripts read."""
    context, mixture = answering_context(place.study.retrieval.context, place.tuning), mixture_of(place.tuning)
    return {
        "run": place.run.resolve().name,
        "folder": "model" if merge else "base",
        "hub": {"pretrained_model_name_or_path": hub.name, "revision": hub.revision} if hub else {},
        "dtype": place.model.precision,
        "k": context.k,
        "floor": context.floor,
        "weight": mixture.weight if mixture else 0,
        "temperature": mixture.temperature if mixture else None,
        "order": context.order,
        "show": context.show,
        "say_similarity": context.say_similarity,
        "quote": context.quote,
        "words": TOKENS,
    }


def _library(place: Place, merged: Base | None) -> tuple[Library, Encoder, bool]:
    """The run's library and encoder, or a new library of the base's features if plain code cannot make the run's rows.

    The third value is True if they are the run's. `merged` is the exported model if its tower is no longer the one that
    the run's rows were made with; the new library then has what that model sees.
    """
    folder, retrieval = here(place.folders["library"]), place.study.retrieval
    run_library, encoder = read_library(folder, mapped=False), open_library_encoder(folder)
    if retrieval.encoder == "base" and isinstance(encoder, Encoder) and merged is None:
        return run_library, encoder, True
    training = _entered(place, run_library)
    features = load_features(here(place.folders["features"]) / FEATURES)
    if merged is not None:
        features = encode_images(merged, _images(place, training), projected=features.projected)
    inputs = Inputs(features).of(training)
    fitted = fit_encoder(*inputs, retrieval.image_weight)
    rows = fitted.encode(*inputs)
    return build_library(rows, training, retrieval.index, run_library.hide_patient, run_library.copies), fitted, False


def _entered(place: Place, library: Library) -> list[Case]:
    """The cases of a library, in its order."""
    cases = {case.id: case for case in read_table(here(place.folders["cases"]) / "cases.parquet", Case)}
    return [cases[name] for name in library.entries.case_ids(library.entries.numbers)]


def _write_library(folder: Path, place: Place, library: Library, encoder: Encoder, pattern: Any) -> None:
    """Write the index, its entries with question and answer as a prompt shows them, and their images."""
    library.write(folder)
    longest = place.study.retrieval.characters
    cases = _entered(place, library)
    entries = library.entries.table.to_pandas()
    questions = (lettered(case.question, case.options) if case.options else case.question for case in cases)
    entries["question"] = [broken(readable(text, longest), pattern) for text in questions]
    entries["answer"] = [broken(readable(case.answer, longest), pattern) for case in cases]
    entries.to_parquet(folder / ENTRIES, index=False)
    encoder_json = json.dumps(encoder_to_json(encoder), ensure_ascii=False)
    (folder / ENCODER).write_text(encoder_json, encoding="utf-8")
    rows = pd.DataFrame(_pictures(_images(place, cases)), columns=["image_id", "picture", "png"])
    rows.to_parquet(folder / "images.parquet", index=False)


def _images(place: Place, cases: Sequence[Case]) -> Iterator[Image]:
    """The images of some of the hospital's cases."""
    wanted = {case.image_id for case in cases}
    stored = read_images(here(place.folders["cases"]) / "images.parquet")
    return (image for image in stored if image.id in wanted)


def _pictures(images: Iterable[Image]) -> Iterator[tuple[str, str, bytes]]:
    """Each image's id, its picture's digest, and the picture as the model sees it, as PNG."""
    for image in images:
        picture, sink = to_rgb(image.data), io.BytesIO()
        picture.save(sink, "PNG")
        yield image.id, picture_digest(picture), sink.getvalue()


def _write_scripts(folder: Path) -> None:
    """Write the scripts, and the module that decodes image files (`tasks.records.pixels`)."""
    for script in sorted(SCRIPTS.glob("*.py")):
        shutil.copyfile(script, folder / script.name)
    rule = PIXELS.read_text(encoding="utf-8").replace("from tasks.errors import OURS", f"OURS = {_names(OURS)}")
    (folder / "pixels.py").write_text(rule, encoding="utf-8")


def _names(kinds: tuple[type[Exception], ...]) -> str:
    return f"({', '.join(kind.__name__ for kind in kinds)})"


def _write_model(folder: Path, place: Place, base: Base, hub: Hub | None, merge: bool) -> None:
    """Write the base and the adapter, or one merged model."""
    most = place.study.evaluation.max_new_tokens
    if merge:
        lora = place.study.lora
        engine = Engine(base, lora.r, lora.alpha, lora.dropout, lora.targets, lora.projector, lora.tower_targets)
        engine.switch(load_state(place.adapter))
        write_base(folder / "model", engine.merge(), base.tokenizer, base.image_processor, most)
        return
    target = folder / "base"
    target.mkdir()
    if hub is None:
        source = Path(resolve(place.model.name))
        for path in sorted({path for kind in WEIGHED for path in source.glob(kind)}):
            shutil.copyfile(path, target / path.name)
    write_companions(target, base.config, base.tokenizer, base.image_processor, most)
    (folder / "adapter").mkdir()
    config = json.loads((place.adapter / CONFIG).read_text(encoding="utf-8"))
    state, config = as_one(load_state(place.adapter), config)
    (folder / "adapter" / WEIGHTS).write_bytes(save(dict(sorted(state.items())), {"format": "pt"}))
    config |= {"base_model_name_or_path": hub.name if hub else "base", "revision": hub.revision if hub else None}
    (folder / "adapter" / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
