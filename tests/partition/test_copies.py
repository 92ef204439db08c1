"""What a hospital learns of copies, against the rule spelled out for every pair of images."""

from itertools import combinations
from random import Random

import pytest

from tasks.partition.copies import copied_in_training, copies_among
from tasks.records import ImagePair


@pytest.mark.parametrize("seed", range(200))
def test_pairs_among_the_own_images_alone_also_where_the_first_is_elsewhere(seed: int) -> None:
    draw = Random(seed)
    images = [f"i{number}" for number in range(draw.randint(1, 9))]
    content = {image: draw.randrange(4) for image in images}
    first = {kind: min(image for image in images if content[image] == kind) for kind in set(content.values())}
    found = [
        ImagePair(first[content[image]], image, "identical_bytes", 1.0)
        for image in images
        if image != first[content[image]]
    ]
    alike = {
        frozenset(pair): draw.choice(["identical_pixels", "near_duplicate", "flipped"])
        for pair in combinations(sorted(first), 2)
        if draw.random() < 0.5
    }
    for kinds, relation in alike.items():
        low, high = sorted(first[kind] for kind in kinds)
        found.append(ImagePair(low, high, relation, 0.9))
    draw.shuffle(found)
    wanted = draw.sample(images, draw.randint(0, len(images)))

    expected = []
    for one, other in combinations(sorted(wanted), 2):
        if content[one] == content[other]:
            expected.append(ImagePair(one, other, "identical_bytes", 1.0))
        elif relation := alike.get(frozenset((content[one], content[other]))):
            expected.append(ImagePair(one, other, relation, 0.9))
    assert copies_among(found, wanted) == expected

    others = [image for image in images if image not in wanted]
    training = draw.sample(others, draw.randint(0, len(others)))
    copied = [
        one
        for one in sorted(wanted)
        if any(
            content[one] == content[other] or frozenset((content[one], content[other])) in alike for other in training
        )
    ]
    assert copied_in_training(found, wanted, training) == copied
    assert set(wanted[:1]) <= set(copied_in_training(found, wanted, [*training, *wanted[:1]]))
