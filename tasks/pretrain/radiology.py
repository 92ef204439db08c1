"""The base `radiology`: a tower trained on photographs, and the embedded base's text model, taught real images.

The tower is EfficientNet-Lite0 of smol-clip, unchanged. The text model has the embedded base's shape and its tokens,
with further words, and new weights: from the old ones it learned more slowly (docs/log.md). A new projector joins the
two, and learns together with the text model.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tasks.cases.holdout import split_holdout
from tasks.engine.base import Base
from tasks.engine.families import smol_clip
from tasks.engine.prompt import Prompt, build_prompts
from tasks.pretrain.varied import varied_id
from tasks.pretrain.words import learn_words
from tasks.records import Case, Neighbour
from tasks.settings import ContextSettings
from tasks.store import derived_seed

VOCABULARY = 4096
"""Most tokens of its tokenizer."""
CONTEXTS = {0: 0.94, 1: 0.02, 2: 0.02, 3: 0.02}
"""The share of the prompts with each number of retrieved cases. Those without share their image's tokens."""


def compose(embedded: Base, texts: Iterable[str], out: Path) -> None:
    """Write the untrained base into a folder: tower, fresh projector, text model with words learned from `texts`.

    Raises StudyError if a package of the extra `real` is missing.
    """
    vision = smol_clip.read_vision(smol_clip.VISION.path)
    widened = learn_words(embedded, texts, VOCABULARY)
    torch.manual_seed(smol_clip.SEED)
    text = Qwen2ForCausalLM(plain_text_model(widened).config).eval()
    smol_clip.combine(vision, text, widened.tokenizer, out)


def learned(cases: Sequence[Case], left_out: float) -> list[Case]:
    """The training cases that the base learns: those of all images but the share `left_out`.

    The others come first in the order by which hospitals hold images out with `federation.holdout_seed=0`. So a
    hospital that holds out somewhat less finds images there that the base has not seen.
    """
    return split_holdout(cases, left_out, 0)[0]


def plain_text_model(base: Base) -> Qwen2ForCausalLM:
    """Qwen2-VL's text model as a Qwen2 of its own, with the same weights.

    Qwen2-VL counts positions in three dimensions, which are equal in text: there the two compute the same.
    """
    text = base.model.config.text_config
    shared = {
        name: getattr(text, name)
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id",
            "eos_token_id", "pad_token_id",
        )
    }  # fmt: skip
    rope = {name: text.rope_parameters[name] for name in ("rope_type", "rope_theta")}
    model = Qwen2ForCausalLM(Qwen2Config(**shared, rope_parameters=rope)).eval()
    model.model.load_state_dict(base.model.model.language_model.state_dict())
    return model


def prompts_of(cases: Sequence[Case], neighbours: Sequence[Neighbour], copies: int, seed: int) -> list[Prompt]:
    """Each case once for its image and once for each altered copy of it, in random contexts of texts.

    Args:
        cases: cases to ask.
        neighbours: their neighbours, up to three; those that are not among the cases are not shown.
        copies: altered copies of each image.
        seed: seed of what context a prompt has.
    """
    chooser = random.Random(derived_seed(seed, "contexts"))
    ids = {case.id for case in cases}
    shown = [neighbour for neighbour in neighbours if neighbour.neighbour_id in ids]
    prompts = []
    for number in range(copies + 1):
        counts = chooser.choices(list(CONTEXTS), list(CONTEXTS.values()), k=len(cases))
        for k in CONTEXTS:
            part = [case for case, count in zip(cases, counts, strict=True) if count == k]
            made = build_prompts(part, cases, shown, ContextSettings(k=k, show="text"))
            prompts += [_of_copy(prompt, number) for prompt in made]
    return prompts


def _of_copy(prompt: Prompt, number: int) -> Prompt:
    """The prompt about an altered copy of its image; about the image itself for 0."""
    if not number:
        return prompt
    return replace(prompt, image_ids=tuple(varied_id(name, number) for name in prompt.image_ids))
