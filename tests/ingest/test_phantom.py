"""The embedded dataset: the same for everyone, four hospitals that differ, and questions that need the image."""

import hashlib
import io
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from statistics import mean, median

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from tasks.errors import StudyError
from tasks.ingest import phantom
from tasks.ingest.datasets import Options, ingest
from tasks.ingest.phantom_images import COLUMN, COMMON, FINDINGS, MODALITIES, ORGANS, RARE, ROW, Look, Spot, draw
from tasks.ingest.source import Source
from tasks.records import Case, Finding, Kind
from tasks.score.baselines import majority, question_only

SITES = ("site-1", "site-2", "site-3", "site-4")
IMAGES = 120
NAMES = "|".join(COMMON + RARE)
TERMS = {site.name: site.terms for site in phantom.SITES_WITH_TERMS}


@pytest.fixture(scope="module")
def hospitals() -> Source:
    return phantom.read(images=IMAGES, seed=0, public=False, test_fraction=0.2)


@pytest.fixture(scope="module")
def public() -> Source:
    return phantom.read(images=80, seed=0, public=True, test_fraction=0.2)


@pytest.fixture(scope="module")
def findings(hospitals: Source, public: Source) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = defaultdict(list)
    for each in hospitals.findings + public.findings:
        found[each.image_id].append(each)
    return found


def pixels(data: bytes) -> NDArray[np.uint8]:
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def site_of(image_id: str) -> str:
    return image_id.rsplit("-", 1)[0]


def digest(source: Source) -> str:
    """Of every byte of it."""
    return hashlib.sha256(repr(source).encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib; from tasks.ingest import phantom\n"
        "for public in (False, True):\n"
        "    source = phantom.read(images=4, seed=3, public=public, test_fraction=0.25)\n"
        "    print(hashlib.sha256(repr(source).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [digest(phantom.read(images=4, seed=3, public=public, test_fraction=0.25)) for public in (False, True)]
    assert done.stdout.split() == here


def test_other_seeds_sites_and_numbers_give_other_images() -> None:
    seen: Counter[bytes] = Counter()
    for seed in (0, 1):
        for public in (False, True):
            seen.update(
                each.data for each in phantom.read(images=6, seed=seed, public=public, test_fraction=0.2).images
            )
    assert len(seen) == 2 * 5 * 6


def test_an_image_does_not_depend_on_how_many_are_drawn() -> None:
    few, more = (phantom.read(images=images, seed=0, public=False, test_fraction=0.25) for images in (4, 8))
    larger = {each.id: each for each in more.images}
    assert all(larger[each.id] == each for each in few.images)
    questions = {each.id: (each.question, each.answer) for each in more.cases}
    assert all(questions[each.id] == (each.question, each.answer) for each in few.cases)


def test_counts(hospitals: Source, public: Source) -> None:
    assert Counter(site_of(each.id) for each in hospitals.images) == dict.fromkeys(SITES, IMAGES)
    assert Counter(site_of(each.id) for each in public.images) == {"public": 80}
    for source in (hospitals, public):
        images = {each.id for each in source.images}
        assert len(images) == len(source.images)
        assert len({each.id for each in source.cases}) == len(source.cases)
        assert images == {each.image_id for each in source.cases}
        assert {each.image_id for each in source.findings} < images
        assert 4 < len(source.cases) / len(images) < 15
    assert all(each.site == site_of(each.image_id) for each in hospitals.cases)
    assert {each.site for each in public.cases} == {None}


@pytest.mark.parametrize(("images", "fraction", "tests"), [(120, 0.2, 24), (10, 0.25, 2), (4, 0.01, 1), (5, 0.8, 4)])
def test_test_split_has_its_share_of_each_site_and_no_image_of_training(
    images: int, fraction: float, tests: int
) -> None:
    source = phantom.read(images=images, seed=0, public=False, test_fraction=fraction)
    for site in SITES:
        split = {
            name: {each.image_id for each in source.cases if each.site == site and each.split == name}
            for name in ("train", "validation", "test")
        }
        assert not split["validation"]
        assert (len(split["test"]), len(split["train"])) == (tests, images - tests)
        assert split["test"].isdisjoint(split["train"])


def test_the_public_part_is_for_training_alone(public: Source) -> None:
    assert {each.split for each in public.cases} == {"train"}


def test_a_test_split_that_takes_everything_is_told() -> None:
    with pytest.raises(StudyError, match="Expected training cases, found none"):
        options = Options("en", False, "published", test_fraction=0.99, images=4, max_rejected=0.01, seed=0)
        ingest([("phantom", None)], options)


def test_every_hospital_sees_findings_that_the_public_part_lacks(hospitals: Source, public: Source) -> None:
    shares = {}
    for site in SITES:
        counts = Counter(each.name for each in hospitals.findings if site_of(each.image_id) == site)
        assert set(counts) <= set(COMMON + RARE)
        shares[site] = [counts[name] / counts.total() for name in RARE]
        assert 0.15 < sum(shares[site]) < 0.6
    assert {each.name for each in public.findings} == set(COMMON)
    # Each of the first three sites has a rare finding of its own.
    for place, site in enumerate(SITES[:3]):
        assert max(SITES, key=lambda other: shares[other][place]) == site
        assert max(shares[site]) == shares[site][place] > 0.2


def test_every_part_has_all_modalities_and_organs(hospitals: Source, public: Source) -> None:
    assert len(MODALITIES) >= 4
    for site in (*SITES, None):
        cases = [each for each in hospitals.cases + public.cases if each.site == site]
        assert {each.modality for each in cases} == set(MODALITIES)
        assert {each.organ for each in cases} == set(ORGANS)


def test_modality_mix_differs_from_site_to_site(hospitals: Source) -> None:
    modality = {each.image_id: str(each.modality) for each in hospitals.cases}
    for place, site in enumerate(SITES):
        mix = Counter(name for image, name in modality.items() if site_of(image) == site)
        assert mix.most_common(1)[0][0] == MODALITIES[place]
        assert mix[MODALITIES[place]] > 0.4 * IMAGES


def test_sites_differ_in_resolution(hospitals: Source) -> None:
    edges = {site: [each.width for each in hospitals.images if site_of(each.id) == site] for site in SITES}
    assert median(edges["site-1"]) > median(edges["site-3"]) + 15
    assert median(edges["site-3"]) > median(edges["site-2"]) + 10
    assert max(edges["site-2"]) < min(edges["site-1"])


def test_sites_differ_in_noise_and_contrast(hospitals: Source) -> None:
    """Measured in the images of one modality, so that the case mix plays no part."""
    modality = {each.image_id: each.modality for each in hospitals.cases}
    noise: dict[str, list[float]] = defaultdict(list)
    contrast: dict[str, list[float]] = defaultdict(list)
    for image in hospitals.images:
        if modality[image.id] == "ct":
            noise[site_of(image.id)].append(grain(pixels(image.data)))
            contrast[site_of(image.id)].append(float(pixels(image.data).std()))
    assert all(len(each) >= 5 for each in noise.values())
    assert mean(noise["site-1"]) * 1.5 < mean(noise["site-2"])
    assert mean(noise["site-2"]) * 1.2 < mean(noise["site-3"])
    assert mean(contrast["site-2"]) * 1.15 < mean(contrast["site-3"])
    assert mean(contrast["site-2"]) * 1.3 < mean(contrast["site-1"])


def grain(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise, from a mask that is blind to edges (Immerkær 1996), robustly."""
    rows = image.astype(float)
    for _ in range(2):
        rows = (rows[2:] - 2 * rows[1:-1] + rows[:-2]).T
    return float(np.median(np.abs(rows)) / 0.6745 / 6)


@pytest.mark.parametrize("topic", ["presence", "side", "size", "modality", "normal"])
def test_yes_and_no_are_balanced(topic: str, hospitals: Source) -> None:
    answers = Counter(each.answer for each in hospitals.cases if each.kind == "closed" and each.topic == topic)
    assert set(answers) == {"yes", "no"}
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_open_answers_are_spread(hospitals: Source) -> None:
    for topic, values in (("position", 6), ("size", 2), ("organ", 3), ("modality", 4), ("finding", 7)):
        answers = Counter(each.answer for each in hospitals.cases if each.kind == "open" and each.topic == topic)
        assert len(answers) == values
        assert max(answers.values()) < 1.5 * answers.total() / values
        assert min(answers.values()) > 0.4 * answers.total() / values


def test_masks_lie_where_the_findings_are_said_to_be(hospitals: Source, public: Source) -> None:
    size = {each.id: (each.height, each.width) for each in [*hospitals.images, *public.images]}
    for each in hospitals.findings + public.findings:
        mask = pixels(each.mask)
        assert mask.shape == size[each.image_id]
        assert set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        height, side = each.position.split()
        down, along = rows.mean() / (mask.shape[0] - 1), columns.mean() / (mask.shape[1] - 1)
        assert along < 0.4 if side == "left" else along > 0.6
        assert {"upper": down < 0.4, "middle": 0.4 < down < 0.6, "lower": down > 0.6}[height]


def test_large_findings_are_larger_than_small_ones(hospitals: Source) -> None:
    areas: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in hospitals.findings:
        areas[each.name, each.size].append(float((pixels(each.mask) > 0).mean()))
    for name in COMMON + RARE:
        assert min(areas[name, "large"]) > 1.5 * max(areas[name, "small"])


def test_findings_of_an_image_have_their_own_names_and_sides(findings: dict[str, list[Finding]]) -> None:
    assert Counter(len(each) for each in findings.values()).keys() == {1, 2}
    for each in findings.values():
        assert len({finding.name for finding in each}) == len(each)
        assert len({finding.position.split()[1] for finding in each}) == len(each)


def expected_answer(case: Case, found: list[Finding]) -> str:
    """The answer that the question's words and the image's findings demand; each pattern must fit one finding alone."""
    if name := re.fullmatch(rf"Is there an? ({NAMES})\?|Does the image show an? ({NAMES})\?", case.question):
        return yes(any(each.name in name.groups() for each in found))
    if re.fullmatch(r"Is this (image normal|a normal study)\?", case.question):
        return yes(not found)
    if case.question in ("What imaging modality is this?", "How was this image taken?"):
        return str(case.modality)
    if case.question in ("Which part of the body is shown?", "What organ system is imaged?"):
        return str(case.organ)
    if names := re.fullmatch(r"Is this an? (x-ray|ct|mri|ultrasound)\?|Was this image taken by (.*)\?", case.question):
        return yes(case.modality in names.groups())
    if case.question in ("What abnormality is seen?", "What is the main finding?"):
        (only,) = found
        return only.name
    if side := re.fullmatch(r"What abnormality is on the (.*) side\?|What is seen on the (.*)\?", case.question):
        (only,) = (each for each in found if each.position.split()[1] in side.groups())
        return only.name
    return answer_about_finding(case, found)


def answer_about_finding(case: Case, found: list[Finding]) -> str:
    (finding,) = (each for each in found if re.search(rf"\b{each.name}\b", case.question))
    if re.fullmatch(rf"Where is the {finding.name}\?|In which region is the {finding.name} located\?", case.question):
        return finding.position
    if re.fullmatch(rf"How large is the {finding.name}\?|What is the size of the {finding.name}\?", case.question):
        return finding.size
    if re.fullmatch(rf"Describe the {finding.name}\.|Report the {finding.name} in one phrase\.", case.question):
        return f"{finding.size} {finding.name} in the {finding.position}"
    if side := re.fullmatch(rf"Is the {finding.name} on the (left|right)( side)?\?", case.question):
        return yes(finding.position.endswith(side[1]))
    size = re.fullmatch(
        rf"Is the {finding.name} (small|large)\?|Is this a (small|large) {finding.name}\?", case.question
    )
    assert size, f"no pattern for {case.question!r}"
    return yes(finding.size in size.groups())


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def test_answers_follow_from_the_findings(
    hospitals: Source, public: Source, findings: dict[str, list[Finding]]
) -> None:
    for case in hospitals.cases + public.cases:
        assert case.answer == expected_answer(case, findings.get(case.image_id, []))
        assert case.kind == ("closed" if case.answer in ("yes", "no") else "open")


def test_a_question_has_one_answer_only(hospitals: Source, public: Source) -> None:
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case in hospitals.cases + public.cases:
        answers[case.image_id, case.question].add(case.answer)
    assert all(len(each) == 1 for each in answers.values())


def test_a_caption_tells_all_of_the_image(
    hospitals: Source, public: Source, findings: dict[str, list[Finding]]
) -> None:
    first = {each.image_id: each for each in hospitals.cases + public.cases}
    captions = hospitals.captions + public.captions
    assert [each.image_id for each in captions] == [each.id for each in [*hospitals.images, *public.images]]
    for caption in captions:
        case, found = first[caption.image_id], findings.get(caption.image_id, [])
        assert (caption.split, caption.modality, caption.organ, caption.site) == (
            case.split,
            case.modality,
            case.organ,
            case.site,
        )
        assert re.match(rf"An? {case.modality} of the {case.organ} ", caption.text, re.IGNORECASE)
        assert ("without abnormality" in caption.text) == (not found)
        assert len(re.findall(NAMES, caption.text)) == len(found)
        assert all(f"a {each.size} {each.name} in the {each.position}" in caption.text for each in found)
        assert caption.text.startswith("An ") == (case.modality in ("x-ray", "mri", "ultrasound"))


def test_findings_can_be_seen_and_change_nothing_else() -> None:
    """Each finding in each place, drawn without noise, against the same image without it."""
    faint, drawn = [], 0
    for modality, organ, finding, side, height in product(MODALITIES, ORGANS, FINDINGS, COLUMN, ROW):
        spot = Spot(finding, f"{height} {side}", "small")
        (image, masks), (plain, _) = (
            draw(Look(modality, organ, spots, 84, 0.7, 0.0), np.random.default_rng(0)) for spots in ((spot,), ())
        )
        difference = np.abs(image.astype(int) - plain.astype(int))
        drawn += 1
        if difference[masks[0] > 0].mean() < 12:
            faint.append((modality, organ, finding, spot.position))
        if finding != "hemorrhage":  # which glows beyond its mask
            assert not difference[masks[0] == 0].any()
    assert len(faint) <= 0.02 * drawn, faint


def test_questions_alone_do_not_tell_the_answers(hospitals: Source) -> None:
    """What a hospital's best text-only answerer gets right; 0.5 is chance where the answer is yes or no."""
    right: dict[Kind, list[bool]] = {"closed": [], "open": []}
    common: list[bool] = []
    for site in SITES:
        train, test = (
            [each for each in hospitals.cases if each.site == site and each.split == split]
            for split in ("train", "test")
        )
        for case, answer in zip(test, question_only(train, test, seed=0), strict=True):
            right[case.kind].append(answer == case.answer)
        common += [
            answer == case.answer
            for case, answer in zip(test, majority(train, test), strict=True)
            if case.kind == "open"
        ]
    assert len(right["closed"]) > 250
    assert len(right["open"]) > 250
    assert 0.42 <= mean(right["closed"]) <= 0.58
    assert mean(right["open"]) < 0.45
    assert mean(common) < 0.2


@pytest.fixture(scope="module")
def termed() -> Source:
    return phantom.read(images=IMAGES, seed=0, public=False, test_fraction=0.2, terms=True)


def in_terms(text: str, terms: dict[str, str]) -> str:
    """The text with a site's words put in, and no difference made between a and an."""
    return re.sub(r"\ban? ", "a ", re.sub(rf"\b({NAMES})\b", lambda found: terms.get(found[1], found[1]), text))


def test_house_terms_change_words_alone(hospitals: Source, termed: Source) -> None:
    """The pictures are the same bytes; each text is the other with the site's words put in, and nothing else."""
    assert [image.data for image in termed.images] == [image.data for image in hospitals.images]
    for plain, other in zip(hospitals.cases, termed.cases, strict=True):
        terms = dict(zip(COMMON + RARE, TERMS[site_of(plain.image_id)], strict=True))
        assert (plain.id, plain.image_id, plain.topic, plain.split) == (
            other.id,
            other.image_id,
            other.topic,
            other.split,
        )
        assert in_terms(plain.question, terms) == in_terms(other.question, {})
        assert in_terms(plain.answer, terms) == in_terms(other.answer, {})


def test_a_word_means_another_finding_at_every_site() -> None:
    for place in range(len(COMMON + RARE)):
        assert len({terms[place] for terms in TERMS.values()}) == len(SITES)
    assert all(len(set(terms)) == len(COMMON + RARE) for terms in TERMS.values())
    assert not {word for terms in TERMS.values() for word in terms} & {*FINDINGS}


def test_house_terms_cannot_be_told_from_the_question(termed: Source) -> None:
    """Over all sites together, the most frequent word for what is seen is right about as often as chance."""
    rows = [case for case in termed.cases if case.topic == "finding"]
    train, test = [[case for case in rows if case.split == split] for split in ("train", "test")]
    right = mean(answer == case.answer for answer, case in zip(majority(train, test), test, strict=True))
    assert right < 0.3
