"""Findings under other names: the same name everywhere in a prompt, and only where the cases tell what it means."""

import random

from tasks.engine.prompt import Prompt, build_prompt
from tasks.pretrain.rename import NAMES, rename_findings
from tasks.records import Case

FINDINGS = ("cyst", "mass")


def case(number: int, question: str, answer: str) -> Case:
    return Case(
        id=f"c:{number}",
        image_id=f"image-{number}",
        question=question,
        answer=answer,
        kind="closed" if answer in ("yes", "no") else "open",
        split="train",
        dataset="phantom",
        language="en",
    )


def words(prompt: Prompt) -> list[str]:
    texts = [part["text"] for message in prompt.messages for part in message["content"] if "text" in part]
    return " ".join([*texts, prompt.answer]).split()


def test_a_name_becomes_one_other_everywhere_and_nothing_else_changes() -> None:
    context = [
        case(1, "What is the main finding?", "mass"),
        case(2, "Describe the cyst.", "small cyst in the upper left"),
    ]
    before = build_prompt(case(0, "What abnormality is seen?", "mass"), context)
    for seed in range(50):
        after = rename_findings(before, FINDINGS, random.Random(seed))
        assert after.answer in NAMES
        assert (after.image_ids, after.retrieved_ids) == (before.image_ids, before.retrieved_ids)
        assert after.messages[3]["content"][0]["text"] == after.answer  # the nearest case stands last
        cyst = after.messages[1]["content"][0]["text"].removeprefix("small ").removesuffix(" in the upper left")
        assert cyst in NAMES
        assert cyst != after.answer
        kept = [word for word in words(before) if word.strip(".") not in FINDINGS]
        new = {*cyst.split(), *after.answer.split()}
        assert [word for word in words(after) if word.strip(".") not in new] == kept


def test_articles_follow_the_new_name() -> None:
    before = build_prompt(case(0, "Is there a mass?", "yes"), [case(1, "Does the image show a mass?", "yes")])
    seen = set()
    for seed in range(50):
        question = rename_findings(before, FINDINGS, random.Random(seed)).messages[-1]["content"][1]["text"]
        article, name = question.removeprefix("Is there ").removesuffix("?").split(" ", 1)
        assert article == ("an" if name[0] in "aeiou" else "a")
        seen.add(article)
    assert seen == {"a", "an"}


def test_a_prompt_stays_where_no_case_tells_what_the_name_means() -> None:
    alone = build_prompt(case(0, "Is there a mass?", "yes"), [])
    other = build_prompt(case(0, "Is there a mass?", "yes"), [case(1, "Is there a cyst?", "no")])
    nameless = build_prompt(case(0, "What organ system is imaged?", "head"), [case(1, "Is this ct?", "no")])
    for prompt in (alone, other, nameless):
        assert rename_findings(prompt, FINDINGS, random.Random(0)) is prompt
