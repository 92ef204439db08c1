"""Questions by a language model: what it writes is checked, whatever it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import StudyError
from tasks.records import Caption
from tasks.store import tree_digest
from tasks.synthesize.generate import synthesize
from tasks.synthesize.model import MAX_NEW_TOKENS, load_writer
from tasks.synthesize.prompts import EXAMPLES, messages
from tasks.synthesize.reply import parse_reply

TEXT = "Axial CT shows a small mass in the left\nlower lobe. There is no evidence of pleural effusion."
CAPTION = Caption("i1", TEXT, "train", "d", "en")


GOOD = [
    ("side: On which side is the mass? left", "mass in the left\nlower lobe"),
    ("Where is the mass? Left lower lobe.", "small mass in the left\nlower lobe"),
    ("3. What is seen in the left lower lobe? A: small mass", "small mass in the left\nlower lobe"),
    ("- Is there a pleural effusion? No.", "no evidence of pleural effusion"),
    ("present: Is there a mass? Yes", "small mass in the left\nlower lobe"),
    ("modality: What imaging modality was used? CT", "CT"),
    ("Q: Is this an MRI scan taken by that modality? no", "CT"),
    ("plane: In which plane is the image? axial", "Axial"),
    ("finding: What abnormality is seen? a small mass", "small mass in the left\nlower lobe"),
]
"""Lines, with the words that the rules would cite for them."""


@pytest.mark.parametrize(("line", "span"), GOOD)
def test_a_supported_pair_is_taken(line: str, span: str) -> None:
    (draft,), refused = parse_reply(line, CAPTION)
    assert not refused
    assert TEXT[draft.start : draft.end] == draft.span
    assert span in draft.span
    assert line.endswith(f"{draft.question}{line.rpartition('?')[2]}")
    assert draft.answer.lower() == line.rpartition("?")[2].removeprefix(" A:").strip(" .").lower()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("On which side is the mass? right", "not supported: the span lacks 'right'"),
        ("Where is the mass? left upper lobe", "not supported: the span lacks 'upper'"),
        ("What is seen in the liver? mass", "not supported: the span does not state the place asked about"),
        ("Is there a pleural effusion? yes", "not supported: the span does not state this"),
        ("What is seen? pleural effusion", "not supported"),
        ("Is there a fracture? no", "not supported: it names nothing that the caption states"),
        ("Is there no mass? no", "not supported: the span does not deny this"),
        ("Is the patient old? yes", "not supported"),
        ("What is seen? a malignant mass", "not supported: the span lacks 'malignant'"),
        ("Is this an MRI image? yes", "not supported"),
        ("In which plane is the image? coronal", "not supported"),
        ("The mass is left.", "no question with an answer"),
        ("What is seen?", "no question with an answer"),
        ("side: ? left", "no question with an answer"),
        ("What is seen? " + "m" * 400, "too long"),
    ],
)
def test_an_unsupported_pair_is_refused(line: str, why: str) -> None:
    drafts, (reason,) = parse_reply(line, CAPTION)
    assert not drafts
    assert why in reason
    assert line[:20] in reason


@pytest.mark.parametrize(
    ("text", "modality", "answer", "taken"),
    [
        ("CT and MRI of a mass.", None, "CT", False),
        ("CT and MRI of a mass.", "MRI", "CT", False),
        ("CT and MRI of a mass.", "MRI", "MRI", True),
        ("CT of a mass.", "MRI", "CT", False),
        ("CT of a mass.", "ct", "CT", True),
    ],
)
def test_a_caption_may_speak_of_other_images(text: str, modality: str | None, answer: str, taken: bool) -> None:
    drafts, _ = parse_reply(f"What imaging modality was used? {answer}", replace(CAPTION, text=text, modality=modality))
    assert bool(drafts) == taken


@pytest.mark.parametrize(
    ("question", "answer"),
    [("On which side is the mass?", "the mass"), ("Which modality is this?", "MRI shows a mass of the orbit")],
)
def test_an_answer_that_states_nothing_or_more_is_refused(question: str, answer: str) -> None:
    caption = replace(CAPTION, text="MRI shows a mass of the orbit and a left effusion.")
    drafts, (reason,) = parse_reply(f"{question} {answer}", caption)
    assert not drafts
    assert "side is another or not stated" in reason or "says more than the modality" in reason


def test_the_answer_may_name_several_findings() -> None:
    caption = replace(CAPTION, text="CT shows a mass and edema.")
    (draft,), _ = parse_reply("What abnormalities are seen? mass and edema", caption)
    assert draft.span == "mass and edema"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_reply_is_refused(text: str) -> None:
    assert parse_reply(text, CAPTION) == ([], ["no question with an answer: found ''"])


@pytest.mark.parametrize(("caption", "lines"), EXAMPLES)
def test_the_examples_of_the_prompt_are_supported(caption: str, lines: str) -> None:
    drafts, refused = parse_reply(lines, replace(CAPTION, text=caption))
    assert not refused
    assert all(draft.question in line for draft, line in zip(drafts, lines.splitlines(), strict=True))


words = st.sampled_from(
    ["mass", "left", "no", "yes", "?", ":", "CT", "axial", "pleural effusion", "\n", "is", "\ud800"]
)


@settings(deadline=None, max_examples=300)
@given(st.text() | st.lists(words, max_size=20).map(" ".join), st.text(max_size=60))
@example("?" * 10_000, "mass")
@example("a:" * 10_000 + "? mass", "mass")
@example("1" * 10_000 + "? mass", "mass")
@example("- " * 10_000, "mass")
def test_no_reply_and_no_caption_brings_a_traceback(text: str, words: str) -> None:
    for caption in (CAPTION, Caption("i1", words, "train", "d", "en")):
        drafts, refused = parse_reply(text, caption)
        assert all(caption.text[draft.start : draft.end] == draft.span for draft in drafts)
        assert all(isinstance(reason, str) for reason in refused)


def test_one_function_for_both_generators() -> None:
    def writer(captions: list[Caption]) -> list[str]:
        return ["\n".join(line for line, _ in GOOD), "no idea"]

    rows = [CAPTION, Caption("i2", TEXT, "train", "d", "en")]
    cases, origins, report = synthesize(rows, "model", seed=0, model="some/model", writer=writer)  # type: ignore[arg-type]
    assert {case.image_id for case in cases} == {"i1"}
    assert {origin.generator for origin in origins} == {"model some/model"}
    assert report["refused"] == {"no question with an answer": 1}
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
    with pytest.raises(StudyError, match=r"found none among 10 \(no question with an answer"):
        synthesize(rows, "model", seed=0, model=str(tiny), writer=load_writer(str(tiny), "cpu"))


def test_a_model_that_sees_writes_without_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers does for one caption at a time, without padding."""
    from family_samples import make_fast_vlm
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    monkeypatch.setattr("tasks.synthesize.model.MAX_NEW_TOKENS", 8)
    folder = make_fast_vlm(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    rows = [CAPTION, replace(CAPTION, text="Chest x-ray."), replace(CAPTION, text=TEXT * 2)]
    expected = []
    for row in rows:
        ids = tokenizer.apply_chat_template(messages(row.text), add_generation_prompt=True, return_tensors="pt")
        made = model.generate(**ids, do_sample=False, max_new_tokens=8)[0, ids["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(made, skip_special_tokens=True))
    assert list(load_writer(str(folder), "cpu")(rows)) == expected
    assert any(expected)


def test_a_model_that_does_not_load_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"synthesis\.model to be an instruct model"):
        load_writer(str(tmp_path), "cpu")
    with pytest.raises(StudyError, match=r"found none: set it"):
        synthesize([CAPTION], "model", seed=0)


def test_the_prompt_holds_the_caption_on_one_line() -> None:
    assert messages(TEXT)[-1]["content"] == "Caption: " + " ".join(TEXT.split())


def test_a_model_that_changed_since_is_refused(tiny: Path) -> None:
    from tasks.synthesize.step import _open_writer

    with pytest.raises(StudyError, match="to stay as it was when the work began, found it changed"):
        _open_writer(str(tiny), "another", "cpu")
    assert _open_writer(str(tiny), tree_digest(tiny), "cpu")
    assert _open_writer(None, "", "") is None
