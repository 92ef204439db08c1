"""The settings and studies of a comparison, its statistics against hand-made oracles, and its tables."""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from flows.cli.settings_file import load_comparison
from tasks.compare.aligned import align
from tasks.compare.reliance import reliance_row
from tasks.compare.scores import score_entries, withheld_values, worst_hospitals
from tasks.compare.tables import side_by_side, tables
from tasks.compare.tests import holm, paired_tests
from tasks.errors import StudyError
from tasks.records import Outcome
from tasks.records.text_table import latex, markdown
from tasks.report.page.comparison import comparison_page
from tasks.score.metrics import METRICS, compared_metrics
from tasks.settings import Study
from tasks.settings.comparison import CONFIGURATIONS, SWEEPS, Comparison, cells


def outcome(case: int, correct: float, hospital: str = "hospital-1", kind: Any = "closed", **more: Any) -> Outcome:
    scores = dict.fromkeys((metric.field for metric in METRICS.values() if metric.score), correct)
    about = {
        "choice": 0,
        "dataset": "d",
        "modality": None,
        "organ": None,
        "topic": None,
        "training_image": None,
        "confidence": None,
    }
    labels = {"gold": case % 2, "predicted": case % 2 if correct else 2} if kind == "closed" else {}
    about |= {"gold": None, "predicted": None} | labels | more
    return Outcome("x", hospital, case, case // 2, kind, correct=correct, scores=scores, **about)


def test_the_defaults_are_the_configurations_that_are_asked_for() -> None:
    found = cells(Comparison())
    assert len(found) == len(CONFIGURATIONS) * 5 * 2
    by_name = {cell.name: cell.study for cell in found if (cell.seed, cell.split) == (1, "image")}
    base = Study(seed=1).model_dump()
    base["partition"]["disjoint"] = "image"
    assert by_name["fed+rag"].model_dump() == base
    assert by_name["fed"].retrieval.k == 0
    assert by_name["centralised+rag"].partition.hospitals == 1
    assert by_name["local+rag"].federation.strategy == "none"
    assert by_name["fed-llava-med"].model.name == "llava-med-7b"
    assert {name: study.configuration for name, study in by_name.items()} == {
        name: "fed" if name == "fed-llava-med" else name for name in CONFIGURATIONS
    }


def test_a_sweep_changes_one_configuration_and_every_named_one_is_valid() -> None:
    comparison = load_comparison(None, ("seeds=[4]", "swept=fed"), (*SWEEPS, "retrieval.k=0,1", "lora.r=8"))
    swept = [cell for cell in cells(comparison) if cell.part != "configurations"]
    assert {cell.part for cell in swept} == {*SWEEPS, "retrieval.k", "lora.r"}
    assert {cell.study.seed for cell in swept} == {4}
    assert [cell.study.retrieval.k for cell in swept if cell.part == "retrieval.k"] == [0, 1]
    assert {cell.study.retrieval.k for cell in swept if "retriev" not in cell.part} == {0}
    labels = [cell.name for cell in swept if cell.part == "alpha"]
    assert labels == ["dirichlet, 0.1", "dirichlet, 0.5", "dirichlet, 1", "iid"]
    assert [cell.name for cell in swept if cell.part == "hospitals"] == ["2", "3", "5", "10"]


@pytest.mark.parametrize(
    ("assignments", "sweeps", "message"),
    [
        (("study.retrival.k=1",), (), "Unknown setting study.retrival.k: did you mean study.retrieval.k"),
        (("referense=fed",), (), "did you mean reference"),
        (("configurations={fed+rag: {retrival.k: 0}}",), (), "Unknown setting retrival.k: did you mean retrieval.k"),
        (("configurations={fed+rag: {retrieval.k: 99}}",), (), "configurations fed+rag: retrieval.k does not fit"),
        (("configurations={fed+rag: {seed.k: 1}}",), (), "unknown setting seed.k"),
        (("reference=fad",), (), "fad is none of the configurations"),
        (("seeds=[1, 1]",), (), "each may stand there once"),
        (("splits=[none, patients]",), (), "Setting splits.1 does not fit"),
        (("name=../x",), (), "Setting name does not fit"),
        (("sweeps={retrieval.k: []}",), (), "sweep retrieval.k has no value"),
        (("sweeps=3",), (), "Setting sweeps does not fit"),
        ((), ("retrieval.kk=1",), "Unknown setting retrieval.kk: did you mean retrieval.k"),
        ((), ("retrieval.k=1,x",), "retrieval.k x: retrieval.k does not fit"),
        ((), ("alfa",), "Expected --sweep NAME=VALUE,VALUE or one of hospitals"),
    ],
)
def test_a_mistyped_setting_is_told_before_anything_runs(
    assignments: tuple[str, ...], sweeps: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        load_comparison(None, assignments, sweeps)


def test_a_file_gives_base_study_and_sweeps(tmp_path: Path) -> None:
    file = tmp_path / "comparison.yaml"
    file.write_text("study: {dataset: {images: 8}}\nseeds: [3]\nsweeps: {federation.rounds: [1, 2]}\n")
    comparison = load_comparison(file, ("study.lora.r=4",), ("retrieval.k=0",))
    assert {cell.study.dataset.images for cell in cells(comparison)} == {8}
    assert {cell.study.lora.r for cell in cells(comparison)} == {4}
    assert set(comparison.sweeps) == {"federation.rounds", "retrieval.k"}
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_answers_are_aligned_by_case_and_foreign_ones_refused() -> None:
    rows = [outcome(case, case % 2, f"hospital-{case % 3 + 1}") for case in range(6)]
    central = [replace(row, hospital="hospital-1") for row in reversed(rows)]
    found = align({"fed": {0: rows, 1: rows}, "central": {1: central, 0: rows}}, "fed")
    assert [row.case for row in found["central"].rows] == [0, 1, 2, 3, 4, 5] * 2
    assert found["central"].hospitals == found["fed"].hospitals == tuple(row.hospital for row in rows) * 2
    assert set(found["fed"].images) == {0, 1, 2}
    for wrong in (rows[1:], [*rows[1:], outcome(9, 1)]):
        with pytest.raises(StudyError, match="Expected central to answer the 6 test cases of fed"):
            align({"fed": {0: rows}, "central": {0: wrong}}, "fed")


def test_scores_are_plain_means_of_their_group() -> None:
    rows = [
        outcome(0, 1, "hospital-1", modality="ct"),
        outcome(1, 0, "hospital-1", modality="ct"),
        outcome(2, 1, "hospital-2", modality="mri"),
        outcome(3, 0, "hospital-2", "open", modality="ct"),
    ]
    perfect = [replace(row, correct=1.0, predicted=row.gold) for row in rows]
    answers = align({"a": {0: rows, 1: perfect}}, "a")["a"]
    entries = list(score_entries("a", answers, 1))
    found = {(each["measure"], each["group"], each["value"]): each for each in entries}
    first = f1_score([0, 1, 0], [0, 2, 0], labels=[0, 1], average="macro")  # the second seed's is 1
    f1 = found["closed_f1", "all", None]
    assert f1["score"] == pytest.approx((first + 1) / 2)
    assert f1["by_seed"] == {"0": 0.5, "1": 1.0}
    everything = found["correct", "all", None]
    assert (everything["score"], everything["n"], everything["images"]) == (6 / 8, 8, 2)
    assert everything["by_seed"] == {"0": 0.5, "1": 1.0}
    assert everything["interval"][0] <= 0.75 <= everything["interval"][1]
    assert found["closed_accuracy", "modality", "ct"]["score"] == 3 / 4
    assert found["correct", "hospital", "hospital-2"]["score"] == 3 / 4
    assert ("open_exact_match", "modality", "mri") not in found
    assert found["closed_accuracy", "modality", "ct"]["interval"] is None  # one image says nothing of others
    assert {each["interval_holds"] for each in entries} == {"training and test images"}
    once = score_entries("a", align({"a": {0: rows}}, "a")["a"], 1)
    assert {each["interval_holds"] for each in once} == {"test images"}
    (worst,) = worst_hospitals(entries)
    assert (worst["hospital"], worst["below_all"]) == ("hospital-1", 0.0)


def test_groups_of_few_cases_are_withheld_however_many_seeds_ask_them() -> None:
    """Of 20 cases, 12 CT and 6 MRI ones are told; 2 PET ones are not, nor MRI, which would tell them by subtraction."""
    names = ["ct"] * 12 + ["mri"] * 6 + ["pet"] * 2
    rows = [outcome(case, case % 2, modality=name) for case, name in enumerate(names)]
    answers = align({"a": {0: rows, 1: rows, 2: rows}}, "a")["a"]
    entries = [each for each in score_entries("a", answers, 5) if each["group"] == "modality"]
    assert {each["value"] for each in entries} == {"ct"}
    assert withheld_values(answers, 5) == {"modality": ["mri", "pet"]}
    assert {each["value"] for each in score_entries("a", answers, 1) if each["group"] == "modality"} == set(names)


def test_few_open_questions_are_not_told_apart_from_closed_ones() -> None:
    kinds = ["open"] * 3 + ["closed"] * 9
    answers = align({"a": {0: [outcome(n, 1, kind=kind) for n, kind in enumerate(kinds)]}}, "a")["a"]
    entries = list(score_entries("a", answers, 5))
    assert {each["measure"] for each in entries} == {"correct"}
    assert {each["value"] for each in entries if each["group"] == "kind"} == set()
    assert [each["n"] for each in entries if each["group"] == "all"] == [12]
    few = align({"a": {0: [outcome(n, 1, f"hospital-{n}") for n in range(8)]}}, "a")["a"]
    assert worst_hospitals(list(score_entries("a", few, 5))) == []


def answered(right: list[int], questions: int = 1) -> list[Outcome]:
    """Closed questions about images, each asked so many times."""
    rows = [outcome(2 * questions * image + n, each) for image, each in enumerate(right) for n in range(questions)]
    return [replace(row, image=row.case // (2 * questions), gold=0, predicted=1 - int(row.correct)) for row in rows]


def test_pairs_are_tested_as_by_hand() -> None:
    """Of 12 questions a alone answers 8 and b alone 1: McNemar's exact p is 2 * (1 + 9) / 2**9."""
    right = {"a": [1] * 8 + [0, 1, 0, 1], "b": [0] * 8 + [1, 1, 0, 1], "c": [1] * 8 + [0, 1, 0, 1]}
    found = paired_tests(align({name: {0: answered(of)} for name, of in right.items()}, "a"), ["a", "b", "c"], "a")
    tests = {(each["a"], each["b"]): each for each in found if each["measure"] == "closed_accuracy"}
    assert set(tests) == {("a", "b"), ("a", "c"), ("b", "c")}
    first, oracle = tests["a", "b"], stats.ttest_1samp([1] * 8 + [-1, 0, 0, 0], 0)
    assert first["difference"] == pytest.approx(7 / 12)
    assert first["p"] == pytest.approx(oracle.pvalue)
    assert first["interval"] == pytest.approx(list(oracle.confidence_interval(0.95)))
    assert first["interval_holds"] == "test images"
    assert first["p_holm"] == pytest.approx(3 * oracle.pvalue)
    assert set(first["mcnemar"]) == {"0"}
    exact = first["mcnemar"]["0"]
    assert (exact["only_a"], exact["only_b"]) == (8, 1)
    assert exact["p"] == pytest.approx(20 / 512)
    assert exact["p_holm"] == pytest.approx(60 / 512)
    assert tests["a", "c"]["mcnemar"]["0"]["p"] == tests["a", "c"]["p"] == 1
    assert {each["measure"] for each in found} == {name for name, each in METRICS.items() if each.kind != "open"}
    assert {each["measure"] for each in found if each["mcnemar"] is None} == {"closed_f1", "llava_med_closed"}


SEEDS = {
    "a": {0: [1, 1, 0, 1, 1, 0, 1, 1], 1: [1, 0, 0, 1, 1, 1, 1, 1]},
    "b": {0: [0, 1, 0, 1, 0, 0, 1, 0], 1: [1, 0, 0, 0, 1, 0, 1, 1]},
}


def test_more_questions_alike_of_an_image_make_nothing_surer() -> None:
    """Images are what is independent: questions copied change no interval, and no p value of a difference."""
    found = []
    for questions in (1, 8):
        outcomes = {
            name: {seed: answered(right, questions) for seed, right in by_seed.items()}
            for name, by_seed in SEEDS.items()
        }
        answers = align(outcomes, "a")
        (test,) = [each for each in paired_tests(answers, ["a", "b"], "a") if each["measure"] == "closed_accuracy"]
        (score,) = [
            each
            for each in score_entries("a", answers["a"], 1)
            if (each["measure"], each["group"]) == ("closed_accuracy", "all")
        ]
        assert (test["n"], score["n"]) == (16 * questions, 16 * questions)
        found.append((test["images"], test["p"], *test["interval"], score["images"], *score["interval"]))
    assert found[1] == pytest.approx(found[0])


def test_seeds_are_compared_by_their_means_and_mcnemar_never_pools_them() -> None:
    outcomes = {name: {seed: answered(of) for seed, of in by_seed.items()} for name, by_seed in SEEDS.items()}
    found = paired_tests(align(outcomes, "a"), ["a", "b"], "a")
    (test,) = [each for each in found if each["measure"] == "closed_accuracy"]
    assert test["by_seed"] == {"0": 3 / 8, "1": 2 / 8}
    assert test["difference"] == pytest.approx(2.5 / 8)
    assert test["interval_holds"] == "training and test images"
    assert {seed: (each["only_a"], each["only_b"]) for seed, each in test["mcnemar"].items()} == {
        "0": (3, 0),
        "1": (2, 0),
    }
    assert test["mcnemar"]["0"]["p"] == pytest.approx(2 / 2**3)
    assert test["mcnemar"]["0"]["p_holm"] == pytest.approx(2 * 2 / 2**3)  # of both seeds


def test_p_values_are_corrected_for_all_that_a_table_shows(document: dict[str, Any]) -> None:
    """Two pairs in two measures are four tests of one family, and so are all pairs in all other measures."""
    in_tables = {metric.name for metric in compared_metrics()}
    for wanted in (in_tables, set(METRICS) - in_tables):
        family = [each for each in document["tests"] if each["measure"] in wanted]
        tested = sorted((each["p"], each["p_holm"]) for each in family if each["p"] is not None)
        largest = 0.0
        for place, (p, corrected) in enumerate(tested):
            largest = max(largest, min(1, p * (len(tested) - place)))
            assert corrected == pytest.approx(largest)
        if wanted == in_tables:
            (table,) = [table for table in tables(document) if table.title.startswith("Paired tests")]
            assert len(table.rows) == len(family) == 4


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    found = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, found, strict=True))
    for a, b in combinations(range(len(p)), 2):
        assert found[a] <= found[b] or p[a] >= p[b]


def reliance_summary(as_is: float, blank: float) -> dict[str, Any]:
    """A study's summary of answers to perturbed prompts; ten times as many questions where less is right."""
    perturbations = {"as_is": {"score": as_is}, "image_blank": {"score": blank}}
    return {"n": 10 if as_is > 0.4 else 100, "alterations": perturbations}


def test_what_is_kept_is_of_all_seeds_questions() -> None:
    found = reliance_row("none", "fed", [reliance_summary(0.5, 0.45), reliance_summary(0.3, 0.2)])
    assert found["n"] == 110
    assert found["kept"] == {"image_blank": pytest.approx((4.5 + 20) / (5 + 30))}
    assert not found["ignores_images"]
    assert reliance_row("none", "fed", [reliance_summary(0.5, 0.4)])["ignores_images"]
    assert reliance_row("none", "fed", [reliance_summary(0.0, 0.0)])["ignores_images"] is None


COSTS = ("peak_memory_bytes", "device_memory_bytes", "seconds_per_round", "bytes_down", "bytes_up")


@pytest.fixture
def document() -> dict[str, Any]:
    """A comparison of two configurations, one a twin, on two splits of which one moves nothing."""
    kinds = ["closed", "open"] * 8
    right = {"fed+rag": [1, 0, 1, 1] * 4, "fed-llava-med": [0, 0, 1, 0] * 4, "base": [1] * 16}
    named = {
        name: {
            0: [
                outcome(case, each, f"hospital-{case % 2 + 1}", kinds[case], modality=("ct", "mri")[case // 8])
                for case, each in enumerate(of)
            ]
        }
        for name, of in right.items()
    }
    answers = align(named, "fed+rag")
    scores = [{"split": "none", **entry} for name, each in answers.items() for entry in score_entries(name, each, 1)]
    swept = [entry for entry in scores if entry["configuration"] == "fed+rag" and entry["group"] == "all"]
    rounds = [{"round": each, "train_loss": 1 / each, "eval_loss": None, "quarantined": {}} for each in (1, 2)]
    point = {"changes": {"retrieval.k": 1}, "seeds": [0], "local_epochs": 1, "scores": swept, "rounds": rounds}
    labels = {"fed+rag": "fed+rag", "fed-llava-med": "fed-llava-med (twin of llava-med-7b: random weights)"}
    return {
        "schema_version": 3,
        "name": "a_b & <c>",
        "reference": "fed+rag",
        "seeds": [0],
        "splits": [
            {"name": "none", "title": "as published", "same_as": None, "images": 8},
            {"name": "image", "title": "no image is shared", "same_as": "none", "images": 8},
        ],
        "configurations": [
            *(
                {"name": each, "label": label, "trained": True, "twin": "twin" in label}
                for each, label in labels.items()
            ),
            {"name": "base", "label": "untrained base", "trained": False, "twin": False},
        ],
        "scores": scores,
        "withheld": {"min_cell": 1, "groups": {"none": {}}},
        "seen": [],
        "worst_hospitals": [{"split": "none", **row} for row in worst_hospitals(scores)],
        "tests": [{"split": "none", **each} for each in paired_tests(answers, list(labels), "fed+rag")],
        "lightfed": [
            {"split": "none", "configuration": each, "Accuracy": 0.5, "F1-Score": None, "BLEU": 0.25, "ROUGE-L": 1.0}
            for each in right
        ],
        "reliance": [
            reliance_row("none", each, [reliance_summary(0.5, 0.45), reliance_summary(0.3, 0.2)]) for each in labels
        ],
        "sweeps": [{"name": "retrieval.k", "configuration": "fed+rag", "points": [{"label": "1"} | point]}],
        "cost": [],
        "failed": [],
        "settings": {"name": "a_b"},
    }


def test_json_markdown_latex_and_page_say_the_same(document: dict[str, Any]) -> None:
    found = [side_by_side(document), *tables(document)]
    plain, typeset, page = markdown(found), latex(found), comparison_page(document, found)
    assert typeset.count(r"\begin{tabular}") == typeset.count(r"\end{tabular}") == len(found) == plain.count("\n|---")
    for entry in document["scores"]:
        if entry["measure"] in ("closed_accuracy", "open_exact_match"):
            low, high = entry["interval"] or (None, None)
            cell = f"{entry['score']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")
            assert cell in plain and cell in typeset and cell in page
    for table in found:
        for row in table.rows:
            assert "| " + " | ".join(row) + " |" in plain
            assert len(row) == len(table.headings)
    # The same figures, read back from each: LaTeX escapes letters but no digit.
    numbers = [re.findall(r"\d\.\d{3}", text) for text in (plain, typeset)]
    assert numbers[0] == numbers[1]
    assert json.loads(json.dumps(document)) == document


def test_a_twin_is_called_one_in_every_table_that_names_it(document: dict[str, Any]) -> None:
    for table in [side_by_side(document), *tables(document)]:
        for text in (cell for row in (table.headings, *table.rows) for cell in row):
            assert "fed-llava-med" not in text or "twin of llava-med-7b: random weights" in text
    assert "no published model" in comparison_page(document, [])


def test_every_table_of_scores_says_what_the_base_has_seen(document: dict[str, Any]) -> None:
    def row(sentence: str, *names: str, part: str = "configurations", split: str = "none") -> dict[str, Any]:
        return {"part": part, "split": split, "names": list(names), "sentence": sentence}

    plain = [side_by_side(document), *tables(document)]
    both = ("fed+rag", "fed-llava-med")
    document["cost"] = [{"label": "fed", **dict.fromkeys(COSTS, 1.0)}]
    document["seen"] = [row("All saw.", *both), row("One point saw.", "1", part="retrieval.k")]
    told = [side_by_side(document), *tables(document)]
    *scored, cost = told
    for before, after in zip(plain, scored, strict=True):
        sentence = "One point saw." if before.title.startswith("Sweep") else "All saw."
        assert after == replace(before, note=f"{before.note} {sentence}".strip())
    assert cost.title == "What it took" and "saw" not in cost.note
    page = comparison_page(document, told)
    assert page.count("saw.</p>") == markdown(told).count("saw.\n") == latex(told).count("saw.}") == len(scored)
    document["seen"] = [row("One saw.", "fed-llava-med")]
    assert all(
        "fed-llava-med (twin of llava-med-7b: random weights): One saw." in table.note
        for table in tables(document)[:-1]
        if not table.title.startswith("Sweep")
    )
    document["splits"][1]["same_as"] = None
    document["seen"] = [row("Many.", *both), row("Few.", *both, split="image")]
    assert side_by_side(document).note == "Original split: Many. Image-disjoint split: Few."


def test_text_is_escaped_where_it_means_something(document: dict[str, Any]) -> None:
    assert "a_b &amp; &lt;c&gt;" in comparison_page(document, [])
    table = replace(side_by_side(document), title=r"50 % of a_b & {c} \ ~", rows=(("a|b", *["x"] * 4),))
    assert r"50 \% of a\_b \& \{c\} \textbackslash{} \textasciitilde{}" in latex([table])
    assert r"| a\|b |" in markdown([table])


def test_the_page_asks_the_network_for_nothing(document: dict[str, Any]) -> None:
    page = comparison_page(document, tables(document))
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert page.count("<svg") == 3
    assert page.count('role="img"') == 3
