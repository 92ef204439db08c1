"""Altered copies of training images."""

import numpy as np
import PIL.Image
import pytest
from engine_samples import IMAGES

from tasks.pretrain.varied import KEPT, LIGHT, varied, varied_id
from tasks.records import Image
from tasks.records.pixels import to_rgb


def drawn(pixels: np.ndarray, name: str = "drawn") -> Image:
    import io

    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, "PNG")
    height, width = pixels.shape[:2]
    return Image(name, sink.getvalue(), width, height)


def levels(image: Image) -> np.ndarray:
    return np.asarray(to_rgb(image.data), float)[..., 0]


def test_each_image_has_its_copies_in_order_and_always_the_same() -> None:
    once, again = (list(varied(IMAGES, 3, seed=1)) for _ in range(2))
    assert [each.id for each in once] == [varied_id(image.id, n) for image in IMAGES for n in (1, 2, 3)]
    assert once == again
    assert len({each.data for each in once}) == len(once)
    other = list(varied(IMAGES, 3, seed=2))
    assert not {each.data for each in once} & {each.data for each in other}
    assert list(varied(IMAGES, 2, seed=1)) == [each for each in once if not each.id.endswith("#3")]


def test_a_copy_keeps_most_of_the_image_and_says_its_size() -> None:
    (image,) = (drawn(np.zeros((90, 60, 3), np.uint8)),)
    for copy in varied([image], 50, seed=0):
        assert (copy.width, copy.height) == to_rgb(copy.data).size
        assert KEPT * 60 - 1 <= copy.width <= 60
        assert KEPT * 90 - 1 <= copy.height <= 90


def test_left_stays_left_and_above_stays_above() -> None:
    pixels = np.full((80, 80, 3), 60, np.uint8)
    pixels[30:50, 8:24] = 200  # to the left
    pixels[10:26, 25:75] = 200  # and above
    for copy in varied([drawn(pixels)], 50, seed=0):
        found = levels(copy)
        half, third = copy.width // 2, copy.height // 3
        assert found[third : 2 * third, :half].mean() > found[third : 2 * third, half:].mean()
        assert found[:third].mean() > found[-third:].mean()


def test_light_varies_within_bounds() -> None:
    gray = [levels(copy) for copy in varied([drawn(np.full((40, 40, 3), 100, np.uint8))], 50, seed=0)]
    middle = [each[10:20, 10:20].mean() for each in gray]
    assert max(middle) - min(middle) > 20
    assert min(middle) >= 100 * (1 - LIGHT) - 2 and max(middle) <= 100 * (1 + LIGHT) + 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
def test_the_smallest_images_have_copies(size: tuple[int, int]) -> None:
    (copy,) = varied([drawn(np.zeros((*size, 3), np.uint8))], 1, seed=0)
    assert copy.width >= 1 and copy.height >= 1
