"""Write a base as a folder that transformers can load and answer with on its own."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tasks.engine.families.registry import family_of
from tasks.settings.evaluation import AnsweringSettings

ANSWERING = AnsweringSettings()


def write_base(
    folder: Path, model: Any, tokenizer: Any, image_processor: Any, most: int = ANSWERING.max_new_tokens
) -> None:
    """Write weights, configuration and everything that `write_companions` writes.

    Args:
        folder: it is created if it does not exist.
        model: a vision-language model of one of the families, without adapters.
        tokenizer: the model's.
        image_processor: the model's.
        most: default length limit of an answer, in tokens, for callers of `generate`.
    """
    model.save_pretrained(folder)
    write_companions(folder, model.config, tokenizer, image_processor, most)


def write_companions(
    folder: Path, config: Any, tokenizer: Any, image_processor: Any, most: int = ANSWERING.max_new_tokens
) -> None:
    """Write everything else that `generate` needs, so that it answers as the engine does.

    These are the tokenizer with its chat template, the image processor, transformers' processor if the family needs
    one to combine both, and the generation settings. For the parameters see `write_base`.
    """
    family = family_of(config.model_type, str(folder))
    for part in (tokenizer, image_processor):
        part.save_pretrained(folder)
    # The template comes after the tokenizer, which may have written another one.
    processor = family.processor(tokenizer, image_processor, config)
    if processor is not None:
        processor.save_pretrained(folder)
    template = family.chat_template(tokenizer, config)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    generation_of(tokenizer, most).save_pretrained(folder)


def generation_of(tokenizer: Any, most: int = ANSWERING.max_new_tokens) -> GenerationConfig:
    """Settings for greedy answers of at most `most` tokens that end, as the engine's, only at the tokenizer's end."""
    end, filler = tokenizer.eos_token_id, tokenizer.pad_token_id
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end if filler is None else filler,
        do_sample=False,
        max_new_tokens=most,
    )
