"""Which prompts a lesson of the embedded base's text model is made of."""

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.pretrain.rename import rename_findings
from tasks.records import Case, Finding
from tasks.settings import Lesson
from tasks.store import derived_seed

if TYPE_CHECKING:
    from tasks.engine.prompt import Prompt


def choose(cases: Sequence[Case], lesson: Lesson, seed: int) -> list[Case]:
    """The cases that a lesson uses."""
    named = set(lesson.naming)

    def is_used(case: Case) -> bool:
        words = set(re.findall(r"[\w-]+", case.question.lower()))
        drawn = derived_seed(seed, "share", case.image_id) < lesson.share * 2**31
        fits = not named or bool(named & words) or derived_seed(seed, "others", case.id) < lesson.others * 2**31
        return drawn and lesson.kind in (None, case.kind) and fits

    return [case for case in cases if is_used(case)]


def split_at_random(cases: Sequence[Case], parts: int, seed: int) -> list[tuple[int, list[Case]]]:
    """Split the cases at random into parts; returns each with its number."""
    chooser = random.Random(derived_seed(seed, "shown"))
    number = {case.id: chooser.randrange(parts) for case in cases}
    return [(part, [case for case in cases if number[case.id] == part]) for part in range(parts)]


def rename_some(prompts: Sequence["Prompt"], findings: Sequence[Finding], lesson: Lesson, seed: int) -> list["Prompt"]:
    """The prompts, with the findings renamed in a random share of them."""
    chooser = random.Random(derived_seed(seed, "renamed"))
    names = sorted({finding.name for finding in findings})
    return [
        rename_findings(prompt, names, chooser) if chooser.random() < lesson.renamed else prompt for prompt in prompts
    ]
