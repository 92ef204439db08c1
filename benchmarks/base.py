"""How a base answers questions of phantom's public part that it was not trained on, by topic and retrieved cases.

    python benchmarks/base.py [FOLDER]

Exact matches, for 0 and 3 retrieved cases; 200 images are asked about, 300 others are the library.
"""

import sys
from collections import defaultdict
from dataclasses import replace

from tasks.engine.base import load_base
from tasks.engine.batch import encode
from tasks.engine.engine import Engine
from tasks.engine.generate import generate
from tasks.engine.prompt import build_prompts
from tasks.engine.vision import Features, encode_images
from tasks.ingest import phantom
from tasks.records import Case, Neighbour
from tasks.retrieve.library import build_library
from tasks.retrieve.similarity import fit_encoder
from tasks.settings import ContextSettings

SEED = 99
"""Of images that no training drew: `fed-rag pretrain` uses another."""
TEST, KEPT = 200, 300


def main(name: str) -> None:
    """Print a line for each topic."""
    base = load_base(name, device="cpu")
    source = phantom.read(images=TEST + KEPT, seed=SEED, public=True, test_fraction=0.2)
    features = encode_images(base, source.images)
    held_out = {image.id for image in source.images[:TEST]}
    library = [replace(case, split="train") for case in source.cases if case.image_id not in held_out]
    test = [case for case in source.cases if case.image_id in held_out]
    neighbours = find(features, library, test)
    engine = Engine(base, r=16, alpha=32, dropout=0.0, targets=["q_proj", "v_proj"])
    engine.switch(engine.initial_state(0))
    right: dict[tuple[str, str], dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for k in (0, 3):
        examples = encode(base, features, build_prompts(test, source.cases, neighbours, ContextSettings(k=k)))
        answers = generate(engine, features, examples, tokens=8192, max_new_tokens=16, title=f"k={k}")
        for case, answer in zip(test, answers, strict=True):
            for topic in ("all", str(case.topic)):
                right[case.kind, topic][k].append(answer.text.lower() == case.answer)
    print("kind    topic          n    k=0    k=3")
    for (kind, topic), by_k in sorted(right.items()):
        shares = [sum(hits) / len(hits) for hits in by_k.values()]
        print(f"{kind:7} {topic:12} {len(by_k[0]):4}  {shares[0]:.3f}  {shares[1]:.3f}")


def find(features: Features, library: list[Case], queries: list[Case]) -> list[Neighbour]:
    """The three nearest cases of the library for each case asked, as a study finds them."""
    known = [case.question for case in library]
    pooled = features.pooled([case.image_id for case in library])
    encoder = fit_encoder(pooled, known, 0.5)
    index = build_library(encoder.encode(pooled, known), library)
    rows = encoder.encode(features.pooled([case.image_id for case in queries]), [case.question for case in queries])
    found = index.search(rows, queries, 3)
    return [neighbour for each in found for neighbour in each]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "embedded")
