"""A twin of LLaVA-Med for use without its weights: the real classes, a small configuration, random weights.

It passes through the pipeline as LLaVA-Med does (CLIP tower, projector of two layers, Mistral text model, Mistral's
chat format) but knows nothing. Its scores come only from what an adapter learns on it, so they say nothing about
LLaVA-Med.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tasks.engine.written import write_base

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
VOCABULARY = 2048
EDGE, PATCH, WIDTH, DEPTH = 84, 14, 128, 4


def write_twin(folder: Path, texts: Iterable[str], seed: int) -> None:
    """Write the twin as an ordinary Hugging Face folder, about 2 million parameters.

    Args:
        folder: the folder to write to.
        texts: texts to train its tokenizer on.
        seed: seed of the weights.
    """
    tokenizer = _tokenizer(texts)
    shape: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 4,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, image_size=EDGE, patch_size=PATCH),
        text_config=MistralConfig(
            **shape,
            num_key_value_heads=2,
            head_dim=32,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=(EDGE // PATCH) ** 2,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
    write_base(folder, model, tokenizer, processor)


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
