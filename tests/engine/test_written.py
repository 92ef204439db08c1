"""Folders that the project writes answer in transformers and PEFT alone as they do in the engine."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from engine_samples import CASES, IMAGES, answer_texts, prompts_with_neighbours, randomised
from family_samples import TWINS
from plainly import Conversation, plain_answers
from test_llama_clip import clip_folder, llama_folder
from transformers import GenerationConfig

from tasks.engine.adapter import adapter_files
from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.families.llama_clip import compose
from tasks.engine.identity import EMBEDDED
from tasks.engine.prompt import Prompt, build_prompt
from tasks.engine.vision import encode_images
from tasks.engine.written import ANSWERING, write_base
from tasks.ingest import phantom
from tasks.pretrain.blank import blank_base, train_tokenizer
from tasks.pretrain.step import DEPTH, EDGE, WIDTH
from tasks.pretrain.twin import write_twin
from tasks.records import Image
from tasks.records.pixels import to_rgb

WORDS = [text for case in CASES for text in (case.question, case.answer)]
MADE = ("composed", "twin", "blank")


def conversations(work: Path, prompts: Sequence[Prompt], images: Sequence[Image]) -> list[Conversation]:
    """The conversations, their images files of what `to_rgb` gives."""
    paths = {image.id: work / f"{image.id.replace(':', '-')}.png" for image in images}
    for image in images:
        to_rgb(image.data).save(paths[image.id])
    found = []
    for prompt in prompts:
        names = iter(prompt.image_ids)
        messages: Conversation = json.loads(json.dumps(prompt.messages))
        for part in [part for message in messages for part in message["content"]]:
            if part["type"] == "image":
                part["path"] = str(paths[next(names)])
        found.append(messages)
    return found


def answered(
    folder: Path, adapter: Path, prompts: Sequence[Prompt], images: Sequence[Image], scale: float
) -> list[str]:
    """What the engine answers with an adapter of random weights, which is written."""
    engine = Engine(load_base(str(folder), device="cpu"), r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])
    engine.switch(randomised(engine.read(), 1, scale))
    adapter.mkdir()
    for name, data in adapter_files(engine.read(), engine.config, "tiny").items():
        (adapter / name).write_bytes(data)
    features = encode_images(engine.base, images)
    examples = encode(engine.base, features, prompts)
    return answer_texts(engine, features, examples, tokens=8192, max_new_tokens=ANSWERING.max_new_tokens)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By folder, the engine's answers and those elsewhere: of one process for all, which takes longer to start."""
    tmp_path = tmp_path_factory.mktemp("written")
    folders = {"embedded": EMBEDDED} | {kind: written(kind, tmp_path / kind) for kind in MADE}
    for name, twin in TWINS.items():
        base = load_base(str(twin.make(tmp_path / f"{name}-published")), device="cpu")
        folders[name] = tmp_path / name
        write_base(folders[name], base.model, base.tokenizer, base.image_processor)
    drawn = phantom.read(images=6, seed=9, public=False, test_fraction=0.3)
    drawn_prompts = [build_prompt(case, drawn.cases[max(0, n - 2) : n]) for n, case in enumerate(drawn.cases[:16])]
    here, jobs = {}, []
    for name, folder in folders.items():
        prompts, images = (drawn_prompts, drawn.images) if name == "embedded" else (prompts_with_neighbours(), IMAGES)
        adapter = tmp_path / f"{name}-adapter"
        here[name] = answered(folder, adapter, prompts, images, 0.01 if name == "embedded" else 0.2)
        jobs.append((folder, adapter, conversations(tmp_path, prompts, images)))
    return here, dict(zip(folders, plain_answers(tmp_path, jobs), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embedded", *MADE, *TWINS])
def test_every_folder_answers_elsewhere_as_here(name: str, both: tuple[dict[str, list[str]], ...]) -> None:
    here, plain = both
    assert plain[name] == here[name]
    assert len(set(here[name])) > 1
    if name == "embedded":
        assert all(len(answer.split()) < ANSWERING.max_new_tokens for answer in here[name])  # each ends by itself


def written(kind: str, folder: Path) -> Path:
    """A folder as each place that makes one does."""
    folder.mkdir(exist_ok=True)
    if kind == "composed":
        return compose(clip_folder(folder / "v"), llama_folder(folder / "t", False), folder / "out")
    if kind == "twin":
        write_twin(folder / "out", WORDS, seed=0)
    else:
        base = blank_base(train_tokenizer(WORDS, 400), EDGE, WIDTH, DEPTH, seed=0)
        write_base(folder / "out", base.model, base.tokenizer, base.image_processor)
    return folder / "out"


@pytest.mark.parametrize("kind", MADE)
def test_what_ends_an_answer_is_written_down(kind: str, tmp_path: Path) -> None:
    folder = written(kind, tmp_path)
    config, tokenizer = GenerationConfig.from_pretrained(folder), load_base(str(folder), device="cpu").tokenizer
    assert config.eos_token_id == tokenizer.eos_token_id is not None
    assert config.pad_token_id == tokenizer.pad_token_id is not None
    assert config.bos_token_id == tokenizer.bos_token_id
    assert config.max_new_tokens == ANSWERING.max_new_tokens
    assert not config.do_sample


def test_the_shipped_files_are_those_that_pretraining_writes(tmp_path: Path) -> None:
    made = written("blank", tmp_path)
    assert {path.name for path in made.iterdir()} == {path.name for path in EMBEDDED.iterdir()}
    shipped, anew = (json.loads((each / "generation_config.json").read_text()) for each in (EMBEDDED, made))
    assert shipped == anew
