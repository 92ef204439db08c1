"""What is withheld cannot be found by subtraction, and no more is withheld than that asks for."""

from hypothesis import given
from hypothesis import strategies as st
from test_abstain import predictions

from tasks.answer.abstain import count_answers, hide_few
from tasks.cases.small_groups import WITHHELD, is_small, publishable, withhold_small_cells, withhold_small_counts
from tasks.ingest import phantom
from tasks.score.calibration import Bin, expected_calibration_error, merge_small
from tasks.text.vocabulary import MODALITIES, ORGANS, TOPICS, known

COUNTS = st.dictionaries(st.text("abcdef", max_size=2), st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=6)
LEAST = st.integers(1, 6)


@given(COUNTS, LEAST)
def test_what_is_published_and_what_is_left_are_of_enough_cases(groups: dict[str, tuple[int, int]], least: int) -> None:
    published = publishable(groups, least)
    for kind in range(2):
        assert not any(0 < groups[name][kind] < least for name in published)
        if any(groups[name][kind] for name in published):
            assert not 0 < sum(groups[name][kind] for name in groups.keys() - published) < least
    if least == 1:
        assert published == groups.keys()


@given(st.dictionaries(st.integers(0, 5), st.integers(0, 12), max_size=6), LEAST)
def test_one_large_group_at_most_is_withheld_and_only_where_it_must(counts: dict[int, int], least: int) -> None:
    published = publishable({name: (count,) for name, count in counts.items()}, least)
    few = sum(count for count in counts.values() if is_small(count, least))
    joined = [count for name, count in counts.items() if name not in published and not is_small(count, least)]
    large = [count for count in counts.values() if count >= least]
    assert joined == ([min(large)] if large and is_small(few, least) else [])


def test_the_smallest_joins_a_rest_that_is_too_small() -> None:
    assert withhold_small_counts({"ct": 40, "mri": 9, "pet": 2}, 5) == {"ct": 40, "mri": WITHHELD, "pet": WITHHELD}
    assert withhold_small_counts({"ct": 40, "mri": 3, "pet": 2}, 5) == {"ct": 40, "mri": WITHHELD, "pet": WITHHELD}
    assert withhold_small_counts({"ct": 40, "mri": 5, "pet": 0}, 5) == {"ct": 40, "mri": 5, "pet": 0}
    assert withhold_small_counts({"ct": 4}, 5) == {"ct": WITHHELD}
    rows = [{"hospital": "a", "test": 3, "train": 8}, {"hospital": "b", "test": 20, "train": 9}, {"hospital": "c"}]
    assert withhold_small_cells(rows, 5) == [
        {"hospital": "a", "test": WITHHELD, "train": 8}, {"hospital": "b", "test": WITHHELD, "train": 9},
        {"hospital": "c"},
    ]  # fmt: skip


def test_words_beyond_the_vocabulary_are_other() -> None:
    assert known("ct", MODALITIES) == "ct"
    assert known(None, MODALITIES) is None
    assert {known(word, MODALITIES) for word in ("Jane Roe", "CT", "ct ", "ct jane", "")} == {"other"}


def test_the_vocabulary_has_what_our_own_datasets_and_generators_say() -> None:
    cases = phantom.read(images=24, seed=0, public=False, test_fraction=0.2).cases
    cases += phantom.read(images=24, seed=0, public=True, test_fraction=0.2).cases
    assert {case.modality for case in cases} <= MODALITIES
    assert {case.organ for case in cases} <= ORGANS
    assert {case.topic for case in cases} <= TOPICS
    assert {"modality", "plane", "organ", "finding", "side", "location", "size", "sex", "age", "presence"} <= TOPICS
    assert {"PRES", "Abnormality", "Modality Recognition"} <= TOPICS


@given(st.lists(st.integers(0, 8), min_size=10, max_size=10), LEAST)
def test_bins_of_few_answers_join_their_neighbours(counts: list[int], least: int) -> None:
    bins = [Bin(n, n * (place + 0.5) / 10, n / 2) for place, n in enumerate(counts)]
    merged = merge_small(bins, least)
    assert not any(0 < each.n < least for each in merged)
    kept = sum(counts) if not is_small(sum(counts), least) else 0
    assert sum(each.n for each in merged) == kept
    if kept:
        assert abs(sum(each.confidence for each in merged) - sum(each.confidence for each in bins)) < 1e-9
        error, before = expected_calibration_error(merged), expected_calibration_error(bins)
        assert error is not None and before is not None and error <= before + 1e-9
    if least == 1:
        assert merged == bins


def test_kinds_with_few_answers_have_no_abstention_figures() -> None:
    rows, images = predictions()
    everything = count_answers(rows, images, 0.5)
    assert hide_few(everything, 1) == (everything, [])
    few = [row for row in rows if row.kind == "closed"] + [row for row in rows if row.kind == "open"][:3]
    published, kinds = hide_few(count_answers(few, images[: len(few)], 0.5), 5)
    assert kinds == ["open"]
    assert not any(any(row[4:]) for row in published)
    assert sum(row[0] for row in published) == 40
    sure = count_answers(rows, images, sorted(row.confidence or 0 for row in rows if row.kind == "closed")[2])
    assert "closed" in hide_few(sure, 5)[1]  # two are withheld: all less the answered would tell of these
    assert hide_few([], 5) == ([], [])
