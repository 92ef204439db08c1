"""A hospital's steps in a comparison of its images with the other hospitals', and what it has found out."""

import logging
from dataclasses import asdict
from pathlib import Path

from flows.sum_keys import own_keys
from tasks.cases.small_groups import is_small
from tasks.federate.privacy.secret import keyed_digest
from tasks.federate.remote.agreement import NotAgreedError
from tasks.federate.remote.durable import read_note, write_note
from tasks.federate.remote.parcel import Parcel
from tasks.federate.remote.shared_images import ImageComparison, Introduction, ids_of, images_of
from tasks.settings import Study
from tasks.settings.hospital import HospitalSettings
from tasks.store import ROOT

logger = logging.getLogger("fed_rag")
NAME = "compared.json"


class ComparedImages:
    """One hospital's. What it has found outlives the process, in a file that tells no image."""

    def __init__(self, settings: HospitalSettings) -> None:
        self._settings = settings
        self._comparison: ImageComparison | None = None
        self._path = ROOT / "hospitals" / settings.name / NAME

    def forget(self) -> None:
        """Forget what was found: it is none of another study's."""
        self._comparison = None
        self._path.unlink(missing_ok=True)

    def trained_elsewhere(self, study: Study, cases: Path) -> list[str]:
        """Ids of its test images that other hospitals train on, sorted; none if a study does not compare images.

        `cases` is the folder of the hospital's cases. Raises NotAgreedError if a study compares them, and has not.
        """
        if not study.federation.compare_images:
            return []
        found = read_note(self._path)
        if not found:
            raise NotAgreedError(
                "Expected a comparison of images before the scores, found none: start the federation again."
            )
        return sorted(each for each in ids_of(cases, "test") if self._keyed(each) in found["test_images"])

    def _keyed(self, image: str) -> str:
        """A digest of an image's id that nobody without this hospital's secret can make."""
        return keyed_digest(f"hospitals/{self._settings.name}", "image of a hospital", image.encode())

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
        elsewhere = {each for ids in found.values() for each in ids}
        write_note(self._path, {"test_images": sorted(map(self._keyed, elsewhere))})
        count = len(elsewhere)
        withheld = is_small(count, least) or is_small(len(ids_of(cases, "test")) - count, least)
        return Parcel("done", {"images": None if withheld else count})


def _introduction(told: object) -> Introduction:
    if not isinstance(told, dict) or told.keys() != {"public", "signature"}:
        raise NotAgreedError("Expected a key and its signature, found something else: use one version of fed-rag.")
    return Introduction(str(told["public"]), str(told["signature"]))
