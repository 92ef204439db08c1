"""The records that pass between stages: frozen dataclasses, whose fields define the Parquet schema of their tables."""

from tasks.records.data import Caption, Case, Finding, Image, ImagePair, Kind, SeenImage, Split, Synthetic
from tasks.records.results import (
    EpochLoss,
    FailureModes,
    Neighbour,
    Outcome,
    Prediction,
    Saliency,
    Share,
    UpdateCounts,
)
from tasks.records.tables import BATCH, Record, among, read_findings, read_images, read_table, schema, write_table

__all__ = [
    "BATCH",
    "Caption",
    "Case",
    "EpochLoss",
    "FailureModes",
    "Finding",
    "Image",
    "ImagePair",
    "Kind",
    "Neighbour",
    "Outcome",
    "Prediction",
    "Record",
    "Saliency",
    "SeenImage",
    "Share",
    "Split",
    "Synthetic",
    "UpdateCounts",
    "among",
    "read_findings",
    "read_images",
    "read_table",
    "schema",
    "write_table",
]
