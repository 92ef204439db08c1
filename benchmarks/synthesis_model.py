"""How many questions a language model gets out of captions, beside the rules: the figures of docs/synthesis.md.

    python -m benchmarks.synthesis_model MEDPIX [MODEL] [FIRST] [CAPTIONS]

MEDPIX is the folder of MedPix-2-0; MODEL as in synthesis.model (smol-clip). Of the different captions, in an order
drawn once, CAPTIONS (100) from number FIRST (40) on are read: the prompt was tuned on those before number 40. A draft
is one line of a reply.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.engine.identity import device_of, resolve
from tasks.ingest import medpix
from tasks.records import Caption
from tasks.synthesize.drafts import Draft
from tasks.synthesize.findings import names_in
from tasks.synthesize.generate import synthesize
from tasks.synthesize.model import load_writer
from tasks.synthesize.quality import key
from tasks.synthesize.reply import UNSUPPORTED, parse_reply
from tasks.synthesize.rules import write_pairs

SEED = 0
SHOWN = 20
"""Accepted pairs that are printed, to be judged by eye."""


def main(folder: Path, model: str, first: int, count: int) -> None:
    """Print the figures."""
    captions = draw(folder, first, count)
    began = time.monotonic()
    replies = list(load_writer(resolve(model), device_of("auto"))(captions))
    print(f"{len(captions)} captions, {time.monotonic() - began:.0f} s with the loading of {model}")
    taken, refused = read(captions, replies)
    told = [draft for caption in captions for draft in write_pairs(caption, SEED, False)]
    report_drafts(taken, refused, len(captions))
    for name, drafts in (("model", taken), ("rules", told), ("rules, caption alone", from_captions(told))):
        report_pairs(name, drafts, len(captions))
    known = {fact(draft) for draft in told}
    new = unique([draft for draft in taken if fact(draft) not in known])
    print(f"what no rule asks about: {len(new)} of {len(unique(taken))} accepted, by topic {topics(new)}")
    if taken:
        *_, made = synthesize(captions, "model", seed=SEED, writer=lambda _: replies)
        print(f"after the corrections: {made['after']['pairs']} pairs, {made['done']}, {made['after']['yes_no']}")
    for draft in random.Random(SEED).sample(unique(taken), min(SHOWN, len(unique(taken)))):
        print(f"- {draft.question} {draft.answer} [{draft.span!r}] {' '.join(draft.caption.text.split())!r}")


def draw(folder: Path, first: int, count: int) -> list[Caption]:
    """Some captions of the training split; of those that several images share, one."""
    different: dict[str, Caption] = {}
    for caption in medpix.read(folder).captions:
        different.setdefault(caption.text, caption)
    drawn = list(different.values())
    random.Random(SEED).shuffle(drawn)
    return drawn[first : first + count]


def read(captions: Sequence[Caption], replies: Sequence[str]) -> tuple[list[Draft], list[str]]:
    """The accepted drafts of all replies, and why the others were refused."""
    taken, refused = list[Draft](), list[str]()
    for caption, reply in zip(captions, replies, strict=True):
        drafts, reasons = parse_reply(reply, caption)
        taken += drafts
        refused += reasons
    return taken, refused


def report_drafts(taken: Sequence[Draft], refused: Sequence[str], captions: int) -> None:
    """What became of the drafts."""
    drafts = len(taken) + len(refused)
    parsed = len(taken) + sum(reason.startswith(UNSUPPORTED) for reason in refused)
    print(f"{drafts} drafts, {drafts / captions:.2f} a caption")
    print(f"  parse {parsed} ({parsed / drafts:.1%}), accepted {len(taken)} ({len(taken) / drafts:.1%})")
    for reason, times in Counter(reason.split(": found")[0] for reason in refused).most_common(12):
        print(f"  {times:4} refused: {reason}")


def report_pairs(name: str, drafts: Sequence[Draft], captions: int) -> None:
    """How many pairs there are, of what kind."""
    pairs = unique(drafts)
    asked = len({draft.caption.image_id for draft in pairs})
    print(f"{name}: {len(pairs)} pairs, {len(pairs) / captions:.2f} a caption, {asked / captions:.0%} asked about")
    print(f"  wordings {len({draft.question for draft in pairs})}, topics {topics(pairs)}")


def topics(pairs: Sequence[Draft]) -> dict[str, int]:
    """The number of pairs of each topic, most frequent first; presence by its answer."""
    return dict(Counter(f"{draft.topic} {draft.answer if draft.closed else 'open'}" for draft in pairs).most_common())


def from_captions(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts that rest on the caption's words: the model knows nothing else."""
    return [draft for draft in drafts if draft.source == "caption"]


def unique(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts without repeated questions about one image."""
    return list({key(draft.caption.image_id, draft.question): draft for draft in reversed(drafts)}.values())[::-1]


def fact(draft: Draft) -> tuple[str, str, frozenset[str], str]:
    """What a pair asks about and answers, without its wording."""
    return draft.caption.image_id, draft.topic, frozenset(names_in(draft.question)), draft.answer.lower()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    folder, model, first, count = [*arguments, *["", "smol-clip", "40", "100"][len(arguments) :]]
    main(Path(folder), model, int(first), int(count))
