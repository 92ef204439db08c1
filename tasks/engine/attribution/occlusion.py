"""Occlusion: how the answer's log-probability falls when regions of an image, or texts, are covered."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from tasks.engine.attribution.layout import QUERY_IMAGE, QUESTION, RETRIEVED_IMAGES, RETRIEVED_TEXT, Layout, Place
from tasks.engine.base import Base
from tasks.engine.batch import IGNORED, Example, collate, within
from tasks.engine.loss import answer_logits
from tasks.engine.thumbnail import original, renamed
from tasks.engine.vision import Features, encode_images, gather_features
from tasks.records import Image
from tasks.records.pixels import to_rgb

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the right and lower edges are exclusive."""


@torch.inference_mode()
def answer_log_probs(
    base: Base, features: Features, examples: Sequence[Example], tokens: int
) -> list[NDArray[np.float64]]:
    """The log-probabilities of each example's answer tokens, in the order of examples; `tokens` as in `mean_loss`."""
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(examples)
    for places in within([len(example) for example in examples], tokens):
        batch = collate(base, features, [examples[place] for place in places])
        logits, targets = answer_logits(base, batch)
        log_probs = logits.float().log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1).double().cpu()
        counts = (batch.labels != IGNORED).sum(1).tolist()
        for place, piece in zip(places, log_probs.split(counts), strict=True):
            found[place] = piece.numpy()
    return found


def boxes(base: Base, image: Image, rows: int, columns: int) -> list[Box]:
    """The boxes of a grid over the part of an image that the tower sees, row by row."""
    left, upper, right, lower = base.family.window(base.image_processor, image.width, image.height)
    across = np.linspace(left, right, columns + 1).round().astype(int).tolist()
    down = np.linspace(upper, lower, rows + 1).round().astype(int).tolist()
    return [
        (across[column], down[row], across[column + 1], down[row + 1])
        for row in range(rows)
        for column in range(columns)
    ]


def cover(image: Image, regions: Sequence[Box], name: str) -> Image:
    """The image under another name, with these regions painted in the mean colour of the whole image."""
    picture = to_rgb(image.data)
    colour = tuple(int(each) for each in np.asarray(picture).reshape(-1, 3).mean(0).round())
    for left, upper, right, lower in regions:
        picture.paste(colour, (left, upper, right, lower))
    return _image(picture, name)


def _image(picture: PIL.Image.Image, name: str) -> Image:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return Image(name, sink.getvalue(), *picture.size)


def occlude_regions(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    example: Example,
    place: int,
    shape: tuple[int, int],
    tokens: int,
) -> NDArray[np.float64]:
    """Cover each region of one image in turn; returns how far each answer token's log-probability falls.

    After Zeiler and Fergus (arXiv 1311.2901). The tower runs again over the covered images.

    Args:
        images: the prompt's images by id, at least the one at `place`.
        place: index of the image to cover, in the order of the prompt.
        shape: rows and columns of the regions.
        tokens: as in `mean_loss`.

    Returns `(rows, columns, answer tokens)`.
    """
    single = [[box] for box in boxes(base, images[original(example.image_ids[place])], *shape)]
    (whole,) = answer_log_probs(base, features, [example], tokens)
    return (whole - without(base, features, images, example, place, single, tokens)).reshape(*shape, -1)


def without(
    base: Base,
    features: Features,
    images: Mapping[str, Image],
    example: Example,
    place: int,
    covered: Sequence[Sequence[Box]],
    tokens: int,
) -> NDArray[np.float64]:
    """The log-probability of each answer token for each set of covered regions of one image.

    Args:
        covered: the sets of regions; the other arguments are those of `occlude_regions`.

    Returns `(sets, answer tokens)`.
    """
    image = images[original(example.image_ids[place])]
    changed = [cover(image, regions, f"{image.id} without {number}") for number, regions in enumerate(covered)]
    together = _joined(features, example, encode_images(base, changed, projected=features.projected))
    examples = [_with_image(example, [place], [each.id]) for each in changed]
    return np.stack(answer_log_probs(base, together, examples, tokens))


def occlude_parts(
    base: Base, features: Features, images: Mapping[str, Image], example: Example, layout: Layout, tokens: int
) -> NDArray[np.float64]:
    """Cover whole parts in turn: the query image, the retrieved images, the retrieved texts, the question.

    Images are painted over completely; text becomes padding tokens. Returns how far each answer token's
    log-probability falls, `(4, answer tokens)` in the order of `layout.PARTS`, 0 for an absent part.
    """
    ids = dict.fromkeys(map(original, example.image_ids))
    blanks = {
        name: cover(images[name], [(0, 0, images[name].width, images[name].height)], f"{name} blank") for name in ids
    }
    together = features
    if blanks:
        seen = encode_images(base, list(blanks.values()), projected=features.projected)
        together = _joined(features, example, seen)
    changed: dict[int, Example] = {}
    for part in (QUERY_IMAGE, RETRIEVED_IMAGES):
        chosen = [number for number, each in enumerate(layout.places) if each.retrieved == (part == RETRIEVED_IMAGES)]
        if chosen:
            names = [blanks[original(example.image_ids[each])].id for each in chosen]
            changed[part] = _with_image(example, chosen, names)
    for part in (RETRIEVED_TEXT, QUESTION):
        if (layout.parts == part).any():
            pairs = zip(example.prompt_ids, layout.parts == part, strict=True)
            filler = base.tokenizer.pad_token_id
            changed[part] = replace(example, prompt_ids=tuple(filler if hit else token for token, hit in pairs))
    whole, *others = answer_log_probs(base, together, [example, *changed.values()], tokens)
    falls = np.zeros((4, len(whole)))
    falls[list(changed)] = whole - np.stack(others)
    return falls


def region_shape(place: Place, most: int) -> tuple[int, int]:
    """Rows and columns of the regions to cover in an image: those of its tokens, but at most `most` a side."""
    return min(place.rows, most), min(place.columns, most)


def _with_image(example: Example, places: Sequence[int], names: Sequence[str]) -> Example:
    ids = list(example.image_ids)
    for place, name in zip(places, names, strict=True):
        ids[place] = renamed(ids[place], name)
    return replace(example, image_ids=tuple(ids))


def _joined(features: Features, example: Example, seen: Features) -> Features:
    """The features of the example's images and of the changed ones."""
    originals = {image_id: (features, image_id) for image_id in example.image_ids}
    return gather_features(originals | {name: (seen, name) for name in seen.starts})
