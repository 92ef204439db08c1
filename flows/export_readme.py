"""The README of an exported folder: its files, its hospital, how to ask, and the differences from the run."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from flows.serve.place import Place
from tasks.text.wording import counted

NEEDED = ("torch", "transformers", "peft", "faiss-cpu", "pandas", "pyarrow", "pillow")


def readme(place: Place, hospital: str, cases: int, settings: Mapping[str, Any], as_run: bool) -> str:
    """The README of an exported folder, in Markdown.

    Args:
        place: the exported hospital of a run.
        hospital: the hospital's name.
        cases: number of entries of the index.
        settings: the content of `export.json`.
        as_run: whether the index is the run's.
    """
    files = "\n".join(f"- {line}" for line in _files(place, cases, settings))
    differs = "\n".join(f"- {line}" for line in _differs(place, settings, as_run))
    needed = " ".join(f"{name}=={version(name).split('+')[0]}" for name in NEEDED)
    return f"""# {hospital} of run {settings["run"]}

**This folder holds {hospital}'s own cases: images, questions, answers. It must stay at {hospital}.** Where a patient
withdraws, delete it and export it again: `fed-rag forget` does not know of it. It is no medical device.

## In it
{files}

## To ask
```sh
pip install {needed}
python ask.py IMAGE "QUESTION"
```
The answer is printed on standard output, before it on standard error the cases that were shown. Those versions are
the ones it was exported with; others may move last digits, and with them now and then an answer.

## What differs from the run
{differs}
"""


def _files(place: Place, cases: int, settings: Mapping[str, Any]) -> Iterator[str]:
    name = f"`{place.model.name}` (content `{place.model.content}`)"
    hub = settings["hub"]
    if settings["folder"] == "model":
        yield f"`model/`: the base {name} with the trained adapter merged into it, an ordinary Hugging Face folder"
    elif hub:
        yield (
            "`base/`: tokenizer, chat template, image processor and generation settings. **No weights are in it**: "
            f"ask.py loads those of `{hub['pretrained_model_name_or_path']}` at revision `{hub['revision']}` from the "
            "hub or its cache"
        )
    else:
        yield f"`base/`: the base {name}, an ordinary Hugging Face folder"
    if settings["folder"] == "base":
        yield "`adapter/`: the adapter that the run ended with, an ordinary PEFT folder for this base"
    yield f"`index.faiss`: the library of {counted(cases, 'training cases')}, an ordinary FAISS index of inner products"
    yield (
        "`entries.parquet`: a row for each of them, by its `number` in the index: `case_id`, `image_id`, `group` (the "
        "patient, where the dataset states one), `question` and `answer` as the model is shown them"
    )
    yield "`images.parquet`: their images, PNG as the model sees them, and `picture`, the digest of the pixels"
    yield "`encoder.json`: what a question is turned into a row with; `library.json`: what is never shown with what"
    yield "`export.json`: the settings of the run that ask.py follows"
    yield "`ask.py`, and what it imports: `library.py`, `pixels.py`"


def _differs(place: Place, settings: Mapping[str, Any], as_run: bool) -> Iterator[str]:
    retrieval = place.study.retrieval
    if settings["folder"] == "model" and place.study.lora.tower_targets:
        yield (
            "The run compared cases by what the vision tower saw before training (`lora.tower_targets`). Only the "
            "trained tower is here, and this index was built anew of what it sees: other cases may be shown."
        )
    elif not as_run:
        yield (
            f"The run compared cases by the encoder `{retrieval.encoder}` and `{retrieval.fusion}` fusion, which take "
            "more than plain code. This index was built anew of the base's image features and the questions' words: "
            "other cases are shown than in the run."
        )
    if retrieval.rerank != "off":
        yield "The run ranked the first 50 cases anew (`retrieval.rerank`): ask.py shows the nearest as they are found."
    if retrieval.diversity:
        yield "The run chose cases that are not all alike (`retrieval.diversity`): ask.py shows the nearest."
    if retrieval.order == "random":
        yield "The run showed cases in an order drawn by the question's id: ask.py shows the nearest last."
    yield (
        "Never shown are cases of the very image that is asked about, of its copies that the run knew, and of their "
        "patient. Of an image that is not in the library nothing is known: near-duplicates of it, and other images of "
        "its patient, may be shown. `fed-rag run` hides both."
    )
    if place.study.evaluation.coverage < 1:
        yield "The run withholds answers that the model is not sure of (`evaluation.coverage`): ask.py gives them all."
    if place.model.quantisation != "none":
        yield "The run kept weights in 4 bits (`model.quantisation`): here they are whole, so answers may differ."
    if settings["folder"] == "model":
        yield "Merged weights are rounded once more than base and adapter apart: now and then an answer may differ."
    yield "ask.py reads image files as PNG, JPEG and TIFF, and no DICOM: `fed-rag ask` does."
    yield "Of a large library ask.py searches the index alone, without the finer codes in `fine.faiss`."
