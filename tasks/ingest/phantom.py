"""The embedded dataset: radiology-like images that this project draws itself, with questions about them.

The questions can only be answered by looking: findings, sides, heights and sizes are drawn independently of each other,
and yes/no questions are balanced. The public part, for training a base model, has the common findings in medium
quality. The hospital part comes from four sites that differ in contrast, noise, resolution and case mix, and each site
has findings that the public part lacks. The seed determines everything.

The hospital part can also be drawn with house terms: the same images, but each site has its own words for the findings,
and the same word means another finding elsewhere. What a word means, only a site's own cases tell.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tasks.ingest.images import Images
from tasks.ingest.phantom_images import COMMON, MODALITIES, ORGANS, RARE, Look, Spot, draw, png
from tasks.ingest.source import Source
from tasks.records import Caption, Case, Finding, Image, Kind
from tasks.store import derived_seed

SIDES = ("left", "right")
HEIGHTS = ("upper", "middle", "lower")
SIZES = ("small", "large")


@dataclass(frozen=True)
class Site:
    """How one hospital's images are drawn."""

    name: str
    modalities: tuple[float, ...]
    """Probability of each of MODALITIES."""
    rare: tuple[float, ...]
    """Probability of each of RARE, among the site's rare findings."""
    rare_share: float
    """Share of findings that are rare."""
    pixels: tuple[int, int]
    """Smallest and largest side of an image, in pixels."""
    contrast: tuple[float, float]
    noise: tuple[float, float]
    thorough: bool = False
    """Whether every comparison is asked both ways: an untrained model learns comparisons late, and only from many
    examples."""
    terms: tuple[str, ...] = COMMON + RARE
    """The site's words for COMMON and then RARE, in their order."""

    def term(self, finding: str) -> str:
        """The site's word for a finding."""
        return self.terms[(COMMON + RARE).index(finding)]


PUBLIC = Site("public", (0.25, 0.25, 0.25, 0.25), (1, 0, 0), 0.0, (84, 140), (0.7, 1.2), (0.01, 0.06), thorough=True)
SITES = (
    Site("site-1", (0.55, 0.25, 0.10, 0.10), (0.8, 0.1, 0.1), 0.40, (120, 168), (0.95, 1.15), (0.01, 0.03)),
    Site("site-2", (0.10, 0.55, 0.25, 0.10), (0.1, 0.8, 0.1), 0.40, (84, 112), (0.60, 0.80), (0.03, 0.06)),
    Site("site-3", (0.10, 0.10, 0.55, 0.25), (0.1, 0.1, 0.8), 0.40, (96, 140), (0.75, 0.95), (0.05, 0.08)),
    Site("site-4", (0.25, 0.10, 0.10, 0.55), (0.34, 0.33, 0.33), 0.30, (84, 126), (1.10, 1.35), (0.02, 0.05)),
)
HOUSE_TERMS = ("opacity", "lesion", "nodule", "effusion", "consolidation", "granuloma", "infarct")
"""Words of radiology, none of which is a finding's name here."""
SITES_WITH_TERMS = tuple(
    replace(site, terms=HOUSE_TERMS[2 * place :] + HOUSE_TERMS[: 2 * place]) for place, site in enumerate(SITES)
)
"""No two sites have the same word for a finding."""


@dataclass
class Questions:
    """Collects the questions of one image."""

    rng: np.random.Generator
    rows: list[tuple[Kind, str, str, str]] = field(default_factory=list)

    def open(self, topic: str, answer: str, *wordings: str) -> None:
        """Add an open question in one of several wordings."""
        self.rows.append(("open", topic, str(self.rng.choice(wordings)), answer))

    def closed(self, topic: str, truth: bool, *wordings: str) -> None:
        """Add a yes/no question in one of several wordings."""
        self.rows.append(("closed", topic, str(self.rng.choice(wordings)), "yes" if truth else "no"))

    def sometimes(self, share: float) -> bool:
        """True for about this share of calls."""
        return bool(self.rng.random() < share)


def read(*, images: int, seed: int, public: bool, test_fraction: float, terms: bool = False) -> Source:
    """Draw the public part (`images` in all) or the hospital part (`images` for each of the four sites).

    Args:
        images: number of images, for each site of the part.
        seed: determines every choice, together with the image's number.
        public: whether to draw the public part, which holds only training cases; else the hospital part.
        test_fraction: share of a site's images that are its test split.
        terms: whether each site of the hospital part calls the findings by its own words; the images stay the same.
    """
    source = Source(cases=[], images=Images())
    for site in (PUBLIC,) if public else SITES_WITH_TERMS if terms else SITES:
        tests = 0 if public else max(1, round(images * test_fraction))
        for number in range(images):
            rng = np.random.default_rng(derived_seed("phantom", seed, site.name, number))
            _add_image(source, site, f"{site.name}-{number:05d}", "test" if number < tests else "train", rng)
    return source


def _add_image(source: Source, site: Site, image_id: str, split: str, rng: np.random.Generator) -> None:
    look = _look(site, rng)
    pixels, masks = draw(look, rng)
    look = replace(look, spots=tuple(replace(spot, finding=site.term(spot.finding)) for spot in look.spots))
    source.images.append(Image(image_id, png(pixels), pixels.shape[1], pixels.shape[0]))
    known: dict[str, Any] = {
        "image_id": image_id,
        "split": split,
        "dataset": "phantom",
        "language": "en",
        "modality": look.modality,
        "organ": look.organ,
        "site": None if site is PUBLIC else site.name,
    }
    source.captions.append(Caption(text=_caption(look), **known))
    for spot, mask in zip(look.spots, masks, strict=True):
        source.findings.append(Finding(image_id, spot.finding, spot.position, spot.size, png(mask)))
    questions = Questions(rng)
    _ask_about_image(questions, look, site)
    for spot in look.spots:
        _ask_about_finding(questions, look, spot, site)
    for number, (kind, topic, question, answer) in enumerate(questions.rows):
        source.cases.append(
            Case(id=f"phantom:{image_id}:{number}", question=question, answer=answer, kind=kind, topic=topic, **known)
        )


def _look(site: Site, rng: np.random.Generator) -> Look:
    names = [_finding(site, rng) for _ in range(int(rng.choice([0, 1, 2], p=[0.15, 0.6, 0.25])))]
    # Two findings of one name would make "where is the mass?" ambiguous.
    names = list(dict.fromkeys(names))
    sides = [str(side) for side in rng.permutation(SIDES)]
    spots = tuple(
        Spot(name, f"{rng.choice(HEIGHTS)} {side}", str(rng.choice(SIZES)))
        for name, side in zip(names, sides, strict=False)
    )
    return Look(
        modality=str(rng.choice(MODALITIES, p=site.modalities)),
        organ=str(rng.choice(ORGANS)),
        spots=spots,
        pixels=int(rng.integers(site.pixels[0], site.pixels[1] + 1)),
        contrast=float(rng.uniform(*site.contrast)),
        noise=float(rng.uniform(*site.noise)),
    )


def _finding(site: Site, rng: np.random.Generator) -> str:
    """Draw the name of a finding, with the frequencies of the site."""
    if rng.random() < site.rare_share:
        return str(rng.choice(RARE, p=site.rare))
    return str(rng.choice(COMMON))


def _ask_about_image(questions: Questions, look: Look, site: Site) -> None:
    if questions.sometimes(0.3):
        questions.open("modality", look.modality, "What imaging modality is this?", "How was this image taken?")
    if questions.sometimes(0.3):
        questions.open("organ", look.organ, "Which part of the body is shown?", "What organ system is imaged?")
    for value in _compared(questions, site, 0.3, look.modality, MODALITIES):
        questions.closed(
            "modality", value == look.modality, f"Is this {_a(value)}?", f"Was this image taken by {value}?"
        )
    # Normal images are rarer: questions about all of them and a few of the others balance yes and no.
    if not look.spots or questions.sometimes(0.18):
        questions.closed("normal", not look.spots, "Is this image normal?", "Is this a normal study?")
    present = [spot.finding for spot in look.spots]
    if present:
        name = str(questions.rng.choice(present))
        questions.closed("presence", True, f"Is there {_a(name)}?", f"Does the image show {_a(name)}?")
        # Absent findings are drawn with the site's frequencies, or the name alone would reveal the answer.
        while (name := site.term(_finding(site, questions.rng))) in present:
            pass
        questions.closed("presence", False, f"Is there {_a(name)}?", f"Does the image show {_a(name)}?")


def _ask_about_finding(questions: Questions, look: Look, spot: Spot, site: Site) -> None:
    name, side = spot.finding, spot.position.split()[1]
    if len(look.spots) == 1:
        questions.open("finding", name, "What abnormality is seen?", "What is the main finding?")
    else:
        questions.open("finding", name, f"What abnormality is on the {side} side?", f"What is seen on the {side}?")
    questions.open("position", spot.position, f"Where is the {name}?", f"In which region is the {name} located?")
    if questions.sometimes(0.3):
        questions.open("size", spot.size, f"How large is the {name}?", f"What is the size of the {name}?")
    if questions.sometimes(0.4):
        questions.open("description", _phrase(spot), f"Describe the {name}.", f"Report the {name} in one phrase.")
    for value in _compared(questions, site, 0.7, side, SIDES):
        questions.closed("side", value == side, f"Is the {name} on the {value} side?", f"Is the {name} on the {value}?")
    for value in _compared(questions, site, 0.5, spot.size, SIZES):
        questions.closed("size", value == spot.size, f"Is the {name} {value}?", f"Is this a {value} {name}?")


def _compared(questions: Questions, site: Site, share: float, truth: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The values that a comparison names: both at a thorough site; else one of them, for a share of calls."""
    other = str(questions.rng.choice([choice for choice in choices if choice != truth]))
    if site.thorough:
        return truth, other
    if not questions.sometimes(share):
        return ()
    return (truth,) if questions.sometimes(0.5) else (other,)


def _a(name: str) -> str:
    # The pronunciation decides: an x-ray, an mri.
    return f"an {name}" if name[0] in "aeiou" or name in ("x-ray", "mri") else f"a {name}"


def _phrase(spot: Spot) -> str:
    return f"{spot.size} {spot.finding} in the {spot.position}"


def _caption(look: Look) -> str:
    image = _a(look.modality).capitalize()
    if not look.spots:
        return f"{image} of the {look.organ} without abnormality."
    return f"{image} of the {look.organ} shows {' and '.join(_a(_phrase(spot)) for spot in look.spots)}."
