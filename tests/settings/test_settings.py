"""The settings: what is mistyped or out of range is named, and what is right means what it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from flows.cli.settings_file import describe, load_comparison, load_study
from flows.outside import control_of
from tasks.errors import StudyError
from tasks.settings import DatasetSettings, Settings, Study
from tasks.settings.comparison import changed

MISTYPED = [
    ("retrival.k", "retrieval.k"),
    ("retrival.image_weight", "retrieval.image_weight"),
    ("retrieval.kk", "retrieval.k"),
    ("retrieval.K", "retrieval.k"),
    ("federation.lr", "federation.learning_rate"),
    ("lr", "federation.learning_rate"),
    ("federation.learning-rate", "federation.learning_rate"),
    ("lora.rank", "lora.ranks"),
    ("hospitals", "partition.hospitals"),
    ("k", "retrieval.k"),
    ("sead", "seed"),
]

OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("retrieval.k", -1),
    ("retrieval.k", 51),
    ("retrieval.k", 1.5),
    ("retrieval.k", "many"),
    ("retrieval.k", None),
    ("retrieval.image_weight", 1.01),
    ("partition.hospitals", 0),
    ("partition.hospitals", 1001),
    ("partition.alpha", 0),
    ("partition.scheme", "random"),
    ("dataset.name", "mnist"),
    ("dataset.name", []),
    ("dataset.name", ["slake", "slake"]),
    ("dataset.max_rejected", 1.5),
    ("dataset.images", True),
    ("federation.learning_rate", True),
    ("model.max_pixels", True),
    ("retrieval.k", False),
    ("dataset.test_fraction", 1),
    ("dataset.images", 3),
    ("federation.learning_rate", 0),
    ("federation.learning_rate", float("inf")),
    ("federation.learning_rate", float("nan")),
    ("federation.rounds", [1, 2]),
    ("federation.holdout", 1),
    ("lora.r", 0),
    ("lora.dropout", 1.0),
    ("lora.targets", []),
    ("lora.targets", "q_proj"),
    ("model.max_pixels", 783),
    ("model.image_tokens", 0),
    ("model.image_tokens", 15),
    ("retrieval.image_tokens", 15),
    ("model.device", "tpu"),
    ("evaluation.tokens_per_pass", 0),
    ("federation.tokens_per_pass", 0),
    ("evaluation.max_new_tokens", 0),
    ("seed", -1),
    ("seed", True),
    ("seed", 2**31),
]


def nested(name: str, value: Any) -> Any:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def yaml_file(folder: Path, text: str) -> Path:
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder / "study.yaml"


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize(("name", "meant"), MISTYPED)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as on_the_command_line:
        load_study(None, (f"{name}=1",))
    with pytest.raises(StudyError) as in_the_file:
        load_study(yaml_file(tmp_path, yaml.safe_dump(nested(name, 1))))
    assert (
        str(on_the_command_line.value) == str(in_the_file.value) == (f"Unknown setting {name}: did you mean {meant}.")
    )


@pytest.mark.parametrize("name", ["zzz", "a.b.c", "", "."])
def test_a_name_like_no_other_is_still_refused(name: str) -> None:
    with pytest.raises(StudyError, match="Unknown setting"):
        load_study(None, (f"{name}=1",))


def test_an_unknown_name_beside_known_ones_is_refused(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "seed: 3\nretrieval:\n  k: 2\n  image_wait: 0.1\n")
    with pytest.raises(
        StudyError, match=r"Unknown setting retrieval\.image_wait: did you mean retrieval\.image_weight"
    ):
        load_study(file)


def test_the_study_itself_takes_no_unknown_name() -> None:
    """The flow is also started from the dashboard, past `load_study`."""
    for values in ({"sead": 1}, {"retrieval": {"kk": 1}}, {"retrival": {"k": 1}}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            Study.model_validate(values)


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_that_does_not_fit_names_its_setting(name: str, value: Any, tmp_path: Path) -> None:
    text = yaml.safe_dump(nested(name, value))
    with pytest.raises(StudyError, match=rf"^Setting {name} does not fit: .*, found "):
        load_study(yaml_file(tmp_path, text))
    written = yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    with pytest.raises(StudyError, match=rf"^Setting {name} does not fit: .*, found "):
        load_study(None, (f"{name}={written}",))


def test_one_wrong_item_of_a_list_is_named() -> None:
    with pytest.raises(StudyError, match=r"^Setting lora\.targets\.1 does not fit: .*, found \['a'\]\."):
        load_study(None, ("lora.targets=[q_proj, [a]]",))


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("seed", "Expected --set NAME=VALUE, found 'seed'"),
        ("", "Expected --set NAME=VALUE, found ''"),
        ("seed=[", r"Cannot read the value of seed: found '\['"),
        ("seed=", "Setting seed does not fit: .*, found None"),
        ("seed.x=1", r"Setting seed does not fit: .*, found \{'x': 1\}"),
        ("retrieval=5", "Expected a group of settings at retrieval, found 5"),
        ("retrieval=", "Expected a group of settings at retrieval, found None"),
    ],
)
def test_an_assignment_that_cannot_be_read_is_refused(assignment: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load_study(None, (assignment,))


def test_an_assignment_below_a_value_is_refused() -> None:
    with pytest.raises(StudyError, match=r"Expected a group of settings at 'retrieval' in 'retrieval\.k', found 5"):
        load_study(None, ("retrieval=5", "retrieval.k=3"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- seed: 3\n", "Expected settings by name in .*study.yaml, found a list"),
        (b"seed\n", "Expected settings by name in .*study.yaml, found a str"),
        (b"seed: [1, 2\n", "Expected YAML in .*study.yaml, found something else"),
        (b"\xff\xfe\xff", "Expected YAML in .*study.yaml, found something else"),
        (b"!!python/object:os.system {}\n", "Expected YAML in .*study.yaml, found something else"),
        (b"retrieval: 5\n", "Expected a group of settings at retrieval, found 5"),
        (b"5: 3\n", "Unknown setting 5"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(StudyError, match=said) as error:
        load_study(tmp_path / "study.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"Cannot read the settings file .*absent\.yaml: No such file"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(StudyError, match=r"Cannot read the settings file .*: Is a directory"):
        load_study(tmp_path)


def test_a_list_of_datasets_has_a_list_of_roots() -> None:
    one = load_study(None, ("dataset.name=vqa-rad", "dataset.root=/a")).dataset
    assert (one.sources, one.label) == ((("vqa-rad", Path("/a")),), "vqa-rad")
    several = load_study(None, ("dataset.name=[vqa-rad, phantom]", "dataset.root=[/a, null]")).dataset
    assert several.sources == (("vqa-rad", Path("/a")), ("phantom", None))
    assert several.label == "vqa-rad + phantom"
    assert load_study(None, ("dataset.name=[phantom, slake]",)).dataset.sources == (("phantom", None), ("slake", None))


@pytest.mark.parametrize(
    ("name", "root", "expected"),
    [("[vqa-rad, slake]", "[/a]", "a list of 2"), ("[slake]", "/a", "a list of 1"), ("slake", "[/a]", "one folder")],
)
def test_roots_that_do_not_pair_with_the_datasets_are_refused(name: str, root: str, expected: str) -> None:
    with pytest.raises(StudyError, match=rf"^Setting dataset\.root does not fit: expected {expected}.* order of"):
        load_study(None, (f"dataset.name={name}", f"dataset.root={root}"))


def test_a_wrong_name_in_a_list_of_datasets_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^Setting dataset\.name.* does not fit: .*'phantom'.*, found"):
        load_study(None, ("dataset.name=[slake, mnist]",))


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "{}\n", "retrieval: {}\n"])
def test_a_file_that_sets_nothing_gives_the_defaults(text: str, tmp_path: Path) -> None:
    assert load_study(yaml_file(tmp_path, text)) == load_study() == Study()


def test_assignments_go_on_top_of_the_file_and_the_last_one_holds(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "seed: 3\nretrieval:\n  k: 2\n  image_weight: 0.25\n")
    study = load_study(file, ("retrieval.k=5", "retrieval.k=7", "dataset.root=/data/slake"))
    assert (study.seed, study.retrieval.k, study.retrieval.image_weight) == (3, 7, 0.25)
    assert study.dataset.root == Path("/data/slake")
    assert study == load_study(None, ("seed=3", "retrieval={k: 7, image_weight: 0.25}", "dataset={root: /data/slake}"))


@pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("2e-5", 2e-5), ("1.0e-4", 1e-4), ("5", 5.0)])
def test_a_number_is_read_as_people_write_it(text: str, number: float, tmp_path: Path) -> None:
    assert load_study(None, (f"federation.learning_rate={text}",)).federation.learning_rate == number
    file = yaml_file(tmp_path, f"federation:\n  learning_rate: {text}\n")
    assert load_study(file).federation.learning_rate == number


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    assert load_study(None, ("dataset.images=1e3",)).dataset.images == 1000


def test_blanks_and_further_equals_signs_do_no_harm() -> None:
    assert load_study(None, (" seed = 4",)).seed == 4
    assert load_study(None, ("model.name=/models/a=b",)).model.name == "/models/a=b"


def test_every_setting_is_described() -> None:
    described = list(describe())
    assert [name for name, _, _ in described] == list(leaves(Study))
    assert all(len(text) >= 5 and text.endswith(".") for _, _, text in described)
    assert len({text for _, _, text in described}) == len(described)


def test_described_defaults_are_the_defaults() -> None:
    """Setting each to what is shown for it changes nothing."""
    defaults = {name: default for name, default, _ in describe()}
    assert defaults["retrieval.k"] == "3"
    assert defaults["lora.targets"] == "[q_proj, v_proj]"
    assert defaults["dataset.root"] == "null"
    assert load_study(None, tuple(f"{name}={default}" for name, default in defaults.items())) == Study()


def test_the_negative_control_is_drawn_beside_drawn_images_and_named_beside_others() -> None:
    assert control_of(Study()) == DatasetSettings(name="phantom-public", images=120)
    assert control_of(load_study(None, ("dataset.name=phantom-terms", "dataset.images=8"))).images == 8  # type: ignore[union-attr]
    real = ("dataset.name=slake", "dataset.root=/data")
    assert control_of(load_study(None, real)) is None
    assert control_of(load_study(None, ("dataset.name=[phantom, slake]", "dataset.root=[null, /data]"))) is None
    assert control_of(load_study(None, ("dataset.name=phantom-public",))) is None
    named = load_study(None, (*real, "audit.control=vqa-rad", "audit.control_root=/rad"))
    assert control_of(named) == DatasetSettings(name="vqa-rad", root=Path("/rad"))
    with pytest.raises(StudyError, match=r"another dataset than dataset\.name, found slake in both"):
        control_of(load_study(None, (*real, "audit.control=slake")))
    with pytest.raises(StudyError, match=r"^Expected audit\.control beside audit\.control_root=/rad, found none"):
        control_of(load_study(None, ("audit.control_root=/rad",)))


def test_study_is_frozen_and_its_parts_are_hashable() -> None:
    study = Study()
    with pytest.raises(ValidationError, match="frozen"):
        study.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        study.retrieval.k = 1  # type: ignore[misc]
    for name in Study.model_fields:
        part = getattr(study, name)
        assert {part: name}[getattr(load_study(), name)] == name
    assert hash(study) == hash(load_study())
    assert load_study(None, ("lora.targets=[q_proj]",)).lora in {load_study(None, ("lora.targets=[q_proj]",)).lora}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "dataset": st.fixed_dictionaries({"root": st.none() | st.just("/data"), "images": st.integers(4, 500)}),
            "partition": st.fixed_dictionaries(
                {"hospitals": st.integers(1, 1000), "alpha": st.floats(0, 1e9, exclude_min=True)}
            ),
            "lora": st.fixed_dictionaries({"targets": st.lists(st.sampled_from(["q_proj", "o_proj"]), min_size=1)}),
            "retrieval": st.fixed_dictionaries({"k": st.integers(0, 50), "image_weight": st.floats(0, 1)}),
            "seed": st.integers(0, 2**31 - 1),
        },
    )
)
def test_json_round_trip(values: dict[str, Any]) -> None:
    study = Study.model_validate(values)
    dumped = json.loads(json.dumps(study.model_dump(mode="json"), allow_nan=False))
    assert Study.model_validate(dumped) == study
    for group, inner in values.items():
        assert dumped[group] == inner if group == "seed" else inner.items() <= dumped[group].items()


def test_yaml_round_trip_of_a_whole_study(tmp_path: Path) -> None:
    study = load_study(None, ("seed=7", "dataset.name=slake", "dataset.root=/data", "federation.learning_rate=2e-5"))
    assert load_study(yaml_file(tmp_path, yaml.safe_dump(study.model_dump(mode="json")))) == study


@pytest.mark.parametrize(
    ("hospitals", "k", "name"),
    [(4, 3, "fed+rag"), (2, 0, "fed"), (1, 1, "centralised+rag"), (1, 0, "centralised")],
)
def test_configuration_names(hospitals: int, k: int, name: str) -> None:
    assert load_study(None, (f"partition.hospitals={hospitals}", f"retrieval.k={k}")).configuration == name


@pytest.mark.parametrize(
    "text",
    ["/data/my export #2", "2024-01-15", "010", "off", "1e3", "/a: b", "[2024]", "12:30", "{x}", "@home", "- a", "1_0"],
)
def test_a_path_is_taken_as_it_is_written(text: str, tmp_path: Path) -> None:
    if not text.startswith("["):
        assert load_study(None, (f"dataset.root={text}",)).dataset.root == Path(text)
    assert load_study(None, (f"model.name={text}",)).model.name == text
    file = yaml_file(tmp_path, f"dataset:\n  root: {json.dumps(text)}\n")
    assert load_study(file).dataset.root == Path(text)


@pytest.mark.parametrize("text", ["2024-01-15", "010", "off", "no", "12:30", "1e3"])
def test_a_path_needs_no_quotes_in_a_file_or_a_list(text: str, tmp_path: Path) -> None:
    assert load_study(yaml_file(tmp_path, f"dataset: {{root: {text}}}\n")).dataset.root == Path(text)
    several = load_study(None, ("dataset.name=[vqa-rad, phantom]", f"dataset.root=[{text}, null]")).dataset
    assert several.root == (Path(text), None)


def test_home_is_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    study = load_study(None, ("dataset.root=~/data", "model.name=~/models/a"))
    assert (study.dataset.root, study.model.name) == (Path("/home/me/data"), "/home/me/models/a")
    assert load_study(yaml_file(tmp_path, "dataset: {root: ~/data}\n")).dataset.root == Path("/home/me/data")
    both = load_study(None, ("dataset.name=[vqa-rad, slake]", "dataset.root=[~/a, /b~/c]")).dataset
    assert both.root == (Path("/home/me/a"), Path("/b~/c"))


@pytest.mark.parametrize("name", ["retrieval.rerank", "retrieval.encoder", "partition.scheme", "synthesis.choices"])
def test_every_word_that_help_lists_is_taken(name: str, tmp_path: Path) -> None:
    group, leaf = name.split(".")
    for word in get_args(type(getattr(Study(), group)).model_fields[leaf].annotation):
        more = ("retrieval.encoder_model=/m",) if word == "clip" else ()
        for study in (
            load_study(None, (f"{name}={word}", *more)),
            load_study(None, (f"{name}='{word}'", *more)),
            load_study(yaml_file(tmp_path, f"{group}: {{{leaf}: {word}}}\n"), more),
            load_study(None, (f"{group}={{{leaf}: {word}}}", *more)),
        ):
            assert getattr(getattr(study, group), leaf) == word


def test_words_are_words_in_configurations_and_sweeps_too() -> None:
    changed = "configurations={fed+rag: {retrieval.rerank: off}, fed: {model.name: 2024}}"
    found = load_comparison(None, (changed,), ("retrieval.rerank=off,fixed", "retrieval.k=0,1", "model.name=010,a"))
    assert found.configurations == {"fed+rag": {"retrieval.rerank": "off"}, "fed": {"model.name": "2024"}}
    assert found.sweeps == {"retrieval.rerank": ("off", "fixed"), "retrieval.k": (0, 1), "model.name": ("010", "a")}


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("+7", 7), ("0", 0), ("1e1", 10)])
def test_a_number_is_decimal(text: str, number: int, tmp_path: Path) -> None:
    assert load_study(None, (f"seed={text}",)).seed == number
    assert load_study(yaml_file(tmp_path, f"seed: {text}\n")).seed == number


@pytest.mark.parametrize("word", ["yes", "on", "true", "True"])
def test_a_setting_of_yes_or_no_takes_these(word: str, tmp_path: Path) -> None:
    assert load_study(None, (f"dataset.frames={word}",)).dataset.frames is True
    assert load_study(yaml_file(tmp_path, f"dataset: {{frames: {word}}}\n")).dataset.frames is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: {name: slake}\nseed: 1\ndataset: {images: 8}\n", "found dataset in line 1 and again in line 3"),
        ("retrieval:\n  k: 1\n  k: 2\n", "found k in line 2 and again in line 3"),
        ("federation: {rounds: 2}\nfederation.rounds: 3\n", "found federation.rounds in line 1 and again in line 2"),
        ("federation.rounds: 3\nfederation.rounds: 3\n", "found federation.rounds in line 1 and again in line 2"),
    ],
)
def test_a_name_that_stands_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=rf"study.yaml: Expected each setting once, {said}"):
        load_study(yaml_file(tmp_path, text))


def test_a_dotted_name_in_a_file_is_the_setting_of_that_place(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "federation.rounds: 2\nfederation: {local_epochs: 3}\nretrieval.rerank: off\n")
    assert load_study(file) == load_study(
        None, ("federation.rounds=2", "federation.local_epochs=3", "retrieval.rerank=off")
    )
    with pytest.raises(StudyError, match=r"Unknown setting federation\.round: did you mean federation\.rounds"):
        load_study(yaml_file(tmp_path, "federation.round: 2\n"))
    comparison = load_comparison(yaml_file(tmp_path, "study.retrieval.k: 1\nstudy: {seed: 4, lora.r: 2}\n"))
    assert (comparison.study.retrieval.k, comparison.study.seed, comparison.study.lora.r) == (1, 4, 2)


def test_a_list_that_holds_itself_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"Expected YAML in .*study.yaml, found something else"):
        load_study(yaml_file(tmp_path, "lora: {targets: &a [*a]}\n"))


def test_a_tower_that_learns_is_not_trained_in_one_pass() -> None:
    with pytest.raises(
        StudyError, match=r"^Setting engine does not fit: expected executor mapped, since lora.tower_targets learn"
    ):
        load_study(None, ("lora.tower_targets=[qkv]", "engine.executor=batched"))
    assert load_study(None, ("lora.tower_targets=[qkv]",)).lora.tower_targets == ("qkv",)
    assert load_study(None, ("engine.executor=batched",)).lora.tower_targets == ()


def test_a_projector_that_learns_is_not_trained_in_one_pass() -> None:
    with pytest.raises(
        StudyError, match=r"^Setting engine does not fit: expected executor mapped, since lora.projector"
    ):
        load_study(None, ("lora.projector=true", "engine.executor=batched"))
    assert load_study(None, ("lora.projector=true",)).lora.projector
    assert load_study(None, ("engine.executor=batched",)).engine.executor == "batched"


def test_a_setting_is_known_by_its_former_name(tmp_path: Path) -> None:
    """In a file, at `--set`, in a comparison, and in a finished run."""
    file = tmp_path / "study.yaml"
    file.write_text("federation: {aggregation: fedprox}\n")
    assert load_study(file).federation.strategy == "fedprox"
    assert load_study(None, ("federation.aggregation=none",)).federation.strategy == "none"
    assert load_study(file, ("federation.strategy=krum",)).federation.strategy == "krum"
    assert changed(Study(), {"federation.aggregation": "none"}).federation.strategy == "none"
    finished = Study().model_dump(mode="json")
    finished["federation"]["aggregation"] = finished["federation"].pop("strategy")
    assert Study.model_validate(finished) == Study()
