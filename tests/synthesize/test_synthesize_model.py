"""Questions by a language model: what it writes is checked, whatever it is."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.records import Caption
from tasks.store import tree_digest
from tasks.synthesize.generate import synthesize
from tasks.synthesize.model import MAX_NEW_TOKENS, load_writer, parse_reply
from tasks.synthesize.prompts import messages

TEXT = "Axial CT shows a small mass in the left\nlower lobe. There is no evidence of pleural effusion."
CAPTION = Caption("i1", TEXT, "train", "d", "en")


def reply(*pairs: tuple[str, str, str]) -> str:
    return json.dumps([dict(zip(("question", "answer", "span"), pair, strict=True)) for pair in pairs])


GOOD = [
    ("On which side is the mass?", "left", "mass in the left lower lobe"),
    ("Where is the mass?", "Left lower lobe.", "small mass in the left lower lobe"),
    ("What is seen in the left lower lobe?", "small mass", "small mass in the left lower lobe"),
    ("Is there a pleural effusion?", "No.", "no evidence of pleural effusion"),
    ("Is there a mass?", "Yes", "small mass"),
    ("What imaging modality was used?", "CT", "Axial CT"),
    ("Is this an MRI scan taken by that modality?", "no", "Axial CT"),
    ("In which plane is the image?", "axial", "axial ct"),
]


@pytest.mark.parametrize("pair", GOOD)
def test_a_supported_pair_is_taken(pair: tuple[str, str, str]) -> None:
    (draft,), refused = parse_reply(reply(pair), CAPTION)
    assert not refused
    assert TEXT[draft.start : draft.end] == draft.span
    assert draft.answer in (pair[1].rstrip("."), pair[1].rstrip(".").lower())


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (("On which side is the mass?", "right", "mass in the left lower lobe"), "not supported"),
        (("On which side is the mass?", "left", "mass in the left upper lobe"), "not in the caption"),
        (("Is there a pleural effusion?", "yes", "no evidence of pleural effusion"), "not supported"),
        (("What is seen?", "pleural effusion", "pleural effusion"), "not supported"),
        (("Is there a fracture?", "no", "small mass"), "not supported"),
        (("Is there a fracture?", "no", "no evidence of pleural effusion"), "not supported"),
        (("Is the patient old?", "yes", "small mass"), "not supported"),
        (("What is seen?", "a malignant mass", "small mass"), "not supported"),
        (("Is this an MRI image?", "yes", "Axial CT"), "not supported"),
        (("", "left", "mass"), "lacks question"),
        (("The mass is left.", "left", "mass"), "has not the form"),
        (("What is seen?", "m" * 400, "mass"), "has not the form"),
    ],
)
def test_an_unsupported_pair_is_refused(pair: tuple[str, str, str], why: str) -> None:
    drafts, (reason,) = parse_reply(reply(pair), CAPTION)
    assert not drafts
    assert why in reason


@pytest.mark.parametrize("text", ["", "Here are some questions.", "[", "[1, 2", "]["])
def test_a_reply_without_a_list_is_refused(text: str) -> None:
    assert parse_reply(text, CAPTION)[1][0].startswith("the reply is no JSON list")


def test_words_around_the_list_do_no_harm() -> None:
    drafts, refused = parse_reply(f"Here are your pairs:\n```json\n{reply(*GOOD)}\n```", CAPTION)
    assert len(drafts) == len(GOOD)
    assert not refused


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=30) | st.sampled_from([*GOOD[0], *GOOD[3], TEXT]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("question", "answer", "span", "x")), inner, max_size=4)
    ),
)


@settings(deadline=None, max_examples=300)
@given(
    st.text() | anything.map(lambda value: json.dumps([value])) | st.text(alphabet='[]{}",:ab ?'), st.text(max_size=60)
)
@example("[" * 100_000 + "]", "mass")
@example('[{"question": "?", "answer": "mass", "span": "\\ud800"}]', "mass")
@example("[" + "9" * 5000 + "]", "mass")
def test_no_reply_and_no_caption_brings_a_traceback(text: str, words: str) -> None:
    for caption in (CAPTION, Caption("i1", words, "train", "d", "en")):
        drafts, refused = parse_reply(text, caption)
        assert all(caption.text[draft.start : draft.end] == draft.span for draft in drafts)
        assert all(isinstance(reason, str) for reason in refused)


def test_one_function_for_both_generators() -> None:
    def writer(captions: list[Caption]) -> list[str]:
        return [reply(*GOOD), "no idea"]

    rows = [CAPTION, Caption("i2", TEXT, "train", "d", "en")]
    cases, origins, report = synthesize(rows, "model", seed=0, model="some/model", writer=writer)  # type: ignore[arg-type]
    assert {case.image_id for case in cases} == {"i1"}
    assert {origin.generator for origin in origins} == {"model some/model"}
    assert report["refused"] == {"the reply is no JSON list": 1}
    assert report["after"]["yes_no"]["yes_share"] == 0.5
    assert "no idea" in report["refusals"][0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, a word tokenizer and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    words = {word: number for number, word in enumerate(["<unk>", "<eos>", "[", "]", "mass", "the", "is"])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_that_knows_nothing_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.synthesize.model.MAX_NEW_TOKENS", 8)
    assert MAX_NEW_TOKENS > 8
    rows = [Caption(f"i{n}", TEXT * (n % 2 + 1), "train", "d", "en") for n in range(10)]
    replies = list(load_writer(str(tiny), "cpu")(rows))
    assert len(replies) == 10
    assert replies == list(load_writer(str(tiny), "cpu")(rows))  # greedy
    with pytest.raises(StudyError, match=r"found none among 10 \(the reply is no JSON list"):
        synthesize(rows, "model", seed=0, model=str(tiny), writer=load_writer(str(tiny), "cpu"))


def test_a_model_that_does_not_load_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"synthesis\.model to be an instruct model"):
        load_writer(str(tmp_path), "cpu")
    with pytest.raises(StudyError, match=r"found none: set it"):
        synthesize([CAPTION], "model", seed=0)


def test_the_prompt_holds_the_caption_on_one_line() -> None:
    assert messages(TEXT)[1]["content"].endswith("Caption: " + " ".join(TEXT.split()))


def test_a_model_that_changed_since_is_refused(tiny: Path) -> None:
    from tasks.synthesize.step import _open_writer

    with pytest.raises(StudyError, match="to stay as it was when the work began, found it changed"):
        _open_writer(str(tiny), "another", "cpu")
    assert _open_writer(str(tiny), tree_digest(tiny), "cpu")
    assert _open_writer(None, "", "") is None
