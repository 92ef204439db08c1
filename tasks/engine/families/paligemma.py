"""PaliGemma: no chat, but a prefix that is seen as a whole and an answer that follows it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tasks.engine.families.family import Family, Preset, Rows, encoded, turns

# Its processor adds the first token behind the images, and the line feed at the end.
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

    The prefix is `<image>...<bos>answer en QUESTION`, a line feed, then the answer: what the mixtures were trained on.
    PaliGemma knows no earlier turns. Retrieved cases are written as it would have seen them one after the other, each
    question and each answer on a line of its own, behind the features of all images in the order of the cases. The
    published weights never saw such a prefix: the adapter has to learn it.
    """

    model_types = ("paligemma",)
    presets: ClassVar[Mapping[str, Preset]] = {
        "paligemma-3b": Preset("google/paligemma-3b-mix-448", 2.9),
        "paligemma-3b-224": Preset("google/paligemma-3b-mix-224", 2.9),
    }
    causal = False
    first_place = 1

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """All placeholders, the first token, then a line for each turn."""
        said = turns(messages)
        images = tokenizer.convert_ids_to_tokens(config.image_token_id) * sum(turn.images for turn in said)
        # A line feed ends a turn, so people's own become spaces.
        lines = [("" if turn.role == "assistant" else "answer en ") + " ".join(turn.text.split()) for turn in said]
        return images + tokenizer.bos_token + "".join(f"{line}\n" for line in lines)

    def chat_template(self, tokenizer: Any, config: Any) -> str:
        """For transformers' processor, which adds to it; published folders have none."""
        return TEMPLATE.replace("<image>", tokenizer.convert_ids_to_tokens(config.image_token_id))

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """It is told how many tokens an image has."""
        from transformers import PaliGemmaProcessor

        image_processor.image_seq_length = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return PaliGemmaProcessor(image_processor, tokenizer, chat_template=self.chat_template(tokenizer, config))

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """Type 0 attends to its whole prefix, type 1 to what comes before it."""
        import torch

        features = torch.stack(rows.images) if rows.images else ()
        return {"token_type_ids": rows.answered.long(), **encoded(features)}
