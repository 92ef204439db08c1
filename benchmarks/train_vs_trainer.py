"""Training against `transformers.Trainer` with PEFT, at the same batch size.

    python -m benchmarks.train_vs_trainer

What a good user of Trainer does: LoRA by `get_peft_model` on the frozen model, 16 cases a batch, answers alone as
labels, a collator that decodes and preprocesses the batch's images and tokenises its texts at every step (as the
examples of transformers and TRL for vision-language models do), the fused AdamW, no checkpoints, no logging. It is
given what it would not do by itself: the engine's own batches, of like lengths, in the engine's order. The collator
runs in the training process or in a worker beside it, whichever is quicker here; threads are the same everywhere.

Both ways train for the four epochs of a default study from image files and texts; the engine's way includes computing
the features. Before anything is timed, both train without dropout, and must end with the same adapter.
"""

import multiprocessing
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback, Trainer, TrainingArguments

from benchmarks.figure import Figure
from benchmarks.limit import limit
from benchmarks.workload import (
    EPOCHS,
    FEDERATION,
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
from tasks.engine.batch import encode, shuffled
from tasks.engine.fast.onednn import use_the_faster
from tasks.engine.prompt import Prompt
from tasks.engine.vision import encode_images

REPEATS = 3


def measure() -> Figure:
    """Samples by second of both."""
    # The worker is forked, as is usual on Linux: one that is spawned would import everything first.
    multiprocessing.set_start_method("fork", force=True)
    checked = check(draw_work(dropout=0.0))
    work = draw_work()
    state, ordered = drawn_state(work.engine), in_batches(work, EPOCHS)
    ways = {
        "engine": lambda: train_as_a_study(work, state),
        "trainer": lambda: by_trainer(work, state, ordered, workers=0),
        "trainer, a worker": lambda: by_trainer(work, state, ordered, workers=1),
    }
    seconds = in_turn(ways, REPEATS, "train_vs_trainer")
    rates = {name: rate(len(ordered), each) for name, each in seconds.items()}
    best = max(list(ways)[1:], key=rates.__getitem__)
    return Figure(
        "train_vs_trainer",
        rates["engine"],
        rates[best],
        target=2,
        ceiling=rate(len(ordered), [limit(ways["engine"])]) / rates[best],
        unit="samples/s",
        notes={
            "cases": len(work.train),
            "epochs": EPOCHS,
            "held against": best,
            "samples/s": rates,
            "spread": spread(seconds["engine"], seconds[best]),
            "largest difference between the adapters": checked,
        },
    )


def in_batches(work: Work, epochs: int) -> list[Prompt]:
    """The prompts of all epochs in the order in which the engine trains on them, batch after batch."""
    base = work.engine.base
    examples = encode(base, encode_images(base, list(work.images.values())), work.train)
    prompt_of = {id(example): prompt for example, prompt in zip(examples, work.train, strict=True)}
    generators = [torch.Generator().manual_seed(seed) for seed in range(epochs)]
    batches = [batch for each in generators for batch in shuffled(examples, FEDERATION.batch_size, each)]
    return [prompt_of[id(example)] for batch in batches for example in batch]


def by_trainer(work: Work, state: State, ordered: Sequence[Prompt], workers: int) -> None:
    """Trainer over the prompts in their order, once."""
    set_peft_model_state_dict(work.plain, state)
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=FEDERATION.batch_size,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            learning_rate=FEDERATION.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            dataloader_num_workers=workers,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

        def collate(prompts: list[Prompt]) -> dict[str, torch.Tensor]:
            return from_pixels(work.engine.base, work.images, prompts, answers=True)

        trainer = Trainer(work.plain, arguments, data_collator=collate, train_dataset=ordered)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    work.plain.eval()


def check(work: Work) -> float:
    """The largest difference between the adapters that both ways give; StudyError where it is not rounding alone.

    Both compute linear layers in the same way here, for once: AdamW makes much of little rounding where a gradient is
    near 0, which would hide a difference of method.
    """
    use_the_faster(work.plain)
    state = drawn_state(work.engine)
    train_as_a_study(work, state, epochs=1)
    by_trainer(work, state, in_batches(work, epochs=1), workers=0)
    ours, theirs = work.engine.read(), get_peft_model_state_dict(work.plain)
    one, other = (torch.cat([each[name].flatten() for name in ours]) for each in (ours, theirs))
    return check_close("adapters", one, other, within=1e-4)


if __name__ == "__main__":
    print(measure())
