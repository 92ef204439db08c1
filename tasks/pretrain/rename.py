"""Rename findings, so that the base must read from the retrieved cases what a name means.

A base trained with one name for each of its few findings never writes another name, and treats new names as noise. If
names change from prompt to prompt, only the context shows what they mean.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tasks.engine.prompt import Prompt

NAMES = (
    "abscess", "aneurysm", "ascites", "atelectasis", "bleeding", "bone spur", "catheter", "clip", "collection",
    "consolidation", "contusion", "dissection", "edema", "effusion", "embolus", "emphysema", "fibrosis", "fracture",
    "granuloma", "hematoma", "hernia", "implant", "infarct", "infection", "lesion", "metastasis", "necrosis", "nodule",
    "opacity", "pacemaker", "plaque", "pneumothorax", "polyp", "scar", "screw", "stenosis", "stent", "stone",
    "thrombus", "tube", "tumor", "ulcer",
)  # fmt: skip
"""Names of findings in real radiology."""


def rename_findings(prompt: Prompt, findings: Sequence[str], chooser: random.Random) -> Prompt:
    """Replace every finding's name by one of NAMES in question, answer and context.

    If the question or its answer contains a name that the context does not, nothing would show what the new name
    means: the prompt then stays unchanged, as does a prompt whose context names no finding.
    """
    pattern = re.compile(rf"\b(an? )?({'|'.join(re.escape(name) for name in findings)})\b")
    *context, question = (_text(message) for message in prompt.messages)
    in_context = {found[2] for text in context for found in pattern.finditer(text)}
    in_question = {found[2] for text in (question, prompt.answer) for found in pattern.finditer(text)}
    if not in_context or in_question - in_context:
        return prompt
    new = dict(zip(findings, chooser.sample(NAMES, len(findings)), strict=True))

    def put(found: re.Match[str]) -> str:
        name = new[found[2]]
        article = "" if not found[1] else "an " if name[0] in "aeiou" else "a "
        return article + name

    messages = tuple(
        {**message, "content": [_renamed(part, pattern, put) for part in message["content"]]}
        for message in prompt.messages
    )
    return replace(prompt, messages=messages, answer=pattern.sub(put, prompt.answer))


def _text(message: dict[str, Any]) -> str:
    return " ".join(part["text"] for part in message["content"] if "text" in part)


def _renamed(part: dict[str, Any], pattern: re.Pattern[str], put: Any) -> dict[str, Any]:
    return part | {"text": pattern.sub(put, part["text"])} if "text" in part else part
