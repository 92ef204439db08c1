"""Extracts the answer from a reply: without reasoning, markup, and the words that only introduce the answer."""

import re
from functools import lru_cache

TAG = r"think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad"
BLOCK = re.compile(rf"[<\[◁]({TAG})[>\]▷].*?[<\[◁]/\1[>\]▷]", re.IGNORECASE | re.DOTALL)
BLOCK_END = re.compile(rf".*[<\[◁]/(?:{TAG})[>\]▷]", re.IGNORECASE | re.DOTALL)
"""The end of a reasoning block that began in the prompt."""
BLOCK_BEGIN = re.compile(rf"[<\[◁](?:{TAG})[>\]▷].*", re.IGNORECASE | re.DOTALL)
"""A reasoning block without an end: the reply was cut off and answers nothing."""
TOKENS = re.compile(r"<\|[^|<>]+\|>|</?s>|</?(?:b|i|u|p|br|em|strong|span)\s*/?>", re.IGNORECASE)
"""Special tokens of chat formats, and HTML tags."""
ANSWER_TAG = re.compile(r"<answer>\s*(\S.*?)\s*(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
BOXED = re.compile(r"(?:\\+b|\x08)oxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
r"""`\x08` is included since JSON reads `\b` as a backspace where the backslashes were not doubled."""
LATEX = re.compile(r"\\+(?:text|math|oper)\w*\s*\{([^{}]*)\}")
FENCE = re.compile(r"```\w*\n?|`")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1(?![\w*])", re.DOTALL)
LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|[-*•]\s+(?=\D))|(?<!\w)\*+", re.MULTILINE)
"""Marks of headings and lists (but not a minus before a number), and stars without a closing star."""
LEAD = re.compile(
    r"(?<![A-Za-z])(?:answer\W{0,3}\s+(?:is|was|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*[:=]?|answer[\"'*]*\s*[:：=])\s*"
    r"|(?:答案|回答)(?:应该|应当|应|就)?(?:是|为|选择|选|[:：])\s*[:：]?\s*|^\s*答\s*[:：]\s*",
    re.IGNORECASE,
)
WRONG = re.compile(r"(?:wrong|incorrect|not\s+the|错误)\s*$", re.IGNORECASE)


@lru_cache(maxsize=2**14)
def final(text: str) -> str:
    r"""The answer in a reply. Any string is accepted, and one with nothing to remove stays as it is.

    Reasoning blocks are removed (a block without an end leaves no answer). The content of the last `<answer>` or
    `\boxed{}` is the answer. Emphasis, headings and list marks are removed. The text after the last `the answer is` is
    the answer.
    """
    text = BLOCK_BEGIN.sub("", BLOCK_END.sub("", BLOCK.sub("", text)))
    text = TOKENS.sub("", text)
    for pattern in (ANSWER_TAG, BOXED):
        if found := [each for each in pattern.findall(text) if each.strip()]:
            text = found[-1]
    plain = LINE_MARK.sub("", _plain(FENCE.sub("", LATEX.sub(r"\1", text))))
    text = plain if plain.strip() else text  # an answer of marks only keeps its marks
    ends = [each.end() for each in LEAD.finditer(text) if not WRONG.search(text[: each.start()])]
    behind = [text[end:] for end in ends if text[end:].strip(" \n\t.\"'}")]
    return behind[-1] if behind else text


def _plain(text: str) -> str:
    """Text without its emphasis, which may be nested."""
    while (inner := EMPHASIS.sub(r"\2", text)) != text:
        text = inner
    return text
