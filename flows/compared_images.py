"""A hospital's steps in a comparison of its images with the other hospitals', and what it has found out."""

import logging
from dataclasses import asdict
from pathlib import Path

from flows.sum_keys import own_keys
from tasks.cases.small_groups import is_small
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.parcel import Parcel
from tasks.federate.remote.shared_images import ImageComparison, Introduction, ids_of, images_of
from tasks.settings import Study
from tasks.settings.hospital import HospitalSettings

logger = logging.getLogger("fed_rag")


class ComparedImages:
    """One hospital's. Nothing of it is written down: after a restart it has found nothing, until it compares again."""

    def __init__(self, settings: HospitalSettings) -> None:
        self._settings = settings
        self._comparison: ImageComparison | None = None
        self.trained_elsewhere: list[str] = []
        """Ids of its test images that other hospitals train on."""

    def answer(self, study: Study, request: Parcel, cases: Path) -> Parcel:
        """Take the next step. Raises NotAgreedError if it cannot be taken.

        `cases` is the folder of the hospital's cases.
        """
        if not study.federation.compare_images:
            raise NotAgreedError("Expected a study with federation.compare_images, found one without.")
        step, session = request.about.get("step"), request.about.get("session")
        if step == "introduce" and isinstance(session, str):
            keys = own_keys(self._settings.secure_sums, "to compare images")
            self._comparison = ImageComparison(self._settings.name, *keys, session)
            return Parcel("done", asdict(self._comparison.introduction))
        if self._comparison is None:
            raise NotAgreedError("Expected the beginning of a comparison of images, found a later step.")
        if step == "mark":
            given = {name: _introduction(each) for name, each in dict(request.about.get("keys", {})).items()}
            return Parcel("done", {}, self._comparison.marks(given, images_of(cases, "train")))
        if step == "compare":
            return self._compare(self._comparison, request, cases, study.evaluation.min_cell)
        raise NotAgreedError("Expected a step of a comparison of images, found another: use one version of fed-rag.")

    def _compare(self, comparison: ImageComparison, request: Parcel, cases: Path, least: int) -> Parcel:
        """Look for the test images that others train on; asked again, the answer is the same."""
        found = comparison.found(request.files, images_of(cases, "test"))
        for name, ids in found.items():
            logger.info("%s trains on %d of the test images here", name, len(ids))
        self.trained_elsewhere = sorted({each for ids in found.values() for each in ids})
        count = len(self.trained_elsewhere)
        withheld = is_small(count, least) or is_small(len(ids_of(cases, "test")) - count, least)
        return Parcel("done", {"images": None if withheld else count})


def _introduction(told: object) -> Introduction:
    if not isinstance(told, dict) or told.keys() != {"public", "signature"}:
        raise NotAgreedError("Expected a key and its signature, found something else: use one version of fed-rag.")
    return Introduction(str(told["public"]), str(told["signature"]))
