"""What a hospital learns of the audit's copies: the pairs among its own images."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations, product

from tasks.records import ImagePair


def own_copies(pairs: Iterable[ImagePair], own: Collection[str]) -> list[ImagePair]:
    """The pairs of copies among some images, by id.

    Of several identical files the audit compares the first alone; what it found of that one holds for the others, also
    where the first is not among these images.

    Args:
        pairs: of all images.
        own: ids of the images wanted; nothing is told of others.
    """
    pairs = list(pairs)
    first = {pair.image_b: pair.image_a for pair in pairs if pair.relation == "identical_bytes"}
    same: dict[str, list[str]] = defaultdict(list)
    for image in sorted(own):
        same[first.get(image, image)].append(image)
    found = list(_identical(same.values()))
    for pair in pairs:
        if pair.relation != "identical_bytes":
            for one, other in product(same.get(pair.image_a, ()), same.get(pair.image_b, ())):
                low, high = sorted((one, other))
                found.append(ImagePair(low, high, pair.relation, pair.correlation))
    return sorted(found, key=lambda pair: (pair.image_a, pair.image_b))


def _identical(groups: Iterable[list[str]]) -> Iterator[ImagePair]:
    for images in groups:
        for one, other in combinations(images, 2):
            yield ImagePair(one, other, "identical_bytes", 1.0)
