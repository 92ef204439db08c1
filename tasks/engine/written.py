"""A base written as a folder that transformers alone loads and answers with."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tasks.engine.families.registry import family_of
from tasks.settings.evaluation import AnsweringSettings

ANSWERING = AnsweringSettings()


def write_base(
    folder: Path, model: Any, tokenizer: Any, image_processor: Any, most: int = ANSWERING.max_new_tokens
) -> None:
    """Write weights and configuration, and all that `write_companions` does.

    Args:
        folder: it is made where it is not there.
        model: a vision-language model of one of the families, without adapters.
        tokenizer: the model's.
        image_processor: the model's.
        most: longest answer, in tokens, where the caller of `generate` names none.
    """
    model.save_pretrained(folder)
    write_companions(folder, model.config, tokenizer, image_processor, most)


def write_companions(
    folder: Path, config: Any, tokenizer: Any, image_processor: Any, most: int = ANSWERING.max_new_tokens
) -> None:
    """Write all that `generate` needs beside weights and configuration: what they say is what the engine does.

    These are the tokenizer with its chat template, the image processor, transformers' processor of both where it needs
    to be told how they fit, and what ends an answer. The parameters are those of `write_base`.
    """
    family = family_of(config.model_type, str(folder))
    for part in (tokenizer, image_processor):
        part.save_pretrained(folder)
    # The template after the tokenizer, whose own may be another.
    processor = family.processor(tokenizer, image_processor, config)
    if processor is not None:
        processor.save_pretrained(folder)
    template = family.chat_template(tokenizer, config)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    generation_of(tokenizer, most).save_pretrained(folder)


def generation_of(tokenizer: Any, most: int = ANSWERING.max_new_tokens) -> GenerationConfig:
    """Greedy answers of `most` tokens, that end where the engine's do: at the tokenizer's own end, and at no other."""
    end, filler = tokenizer.eos_token_id, tokenizer.pad_token_id
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end if filler is None else filler,
        do_sample=False,
        max_new_tokens=most,
    )
