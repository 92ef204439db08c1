"""Training against the common loop of published federated medical VQA code.

    python -m benchmarks.train_vs_published_loop

That loop, after LightFED's repository (whose scripts differ in accumulation and in what is shown): one case at a time,
its images and the retrieved ones decoded, preprocessed and sent through the tower at every step, logits of the whole
sequence, gradients added up over 16 steps, AdamW. Both ways train one hospital's adapter from the same weights for the
four epochs of a default study, both start from image files and texts: the engine's way includes computing the features
and tokenising. The loop's labels are the answers alone, as the engine's are, which costs it nothing; before anything is
timed, both must give every case the same loss.
"""

import torch
from peft import set_peft_model_state_dict

from benchmarks.figure import Figure
from benchmarks.limit import limit
from benchmarks.workload import (
    EPOCHS,
    FEDERATION,
    SEED,
    Work,
    check_close,
    draw_work,
    drawn_state,
    from_pixels,
    in_turn,
    rate,
    spread,
    train_as_a_study,
)
from tasks.engine.adapter import State
from tasks.engine.batch import collate, encode
from tasks.engine.loss import answer_loss
from tasks.engine.vision import encode_images

ACCUMULATED = 16
REPEATS = 3


def measure() -> Figure:
    """Samples by second of both."""
    work = draw_work()
    state = drawn_state(work.engine)
    checked = check(work, state)
    ways = {"engine": lambda: train_as_a_study(work, state), "loop": lambda: by_loop(work, state)}
    seconds = in_turn(ways, REPEATS, "train_vs_published_loop")
    count = EPOCHS * len(work.train)
    return Figure(
        "train_vs_published_loop",
        rate(count, seconds["engine"]),
        rate(count, seconds["loop"]),
        target=12,
        ceiling=rate(count, [limit(ways["engine"])]) / rate(count, seconds["loop"]),
        unit="samples/s",
        notes={
            "cases": len(work.train),
            "epochs": EPOCHS,
            "spread": spread(seconds["engine"], seconds["loop"]),
            "largest difference of a case's loss": checked,
        },
    )


def by_loop(work: Work, state: State, epochs: int = EPOCHS) -> None:
    """So many epochs in the published way."""
    model = work.plain
    set_peft_model_state_dict(model, state)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=FEDERATION.learning_rate)
    generator = torch.Generator().manual_seed(SEED)
    model.train()
    for _ in range(epochs):
        for step, place in enumerate(torch.randperm(len(work.train), generator=generator).tolist(), start=1):
            inputs = from_pixels(work.engine.base, work.images, [work.train[place]], answers=True)
            loss = model(**inputs).loss
            (loss / ACCUMULATED).backward()
            loss.item()  # for the progress bar
            if step % ACCUMULATED == 0:
                optimiser.step()
                optimiser.zero_grad()
    model.eval()


@torch.no_grad()
def check(work: Work, state: State) -> float:
    """The largest difference between the losses that both ways give the same case; StudyError where they disagree."""
    base = work.engine.base
    features = encode_images(base, list(work.images.values()))
    work.engine.switch(state)
    set_peft_model_state_dict(work.plain, state)
    examples = encode(base, features, work.train)
    ours = [answer_loss(base, collate(base, features, [example])) for example in examples]
    theirs = [work.plain(**from_pixels(base, work.images, [each], answers=True)).loss for each in work.train]
    return check_close("losses", torch.stack(ours), torch.stack(theirs), within=1e-4)


if __name__ == "__main__":
    print(measure())
