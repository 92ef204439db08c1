"""The datasets by name: how each is read, and what users need to know about it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tasks.errors import StudyError
from tasks.ingest import hub, medpix, omnimedvqa, path_vqa, phantom, pmc_vqa, roco, rocov2, slake, table, vqa_rad
from tasks.ingest.merge import merge
from tasks.ingest.source import Source, check
from tasks.ingest.split import make_test_split, validation_as_test
from tasks.records import Caption, Case
from tasks.store import tree_digest


@dataclass(frozen=True)
class Options:
    """Options of the readers; see DatasetSettings."""

    language: str
    frames: bool
    test: str
    test_fraction: float
    images: int
    max_rejected: float
    seed: int


@dataclass(frozen=True)
class Dataset:
    """One dataset: its reader, and its line in `fed-rag datasets`."""

    read: Callable[[Path | None, Options], Source]
    layout: str
    """Files expected at `dataset.root`."""
    licence: str
    needs: str
    """How a user obtains it."""
    hub: str | None = None
    """Its id on the Hugging Face hub, if its files there can be read unchanged."""
    drawn: bool = False
    """Whether this project draws it: it then needs no root, and no test split is added."""


def _phantom(public: bool, terms: bool = False) -> Callable[[Path | None, Options], Source]:
    return lambda _, ask: phantom.read(
        images=ask.images, seed=ask.seed, public=public, test_fraction=ask.test_fraction, terms=terms
    )


def _plain(read: Callable[..., Source]) -> Callable[[Path | None, Options], Source]:
    return lambda root, ask: read(root, max_rejected=ask.max_rejected)


DATASETS = {
    "phantom": Dataset(_phantom(public=False), "none", "Apache-2.0", "nothing: drawn here", drawn=True),
    "phantom-public": Dataset(
        _phantom(public=True), "none", "Apache-2.0", "nothing: drawn here, all of it training cases", drawn=True
    ),
    "phantom-terms": Dataset(
        _phantom(public=False, terms=True),
        "none",
        "Apache-2.0",
        "nothing: drawn here, each site with its own words for the findings",
        drawn=True,
    ),
    "vqa-rad": Dataset(
        lambda root, ask: vqa_rad.read(root, frames=ask.frames, max_rejected=ask.max_rejected),
        "VQA_RAD Dataset Public.json + VQA_RAD Image Folder/ (OSF); trainset.json, testset.json, images/ (MEVF); "
        "data/{train,test}-*.parquet (Hugging Face)",
        "CC0",
        "download from OSF (osf.io/89kps), or the hub",
        hub="flaviagiammarino/vqa-rad",
    ),
    "slake": Dataset(
        lambda root, ask: slake.read(root, language=ask.language, max_rejected=ask.max_rejected),
        "train.json, validate.json, test.json, imgs/xmlabN/source.jpg",
        "CC-BY-4.0",
        "download from med-vqa.com/slake and unpack imgs.zip; dataset.language is en, zh or all",
    ),
    "path-vqa": Dataset(
        _plain(path_vqa.read),
        "data/{train,validation,test}-*.parquet",
        "MIT (card); the images belong to their publishers",
        "the hub, or a download of its Parquet files",
        hub="flaviagiammarino/path-vqa",
    ),
    "omnimedvqa": Dataset(
        _plain(omnimedvqa.read),
        "QA_information/{Open-access,Restricted-access}/*.json, Images/",
        "that of each image's own dataset",
        "download and unpack OmniMedVQA.zip; restricted images only from their owners",
    ),
    "pmc-vqa": Dataset(
        _plain(partial(pmc_vqa.read, name="pmc-vqa")),
        "train.csv, test.csv, images/",
        "that of each article",
        "download and unpack images.zip (19 GB)",
    ),
    "pmc-vqa-v2": Dataset(
        _plain(partial(pmc_vqa.read, name="pmc-vqa-v2")),
        "train_2.csv, test_2.csv, images_2/ or figures/",
        "that of each article",
        "download and unpack images_2.zip (2 GB)",
    ),
    "roco": Dataset(
        _plain(roco.read),
        "data/{train,validation,test}/radiology/{captions.txt,dlinks.txt,images/}",
        "that of each article (licences.txt)",
        "clone razorx89/roco-dataset and run its scripts/fetch.py; captions only",
    ),
    "rocov2": Dataset(
        _plain(rocov2.read),
        "{train,valid,test}_captions.csv, {train,valid,test}_concepts.csv, {train,valid,test}/ID.jpg; "
        "data/{train,validation,test}-*.parquet (Hugging Face)",
        "CC BY-NC-SA 4.0 (Hugging Face card)",
        "download from Zenodo, or the hub (19 GB); captions only",
        hub="eltorio/ROCOv2-radiology",
    ),
    "medpix": Dataset(
        _plain(medpix.read),
        "Descriptions.json, Case_topic.json, images/, splitted_dataset/data_{train,dev,test}.jsonl",
        "none stated: do not redistribute",
        "clone the MedPix 2.0 repository; captions only",
    ),
    "table": Dataset(
        lambda root, ask: table.read(root, language=ask.language, max_rejected=ask.max_rejected),
        "one *.csv, *.jsonl or *.parquet with image, question, answer[, kind, modality, organ, patient, split]",
        "the owner's",
        "an export of a hospital; images may be DICOM files; columns may bear usual names, as PatientID",
    ),
}


def ingest(sources: Iterable[tuple[str, Path | None]], ask: Options) -> Source:
    """Read or draw each dataset, and merge them where there are several.

    A published dataset without a test split gets one, whose images are in no other split. Raises StudyError for
    anything wrong with the files.
    """
    found = {name: _ingest_one(name, root, ask) for name, root in sources}
    if len(found) == 1:
        return next(iter(found.values()))
    merged = merge(found)
    check(merged)
    return merged


def state(name: str, root: Path | None) -> str:
    """The state of a dataset's files: the digest of its folder, or its commit on the hub; "" where it has no files."""
    if root is None and (repository := DATASETS[name].hub):
        return hub.fetch(name, repository, DATASETS[name].layout).name
    return tree_digest(root) if root and root.is_dir() else ""


def _ingest_one(name: str, root: Path | None, ask: Options) -> Source:
    if name not in DATASETS:
        raise StudyError(f"Expected dataset.name to be one of {', '.join(DATASETS)}, found {name!r}: choose one.")
    dataset = DATASETS[name]
    revisions = {}
    if root is None and dataset.hub:
        root = hub.fetch(name, dataset.hub, dataset.layout)
        revisions = {name: root.name}
    source = replace(dataset.read(root, ask), revisions=revisions)
    check(source)
    if ask.test == "validation":
        return validation_as_test(source, name)
    return source if dataset.drawn else _with_test_split(source, ask)


def _with_test_split(source: Source, ask: Options) -> Source:
    if any(record.split == "test" for record in source.records):
        return source
    if not source.cases:
        captions = make_test_split(source.captions, ask.test_fraction, ask.seed)
        return replace(source, captions=captions, notes=source.notes | _made("captions", captions))
    cases = make_test_split(source.cases, ask.test_fraction, ask.seed)
    return replace(source, cases=cases, notes=source.notes | _made("cases", cases))


def _made(what: str, records: Sequence[Case | Caption]) -> dict[str, int]:
    return {f"{what} made into a test split": sum(record.split == "test" for record in records)}
