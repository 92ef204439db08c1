"""What a hospital learns of copies, against the rule spelled out for every pair of images."""

from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from tasks.partition.copies import copied_in_training, copies_among, read_near
from tasks.records import ImagePair, write_table


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


@pytest.mark.parametrize("seed", range(60))
def test_pairs_near_some_images_tell_of_these_what_all_pairs_tell(seed: int, tmp_path: Path) -> None:
    draw = Random(seed)
    images = [f"i{number}" for number in range(12)]
    content = {image: draw.randrange(6) for image in images}
    first = {kind: min(image for image in images if content[image] == kind) for kind in set(content.values())}
    pairs = [
        ImagePair(first[kind], each, "identical_bytes", 1.0) for each, kind in content.items() if each != first[kind]
    ]
    chosen = [pair for pair in combinations(sorted(first.values()), 2) if draw.random() < 0.3]
    pairs += [ImagePair(*pair, draw.choice(["near_duplicate", "flipped"]), 0.9) for pair in chosen]
    draw.shuffle(pairs)
    with (tmp_path / "pairs").open("wb") as sink:
        write_table(sink, ImagePair, pairs)
    own = draw.sample(images, 3)
    near = read_near(tmp_path / "pairs", own)
    training = draw.sample(images, 6)
    assert set(near) <= set(pairs) and len(near) == len(set(near))
    assert copies_among(near, own) == copies_among(pairs, own)
    named = {*own, *(image for pair in near for image in (pair.image_a, pair.image_b))}
    assert copied_in_training(near, own, named & {*training}) == copied_in_training(pairs, own, training)


def test_pairs_of_other_images_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "pairs").open("wb") as sink:
        write_table(sink, ImagePair, [ImagePair("a", "b", "flipped", 0.9), ImagePair("c", "d", "flipped", 0.9)])
    assert read_near(tmp_path / "pairs", ["b"]) == [ImagePair("a", "b", "flipped", 0.9)]
