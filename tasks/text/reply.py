"""What a reply answers: the reply without its reasoning, its markup, and the words that only lead to the answer."""

import re
from functools import lru_cache

TAG = r"think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad"
BLOCK = re.compile(rf"[<\[◁]({TAG})[>\]▷].*?[<\[◁]/\1[>\]▷]", re.IGNORECASE | re.DOTALL)
BLOCK_END = re.compile(rf".*[<\[◁]/(?:{TAG})[>\]▷]", re.IGNORECASE | re.DOTALL)
"""Of a block that began in the prompt."""
BLOCK_BEGIN = re.compile(rf"[<\[◁](?:{TAG})[>\]▷].*", re.IGNORECASE | re.DOTALL)
"""Of a block in which the reply was cut off: nothing was answered."""
TOKENS = re.compile(r"<\|[^|<>]*\|>|</?s>|</?(?:b|i|u|p|br|em|strong|span)\s*/?>", re.IGNORECASE)
"""A chat format's own tokens, and the marks of HTML."""
ANSWER_TAG = re.compile(r"<answer>\s*(\S.*?)\s*(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
BOXED = re.compile(r"(?:\\+b|\x08)oxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
r"""In a file whose backslashes were not doubled, JSON reads `\b` as a backspace."""
LATEX = re.compile(r"\\+(?:text|math|oper)\w*\s*\{([^{}]*)\}")
FENCE = re.compile(r"```\w*\n?|`")
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1(?![\w*])", re.DOTALL)
LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|[-*•]\s+(?=\D))|(?<!\w)\*+", re.MULTILINE)
"""A heading's or a list's mark (but not a minus before a number), and stars that open what is never closed."""
LEAD = re.compile(
    r"(?<![A-Za-z])(?:answer\W{0,3}\s+(?:is|was|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*[:=]?|answer[\"'*]*\s*[:：=])\s*"
    r"|(?:答案|回答)(?:应该|应当|应|就)?(?:是|为|选择|选|[:：])\s*[:：]?\s*|^\s*答\s*[:：]\s*",
    re.IGNORECASE,
)
WRONG = re.compile(r"(?:wrong|incorrect|not\s+the|错误)\s*$", re.IGNORECASE)


@lru_cache(maxsize=2**14)
def final(text: str) -> str:
    r"""The answer in a reply, of any string; itself where there is nothing to leave out.

    Reasoning blocks go (a block without an end is no answer); of `<answer>` and `\boxed{}` the last one's content is
    the answer; emphasis, headings and list marks go; and what stands behind the last `the answer is` is the answer.
    """
    text = BLOCK_BEGIN.sub("", BLOCK_END.sub("", BLOCK.sub("", text)))
    text = TOKENS.sub("", text)
    for pattern in (ANSWER_TAG, BOXED):
        if found := [each for each in pattern.findall(text) if each.strip()]:
            text = found[-1]
    plain = LINE_MARK.sub("", _plain(FENCE.sub("", LATEX.sub(r"\1", text))))
    text = plain if plain.strip() else text  # an answer of marks alone keeps its marks
    ends = [each.end() for each in LEAD.finditer(text) if not WRONG.search(text[: each.start()])]
    behind = [text[end:] for end in ends if text[end:].strip(" \n\t.\"'}")]
    return behind[-1] if behind else text


def _plain(text: str) -> str:
    """Text without its emphasis, which may be nested."""
    while (inner := EMPHASIS.sub(r"\2", text)) != text:
        text = inner
    return text
