"""The partition: no image and no patient in two hospitals, nothing lost, the same everywhere, and errors that help."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cases.groups import image_groups
from tasks.errors import StudyError
from tasks.ingest import phantom
from tasks.partition.partitioners import MOST_LABELS, OTHER, _labels, assign_images
from tasks.records import Case, Finding, Image, ImagePair, read_table, write_table
from tasks.records.copied import read_copied

HERE = Path(__file__).parents[2]
SCHEMES = ("auto", "site", "dirichlet", "iid", "modality", "organ")
ANSWERS = ("mass", "cyst", "left", "right", "upper left", "lower right")


def case(number: int, image: str, **fields: Any) -> Case:
    stated = {"answer": "mass", "kind": "open", "split": "train", "modality": "ct", "organ": "head", "site": "s1"}
    stated |= fields
    return Case(id=f"d:{number}", image_id=image, question="what is it?", dataset="d", language="en", **stated)


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    return phantom.read(images=40, seed=0, public=False, test_fraction=0.2).cases


def shares(owner: dict[str, str], hospitals: int) -> list[int]:
    counts = Counter(owner.values())
    return [counts[f"hospital-{number}"] for number in range(1, hospitals + 1)]


@st.composite
def datasets(draw: st.DrawFn) -> list[Case]:
    """Up to 60 cases of up to 20 images, some of them of one patient, in all splits; four images are for training."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 19),
                st.sampled_from(ANSWERS),
                st.sampled_from(["train", "validation", "test"]),
                st.sampled_from([None, None, "p1", "p2"]),
            ),
            max_size=60,
        )
    )
    kinds = "abcd"
    images = {number: kinds[number % 4] for number in range(24)}
    found = [
        case(n, f"i{i}", answer=a, split=s, group=g, modality=images[i], organ=images[i], site=images[i])
        for n, (i, a, s, g) in enumerate(rows)
    ]
    sure = [case(100 + i, f"i{i}", modality=images[i], organ=images[i], site=images[i]) for i in range(20, 24)]
    return found + sure


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=25)
@given(datasets(), st.integers(1, 4), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
def test_every_image_and_every_patient_is_in_one_hospital(
    scheme: str, cases: list[Case], hospitals: int, seed: int, random: Random
) -> None:
    try:
        owner, used = assign_images(cases, hospitals, scheme, 1.0, "answer", seed)
    except StudyError as error:  # chance may leave a hospital without training cases; whole values never do here
        assert scheme in ("dirichlet", "iid")
        assert "Expected every hospital to hold training cases" in str(error)
        owner, used = assign_images(cases, 1, scheme, 1.0, "answer", seed)
        hospitals = 1
    assert used == ("site" if scheme == "auto" else scheme)
    assert set(owner) == {each.image_id for each in cases}
    assert set(owner.values()) == {f"hospital-{number}" for number in range(1, hospitals + 1)}
    held = defaultdict(set)
    for each in cases:
        held[each.group or each.image_id].add(owner[each.image_id])
    assert all(len(hospitals_of_group) == 1 for hospitals_of_group in held.values())
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert assign_images(shuffled, hospitals, scheme, 1.0, "answer", seed)[0] == owner


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_question_is_lost_or_parted_from_its_image(scheme: str, drawn: list[Case]) -> None:
    owner, _ = assign_images(drawn, 3, scheme, 1.0, "answer", 0)
    held: dict[str, list[Case]] = defaultdict(list)
    for each in drawn:
        held[owner[each.image_id]].append(each)
    assert sum(map(len, held.values())) == len(drawn)
    for split in ("train", "test"):
        images = [{each.image_id for each in cases if each.split == split} for cases in held.values()]
        assert all(images)
        assert (
            sum(map(len, images)) == len(set().union(*images)) == len({c.image_id for c in drawn if c.split == split})
        )


@pytest.mark.parametrize("scheme", ["dirichlet", "iid", "organ"])
def test_images_of_a_patient_stay_together(scheme: str, drawn: list[Case]) -> None:
    """Every six images are one patient's; without the group they would be parted."""
    patients = {image: f"patient-{place // 6}" for place, image in enumerate(sorted({c.image_id for c in drawn}))}
    grouped = [Case(**(as_dict(each) | {"group": patients[each.image_id]})) for each in drawn]
    for cases, together in ((grouped, True), (drawn, False)):
        owner, _ = assign_images(cases, 3, scheme, 1.0, "answer", 0)
        parted = [
            patient
            for patient in set(patients.values())
            if len({owner[image] for image, of in patients.items() if of == patient}) > 1
        ]
        assert bool(parted) != together


def as_dict(each: Case) -> dict[str, Any]:
    return {name: getattr(each, name) for name in Case.__slots__}


def test_groups_that_share_an_image_are_one() -> None:
    cases = [case(1, "i1", group="a"), case(2, "i1", group="b"), case(3, "i2", group="a"), case(4, "i3", group="b")]
    cases += [case(number, f"other{number}") for number in range(10, 20)]
    for seed in range(5):
        owner, _ = assign_images(cases, 2, "iid", 1.0, "answer", seed)
        assert owner["i1"] == owner["i2"] == owner["i3"]


def test_the_value_of_a_group_is_what_most_of_its_cases_state() -> None:
    cases = [case(1, "i1", group="p", modality="ct"), case(2, "i2", group="p", modality="mri")]
    cases += [case(3, "i2", group="p", modality="mri"), case(4, "i3", modality="ct"), case(5, "i4", modality="mri")]
    owner, _ = assign_images(cases, 2, "modality", 1.0, "answer", 0)
    assert owner == {"i1": "hospital-1", "i2": "hospital-1", "i4": "hospital-1", "i3": "hospital-2"}


def test_whole_values_go_to_the_hospital_with_the_fewest_images() -> None:
    sizes = {"x-ray": 5, "ct": 4, "mri": 3, "ultrasound": 2, "pet": 1}
    cases = [case(n, f"{name}{n}", modality=name) for name, size in sizes.items() for n in range(size)]
    owner, scheme = assign_images(cases, 2, "modality", 0.5, "answer", 0)
    held = defaultdict(set)
    for image, hospital in owner.items():
        held[hospital].add(image.rstrip("0123456789"))
    # 5 | 4, then 3 to the second (7), 2 to the first (7), 1 to the first, which comes first by name.
    assert held == {"hospital-1": {"x-ray", "ultrasound", "pet"}, "hospital-2": {"ct", "mri"}}
    assert scheme == "modality"


def test_sites_lie_at_the_hospitals_of_their_number(drawn: list[Case]) -> None:
    owner, scheme = assign_images(drawn, 4, "auto", 0.5, "answer", 0)
    assert scheme == "site"
    assert all(owner[each.image_id] == f"hospital-{str(each.site)[-1]}" for each in drawn)


def test_auto_is_dirichlet_where_an_image_names_no_site() -> None:
    cases = [case(number, f"i{number}") for number in range(40)]
    assert assign_images(cases, 1, "auto", 0.5, "answer", 0)[1] == "site"
    assert assign_images([*cases, case(99, "i99", site=None)], 1, "auto", 0.5, "answer", 0)[1] == "dirichlet"


@pytest.mark.parametrize("label", ["answer", "modality", "organ"])
def test_dirichlet_skews_the_label_more_where_alpha_is_small(label: str, drawn: list[Case]) -> None:
    labels = _labels(drawn, image_groups(drawn), label)

    def skew(alpha: float, seed: int) -> float:
        """Mean total variation distance of the hospitals' labels from those of all images; 0 is no skew."""
        try:
            owner, _ = assign_images(drawn, 3, "dirichlet", alpha, label, seed)
        except StudyError:  # so skewed that a hospital is idle
            return 1.0
        everywhere = Counter(labels.values())
        distances = []
        for hospital in sorted(set(owner.values())):
            counts = Counter(labels[image] for image, name in owner.items() if name == hospital)
            distances.append(
                sum(abs(counts[each] / counts.total() - everywhere[each] / everywhere.total()) for each in everywhere)
                / 2
            )
        return mean(distances)

    skewed = {alpha: mean(skew(alpha, seed) for seed in range(4)) for alpha in (0.1, 1.0, 1000.0)}
    assert skewed[0.1] > skewed[1.0] + 0.1
    assert skewed[1.0] > skewed[1000.0] + 0.1
    assert skewed[1000.0] < 0.1


def test_dirichlet_mixes_sites_and_splits_where_alpha_is_large(drawn: list[Case]) -> None:
    """Image ids are in the order of sites, test images first: a cut of that order would hand over whole sites."""
    owner, _ = assign_images(drawn, 4, "dirichlet", 1000.0, "answer", 0)
    first = {each.image_id: each for each in drawn}
    for hospital in set(owner.values()):
        images = [first[image] for image in owner if owner[image] == hospital]
        assert all(0.1 < count / len(images) < 0.45 for count in Counter(each.site for each in images).values())
        # One fifth, give or take three standard deviations of a share of 40 images.
        assert 0.01 < sum(each.split == "test" for each in images) / len(images) < 0.39


def test_answer_labels_are_frequent_open_answers() -> None:
    cases = [case(n, f"i{n}", answer=f"a{n % 20:02}") for n in range(200)]
    cases += [case(300 + n, "i0", answer="Mass") for n in range(50)]
    cases += [case(400 + n, f"i{n}", answer="yes", kind="closed") for n in range(200)]
    labels = _labels(cases, image_groups(cases), "answer")
    assert len(set(labels.values())) <= MOST_LABELS + 1
    assert labels["i0"] == "a00"  # rarer than mass, and tells the image better
    assert labels["i19"] == OTHER
    assert "yes" not in labels.values()


@pytest.mark.parametrize("hospitals", [1, 2, 3, 7, 16])
def test_iid_is_even_within_one_image(hospitals: int, drawn: list[Case]) -> None:
    owner, _ = assign_images(drawn, hospitals, "iid", 0.5, "answer", 0)
    sizes = shares(owner, hospitals)
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == 160


def test_iid_is_not_a_cut_of_the_ids(drawn: list[Case]) -> None:
    owner, _ = assign_images(drawn, 4, "iid", 0.5, "answer", 0)
    assert all(
        0.1 < count / 40 < 0.45 for count in Counter((owner[each], each.split("-")[1]) for each in owner).values()
    )


@pytest.mark.parametrize(("scheme", "alpha"), [("dirichlet", 100.0), ("iid", 0.5)])
def test_sixteen_hospitals(scheme: str, alpha: float, drawn: list[Case]) -> None:
    for seed in range(3):
        owner, _ = assign_images(drawn, 16, scheme, alpha, "answer", seed)
        assert min(shares(owner, 16)) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_hospital_gets_everything(scheme: str, drawn: list[Case]) -> None:
    owner, _ = assign_images(drawn, 1, scheme, 0.5, "answer", 0)
    assert owner == {each.image_id: "hospital-1" for each in drawn}


@pytest.mark.parametrize("scheme", ["dirichlet", "iid"])
def test_the_seed_decides(scheme: str, drawn: list[Case]) -> None:
    first, again, other = (assign_images(drawn, 4, scheme, 5.0, "answer", seed)[0] for seed in (0, 0, 1))
    assert first == again != other


def test_extreme_alpha_loses_no_image() -> None:
    cases = [case(n, f"i{n}", answer=ANSWERS[n % len(ANSWERS)]) for n in range(60)]
    for alpha in (1e-8, 1e-3, 1e3, 1e12):
        for seed in range(3):
            try:
                owner, _ = assign_images(cases, 3, "dirichlet", alpha, "answer", seed)
            except StudyError as error:
                assert alpha < 1
                assert "raise partition.alpha" in str(error)
            else:
                assert len(owner) == 60


def test_an_idle_hospital_is_told_with_what_to_change() -> None:
    cases = [case(n, f"i{n}", split="test") for n in range(40)] + [case(99, "i99")]
    with pytest.raises(
        StudyError,
        match=r"found none at hospital-\d \(1 of 2 hospitals\): raise partition.alpha, change seed, "
        "or lower partition.hospitals",
    ):
        assign_images(cases, 2, "dirichlet", 100.0, "answer", 0)
    with pytest.raises(StudyError, match=r"\(3 of 4 hospitals\): change partition.scheme or lower partition.hospitals"):
        assign_images(cases, 4, "iid", 0.5, "answer", 0)
    tested = [case(n, f"i{n}", modality="ct", split="test") for n in range(3)] + [case(9, "i9", modality="mri")]
    with pytest.raises(StudyError, match=r"found none at hospital-1 \(1 of 2 hospitals\)"):
        assign_images(tested, 2, "modality", 0.5, "answer", 0)


@pytest.mark.parametrize("scheme", ["dirichlet", "iid"])
def test_more_hospitals_than_images_are_refused(scheme: str) -> None:
    cases = [case(n, f"i{n % 3}") for n in range(9)]
    with pytest.raises(StudyError, match=r"for each of 4 hospitals, found 3: lower partition.hospitals"):
        assign_images(cases, 4, scheme, 100.0, "answer", 0)


@pytest.mark.parametrize("scheme", ["dirichlet", "iid"])
def test_more_hospitals_than_patients_are_refused(scheme: str) -> None:
    cases = [case(n, f"i{n}", group=f"p{n % 3}") for n in range(9)]
    with pytest.raises(StudyError, match=r"for each of 4 hospitals, found 3: lower partition.hospitals"):
        assign_images(cases, 4, scheme, 100.0, "answer", 0)


@pytest.mark.parametrize("scheme", ["site", "modality", "organ"])
def test_more_hospitals_than_values_are_refused(scheme: str, drawn: list[Case]) -> None:
    values = len({getattr(each, scheme) for each in drawn})
    with pytest.raises(
        StudyError,
        match=f"Expected at least 5 values of {scheme} for 5 hospitals, found {values}: "
        f"set partition.hospitals to {values} or fewer, or partition.scheme to dirichlet or iid",
    ):
        assign_images(drawn, 5, scheme, 0.5, "answer", 0)


@pytest.mark.parametrize("scheme", ["site", "modality", "organ"])
def test_an_image_without_the_value_is_refused(scheme: str) -> None:
    cases = [case(1, "i1"), case(2, "i2", **{scheme: None}), case(3, "i3", **{scheme: "another"})]
    with pytest.raises(
        StudyError, match=f"for partition.scheme={scheme}, found 1 of 3 images without: set partition.scheme"
    ):
        assign_images(cases, 2, scheme, 0.5, "answer", 0)


def test_a_value_stated_by_one_of_an_images_cases_is_enough() -> None:
    cases = [case(1, "i1", modality="mri"), case(2, "i1", modality=None), case(3, "i2")]
    for order in (cases, cases[::-1]):
        assert assign_images(order, 2, "modality", 0.5, "answer", 0)[0] == {"i1": "hospital-2", "i2": "hospital-1"}


def test_the_deal_is_the_same_in_every_process(drawn: list[Case], tmp_path: Path) -> None:
    with (tmp_path / "cases.parquet").open("wb") as sink:
        write_table(sink, Case, drawn)
    program = (
        "import json, sys; from pathlib import Path; from tasks.partition.partitioners import assign_images\n"
        "from tasks.records import Case, read_table\n"
        "cases = read_table(Path(sys.argv[1]), Case)\n"
        f"print(json.dumps([assign_images(cases, 3, scheme, 5.0, 'answer', 7)[0] for scheme in {SCHEMES}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "cases.parquet")],
        cwd=HERE,
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [assign_images(drawn, 3, scheme, 5.0, "answer", 7)[0] for scheme in SCHEMES]


def test_each_hospitals_folder_holds_its_own_cases_and_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.partition.step import partition, take_cases
    from tasks.settings import PartitionSettings
    from tasks.store import writing

    monkeypatch.chdir(tmp_path)
    source = phantom.read(images=6, seed=0, public=False, test_fraction=0.2)
    with writing("source", "ingest", "k") as folder:
        with folder.open("cases.parquet") as sink:
            write_table(sink, Case, source.cases)
        with folder.open("images.parquet") as sink:
            write_table(sink, Image, source.images)
        with folder.open("findings.parquet") as sink:
            write_table(sink, Finding, source.findings)
    tested = next(case.image_id for case in source.cases if case.split == "test" and case.site == "site-1")
    learned = next(case.image_id for case in source.cases if case.split == "train" and case.site == "site-3")
    with writing("source", "audit", "k") as audit, audit.open("image_pairs.parquet") as sink:
        low, high = sorted((tested, learned))
        write_table(sink, ImagePair, [ImagePair(low, high, "near_duplicate", 0.99)])
    assigned = partition.fn(cases=folder.ref, settings=PartitionSettings(hospitals=4), seed=0)
    given = {"cases": folder.ref, "dataset": folder.ref, "assignment": assigned}
    cases, images, masks = [], [], []
    for row in assigned.manifest()["summary"]["hospitals"]:
        taken = take_cases.fn(hospital=row["hospital"], **given, findings=audit.ref)
        assert read_copied(taken.folder) == ({tested} if row["hospital"] == "hospital-1" else set())
        assert read_copied(take_cases.fn(hospital=row["hospital"], **given).folder) is None
        assert taken.path.startswith(f"hospitals/{row['hospital']}/cases/")
        taken_cases = read_table(taken.folder / "cases.parquet", Case)
        taken_images = read_table(taken.folder / "images.parquet", Image)
        assert {each.image_id for each in taken_cases} == {each.id for each in taken_images}
        assert row["images"] == len(taken_images)
        assert {each.site for each in taken_cases} == {f"site-{row['hospital'][-1]}"}
        taken_masks = read_table(taken.folder / "findings.parquet", Finding)
        assert {each.image_id for each in taken_masks} <= {each.id for each in taken_images}
        cases += taken_cases
        images += taken_images
        masks += taken_masks
    assert cases == source.cases
    assert images == list(source.images)
    assert masks == source.findings != []
