"""Versions of the libraries that compute results, read without importing them."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

COMPUTING: dict[str, tuple[str, ...]] = {
    "PIL": ("pillow",),
    "datasets": ("datasets",),
    "dp_accounting": ("dp-accounting",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "flwr_datasets": ("flwr-datasets",),
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "peft": ("peft",),
    "pydicom": ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm"),
    "rouge_score": ("rouge-score",),
    "sacrebleu": ("sacrebleu",),
    "scipy": ("scipy",),
    "sklearn": ("scikit-learn",),
    "tokenizers": ("tokenizers",),
    "torch": ("torch",),
    "transformers": ("transformers", "tokenizers", "bitsandbytes"),
}
"""Distributions whose version may change results, by import name.

Libraries that only transport results (files, settings, progress, pages) are left out: with another version of these,
earlier results are still right.
"""


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """The version of each distribution behind these import names of `COMPUTING`; None if it is not installed."""
    return {each: _version(each) for name in sorted(names) for each in COMPUTING[name]}


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
