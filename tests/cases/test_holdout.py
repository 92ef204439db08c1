"""Held-out cases: whole images, the same ones whenever asked, never all of them."""

from engine_samples import case
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cases.holdout import split_holdout
from tasks.records import Case

SPLITS = st.sampled_from(["train", "train", "train", "validation", "test"])
# An image has one split, as the readers see to.
HOSPITALS = st.dictionaries(st.integers(0, 40), st.tuples(SPLITS, st.integers(1, 4)), max_size=25)


def cases_of(hospital: dict[int, tuple[str, int]]) -> list[Case]:
    cases: list[Case] = []
    for image, (split, count) in hospital.items():
        cases += [case(len(cases) + n, f"image-{image}", "What?", "this", split) for n in range(count)]
    return cases


@settings(deadline=None)
@given(HOSPITALS, st.floats(0, 0.999), st.integers(0, 9))
def test_training_images_are_dealt_whole(hospital: dict[int, tuple[str, int]], share: float, seed: int) -> None:
    cases = cases_of(hospital)
    kept, held_out = split_holdout(cases, share, seed)
    training = [one for one in cases if one.split == "train"]
    assert sorted(kept + held_out, key=lambda one: one.id) == sorted(training, key=lambda one: one.id)
    kept_images, held_out_images = ({one.image_id for one in part} for part in (kept, held_out))
    assert not kept_images & held_out_images
    images = kept_images | held_out_images
    assert bool(kept) == bool(training)
    assert len(held_out_images) == max(0, min(round(share * len(images)), len(images) - 1))
    assert split_holdout(cases, share, seed) == (kept, held_out)


@settings(deadline=None)
@given(HOSPITALS, st.floats(0, 0.999), st.randoms())
def test_the_order_of_cases_does_not_matter(hospital: dict[int, tuple[str, int]], share: float, random: object) -> None:
    cases = cases_of(hospital)
    turned = list(cases)
    random.shuffle(turned)  # type: ignore[attr-defined]
    first, second = split_holdout(cases, share, 0), split_holdout(turned, share, 0)
    assert [{one.id for one in part} for part in first] == [{one.id for one in part} for part in second]


def test_another_seed_holds_out_other_images() -> None:
    cases = [case(n, f"image-{n}", "What?", "this") for n in range(50)]
    found = {frozenset(one.image_id for one in split_holdout(cases, 0.2, seed)[1]) for seed in range(5)}
    assert len(found) == 5
    assert {len(images) for images in found} == {10}


def test_no_share_holds_out_nothing() -> None:
    cases = [case(n, f"image-{n}", "What?", "this") for n in range(5)]
    assert split_holdout(cases, 0.0, 0) == (cases, [])
    assert split_holdout([], 0.5, 0) == ([], [])
