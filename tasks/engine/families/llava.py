"""LLaVA: a CLIP or other ViT tower, a projector of two layers, a Llama or Mistral text model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tasks.engine.families.family import Family, Preset, Rows, encoded
from tasks.store.shipped import COMPOSED

HEADER = "<|start_header_id|>"
BEGIN = "{{- bos_token -}}\n"
# Common to all three formats: a turn's images come before its text, each on its own line.
SAID = """\
{%- macro said(message) -%}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{ ' ' if not loop.first }}{{ part['text'] }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
LLAMA_3 = """\
{%- for message in messages -%}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + said(message) + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""
MISTRAL = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ ' ' + said(message) + eos_token }}
{%- else -%}{{ '[INST] ' + said(message) + ' [/INST]' }}
{%- endif -%}
{%- endfor -%}
"""
VICUNA = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ ' ' + said(message) + eos_token }}
{%- else -%}{{ 'USER: ' + said(message) + ' ASSISTANT:' }}
{%- endif -%}
{%- endfor -%}
"""

LLAMA_CLIP = COMPOSED / "llama-clip"
"""The folder of the composed LLaMA-CLIP."""


class Llava(Family):
    """LLaVA-1.5 and LLaVA-Med 1.5 (Fed-LLaVA-Med's models), and LLaMA-CLIP as `llama_clip` composes it.

    The published models were trained with one image per conversation; here, several images are several placeholders,
    each in its own turn. Folders have the chat format in the processor or nowhere, not in the tokenizer, so the text
    model's format is written here. The image processor is transformers': it resizes the shorter edge, then crops the
    middle.
    """

    model_types = ("llava",)
    presets: ClassVar[Mapping[str, Preset]] = {
        # Microsoft's checkpoint has the layout of LLaVA's repository; this copy has that of transformers.
        "llava-med-7b": Preset("chaoyinshe/llava-med-v1.5-mistral-7b-hf", 7.6),
        "llava-1.5-13b": Preset("llava-hf/llava-1.5-13b-hf", 13.4),
        "llama-clip": Preset(
            str(LLAMA_CLIP),
            8.1,
            "run fed-rag compose llama-clip --vision DIR --text DIR with the downloaded folders of BiomedCLIP and of "
            "LLaMA-3 8B Instruct",
        ),
    }
    foreign: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("llava_mistral", "llava_llama"), "take the same model converted, as the preset llava-med-7b or llava-1.5-13b"
    )
    begins = True

    def text(self, tokenizer: Any, config: Any, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation in the chat format of Llama 3, of Mistral's instruct models, or of Vicuna."""
        template = _format(tokenizer, config)
        written = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
        )
        return str(written)

    def chat_template(self, tokenizer: Any, config: Any) -> str:
        """The format's template with this model's tokens, and with BOS only if the tokenizer does not add it.

        A BOS written in the text differs from an added one: SentencePiece splits the next word as if it stood in the
        middle of a sentence.
        """
        adds = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        return ("" if adds else BEGIN) + _format(tokenizer, config)

    def processor(self, tokenizer: Any, image_processor: Any, config: Any) -> Any:
        """A processor that counts an image's tokens: the tower's patches, plus the class token of a CLIP or ViT."""
        from transformers import LlavaProcessor

        return LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=0 if "siglip" in config.vision_config.model_type else 1,
            image_token=tokenizer.convert_ids_to_tokens(config.image_token_id),
            chat_template=self.chat_template(tokenizer, config),
        )

    def marks(self, tokenizer: Any, config: Any) -> tuple[str, ...]:
        """The older formats separate turns by plain text, which user text must not contain."""
        if _has_headers(tokenizer):
            return ()
        return ("[INST]", "[/INST]") if config.text_config.model_type == "mistral" else ("USER:", "ASSISTANT:")

    def inputs(self, config: Any, rows: Rows) -> dict[str, Any]:
        """Only the features."""
        return encoded(rows.images)


def _format(tokenizer: Any, config: Any) -> str:
    older = MISTRAL if config.text_config.model_type == "mistral" else VICUNA
    form = LLAMA_3 if _has_headers(tokenizer) else older
    return (SAID + form).replace("<image>", tokenizer.convert_ids_to_tokens(config.image_token_id))


def _has_headers(tokenizer: Any) -> bool:
    """Whether the tokenizer belongs to Llama 3 or later, where special tokens mark turns."""
    return tokenizer.convert_tokens_to_ids(HEADER) not in (None, tokenizer.unk_token_id)
