"""What a hospital learns of copied images: the pairs among its own, and which of its test images are in training."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations, product
from pathlib import Path

from pyarrow.compute import field

from tasks.records import ImagePair, among, read_table


def read_near(path: Path, images: Collection[str]) -> list[ImagePair]:
    """Of the pairs in a table, all that tell of copies of some images: what the functions below need for these.

    Where an image stands for others of the same file, on either side of a pair, those are named too.
    """
    same = field("relation") == "identical_bytes"
    known = {pair.image_a for pair in read_table(path, ImagePair, same & among("image_b", images))}.union(images)
    touched = read_table(path, ImagePair, among("image_a", known) | among("image_b", known))
    ends = {image for pair in touched for image in (pair.image_a, pair.image_b)}
    return list(dict.fromkeys([*touched, *read_table(path, ImagePair, same & among("image_a", ends))]))


def copies_among(pairs: Iterable[ImagePair], images: Collection[str]) -> list[ImagePair]:
    """The pairs of copies among some images, sorted by id.

    Of several identical files, the audit compares only the first with other images. Its result holds for the others
    too, even if the first is not among these images.

    Args:
        pairs: the pairs of copies among all images.
        images: ids of the wanted images; the result names no others.
    """
    pairs = list(pairs)
    first = {pair.image_b: pair.image_a for pair in pairs if pair.relation == "identical_bytes"}
    same: dict[str, list[str]] = defaultdict(list)
    for image in sorted(images):
        same[first.get(image, image)].append(image)
    found = list(_identical(same.values()))
    for pair in pairs:
        if pair.relation != "identical_bytes":
            for one, other in product(same.get(pair.image_a, ()), same.get(pair.image_b, ())):
                low, high = sorted((one, other))
                found.append(ImagePair(low, high, pair.relation, pair.correlation))
    return sorted(found, key=lambda pair: (pair.image_a, pair.image_b))


def copied_in_training(pairs: Iterable[ImagePair], test: Collection[str], training: Collection[str]) -> list[str]:
    """The test images that are copies of a training image, or are training images themselves, sorted.

    Args:
        pairs: the pairs of copies among all images.
        test: ids of a hospital's test images.
        training: ids of all hospitals' training images.
    """
    found = set(test) & set(training)
    for pair in copies_among(pairs, {*test, *training}):
        for one, other in ((pair.image_a, pair.image_b), (pair.image_b, pair.image_a)):
            if one in test and other in training:
                found.add(one)
    return sorted(found)


def _identical(groups: Iterable[list[str]]) -> Iterator[ImagePair]:
    for images in groups:
        for one, other in combinations(images, 2):
            yield ImagePair(one, other, "identical_bytes", 1.0)
