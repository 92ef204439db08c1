"""PaliGemma: no chat, but a prefix with full attention and an answer that follows it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tasks.engine.families.family import Family, Preset, Rows, encoded, turns

# The processor adds BOS after the images, and the line feed at the end.
TEMPLATE = """\
{%- for message in messages -%}
{%- for part in message['content'] if part['type'] == 'image' -%}<image>{%- endfor -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] != 'assistant' -%}{{ 'answer en ' }}{%- endif -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{ ' ' if not loop.first }}{{ part['text'].split() | join(' ') }}
{%- endfor -%}
{{ '\\n' if not loop.last }}
{%- endfor -%}
"""


class PaliGemma(Family):
    """The 3B model of 'Adapting Lightweight Vision Language Models for Radiological VQA' (arXiv 2506.14451).

    The prompt is `<image>...<bos>answer en QUESTION`, a line feed, then the answer: the "mix" checkpoints were trained
    on this. PaliGemma has no earlier turns. Retrieved cases follow one another in the prefix, each question and each
    answer on its own line, after the features of all images in the order of the cases. The published weights never saw
    such a prefix, so the adapter must learn it.
    """

    model_types = ("paligemma",)
    presets: ClassVar[Mapping[str, Preset]] = {
        "paligemma-3b": Preset("google/paligemma-3b-mix-448", 2.9),
        "paligemma-3b-224": Preset("google/paligemma-3b-mix-224", 2.9),
    }
    causal = False
    first_place = 1

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """All placeholders, the BOS token, then one line per turn."""
        said = turns(messages)
        images = tokenizer.convert_ids_to_tokens(config.image_token_id) * sum(turn.images for turn in said)
        # A line feed ends a turn, so line feeds in user text become spaces.
        lines = [("" if turn.role == "assistant" else "answer en ") + " ".join(turn.text.split()) for turn in said]
        return images + tokenizer.bos_token + "".join(f"{line}\n" for line in lines)

    def chat_template(self, tokenizer: Any, config: Any) -> str:
        """The template for transformers' processor, which completes it; published folders have none."""
        return TEMPLATE.replace("<image>", tokenizer.convert_ids_to_tokens(config.image_token_id))

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """A processor with the number of tokens per image set."""
        from transformers import PaliGemmaProcessor

        image_processor.image_seq_length = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return PaliGemmaProcessor(image_processor, tokenizer, chat_template=self.chat_template(tokenizer, config))

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """The features, and token types: type 0 attends to the whole prefix, type 1 to earlier tokens only."""
        import torch

        features = torch.cat(rows.images)[None] if rows.images else ()
        return {"token_type_ids": rows.answered.long(), **encoded(features)}
