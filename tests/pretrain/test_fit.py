"""Epochs of a stage: losses fall where there is something to learn, and the best epoch's weights are kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CASES, IMAGES, case, same
from family_samples import every_family
from interrupted import breaking_off, checkpoint, steps_of

from tasks.engine.base import Base, load_base
from tasks.engine.batch import encode
from tasks.engine.pixels import keep_images
from tasks.engine.prompt import build_prompt
from tasks.engine.train import mean_loss
from tasks.engine.trainable import Trainable
from tasks.engine.vision import encode_images
from tasks.errors import StudyError
from tasks.pretrain.fit import fit
from tasks.pretrain.stage import cases_of
from tasks.records import Case, EpochLoss
from tasks.settings.recipe import Stage
from tasks.store.checkpoints import Checkpoint

SETTINGS: dict[str, Any] = {"batch_size": 4, "tokens": 8192, "learning_rate": 1e-2, "seed": 5, "title": "toy"}
# Which picture it is decides the answer: only who sees can learn it.
SEEN = [case(n, f"image-{n}", "What?", answer) for n, answer in enumerate(("yes", "no", "yes", "no"))]
# The same questions answered otherwise: what is learned by heart is wrong of them.
CONTRARY = [replace(each, answer=f"{CASES[(n + 3) % 8].answer}") for n, each in enumerate(CASES)]


def learner(base: Base, dropout: float = 0.1) -> Trainable:
    layers = {"qwen2_vl": ("qkv",), "qwen2_5_vl": ("qkv",), "fast_vlm": ("expand_conv", "project_conv")}
    attention = layers.get(base.config.model_type, ("q_proj", "v_proj"))
    return Trainable(
        base, {"tower": attention, "text": ("q_proj", "v_proj")}, True, r=4, alpha=8, dropout=dropout, seed=1
    )


def fitted(
    trainable: Trainable, training: list[Case], held_out: list[Case], epochs: int, patience: int, **settings: Any
) -> list[EpochLoss]:
    pixels = keep_images(trainable.base, IMAGES)
    prompts = [[build_prompt(each, []) for each in cases] for cases in (training, held_out)]
    examples, held = (encode(trainable.base, pixels, each) for each in prompts)
    return fit(trainable, pixels, examples, held, epochs=epochs, patience=patience, **SETTINGS | settings)


@pytest.mark.parametrize("twin", ["llama-clip"], indirect=True)
def test_losses_fall_to_nothing_where_the_picture_tells_the_answer(tiny_base: Base) -> None:
    trainable = learner(tiny_base, dropout=0)
    rows = fitted(trainable, SEEN, SEEN, epochs=30, patience=30, learning_rate=3e-2, batch_size=2)
    assert [row.epoch for row in rows] == list(range(1, 31))
    assert rows[-1].train_loss < 0.1 * rows[0].train_loss
    (best,) = [row for row in rows if row.kept]
    # One who does not look is right half of the time: ln 2 for the answer, nothing for its end.
    assert best.held_out_loss == min(row.held_out_loss or 9 for row in rows) < 0.1


@every_family
def test_losses_fall(tiny_base: Base) -> None:
    """Not to nothing: small frozen embeddings, which are the output's too, bound what these twins can say."""
    rows = fitted(learner(tiny_base, dropout=0), SEEN, SEEN, epochs=8, patience=8)
    held_out = [row.held_out_loss or 0.0 for row in rows]
    assert held_out == sorted(held_out, reverse=True)
    assert rows[-1].train_loss < 0.9 * rows[0].train_loss


@pytest.fixture(scope="module")
def overfit(tiny_folder: Path) -> tuple[list[EpochLoss], dict[str, torch.Tensor]]:
    """A training that soon learns by heart what is wrong of the held-out cases; its rows, and its merged weights."""
    trainable = learner(load_base(str(tiny_folder), device="cpu"))
    rows = fitted(trainable, CASES, CONTRARY, epochs=40, patience=3)
    trainable.merge()
    return rows, dict(trainable.base.model.state_dict())


def test_a_planted_overfit_stops(overfit: tuple[list[EpochLoss], Any]) -> None:
    rows, _ = overfit
    (best,) = [row for row in rows if row.kept]
    losses = [row.held_out_loss or 0.0 for row in rows]
    assert len(rows) == best.epoch + 3 < 40
    assert best.epoch > 1
    assert best.held_out_loss == min(losses)
    assert losses[-1] > losses[best.epoch - 1]
    assert rows[-1].train_loss < rows[best.epoch - 1].train_loss


def test_the_best_epochs_weights_are_kept_bit_for_bit(
    overfit: tuple[list[EpochLoss], dict[str, torch.Tensor]], tiny_base: Base
) -> None:
    """Against a training that ends with that epoch of itself."""
    rows, weights = overfit
    (best,) = [row.epoch for row in rows if row.kept]
    trainable = learner(tiny_base)
    short = fitted(trainable, CASES, CONTRARY, epochs=best, patience=best)
    assert [row.held_out_loss for row in short] == [row.held_out_loss for row in rows[:best]]
    trainable.merge()
    assert same(dict(tiny_base.model.state_dict()), weights)


def test_the_kept_weights_have_the_loss_that_their_row_tells(tiny_base: Base) -> None:
    trainable = learner(tiny_base)
    rows = fitted(trainable, CASES, CONTRARY, epochs=40, patience=2)
    pixels = keep_images(tiny_base, IMAGES)
    held = encode(tiny_base, pixels, [build_prompt(each, []) for each in CONTRARY])
    assert mean_loss(trainable, pixels, held, 8192)[0] == next(row.held_out_loss for row in rows if row.kept)


def test_cached_features_serve_where_the_text_model_alone_learns(tiny_folder: Path) -> None:
    """They give what pixels give, up to rounding."""
    losses = []
    for see in (encode_images, keep_images):
        base = load_base(str(tiny_folder), device="cpu")
        features = see(base, IMAGES)
        trainable = Trainable(base, {"text": ("q_proj",)}, False, r=4, alpha=8, dropout=0, seed=1)
        examples = encode(base, features, [build_prompt(each, []) for each in CASES])
        rows = fit(trainable, features, examples, examples, epochs=2, patience=2, **SETTINGS)
        losses += [[row.train_loss for row in rows]]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 9))
def test_broken_off_at_any_step_a_stage_goes_on_to_the_same_bytes(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Four passes of two steps; the second pass is the best, and its weights are those that are kept."""
    monkeypatch.chdir(tmp_path)

    def stage(kept: Checkpoint | None) -> tuple[list[EpochLoss], dict[str, torch.Tensor]]:
        trainable = learner(load_base(str(tiny_folder), device="cpu"), dropout=0.3)
        rows = fitted(trainable, CASES, CONTRARY, epochs=6, patience=2, learning_rate=0.2, seed=7, checkpoint=kept)
        return rows, trainable.read()

    rows, weights = stage(None)
    assert [row.kept for row in rows] == [False, True, False, False]
    with breaking_off(number):
        stage(checkpoint())
    found: list[Any] = []
    assert steps_of(lambda: found.append(stage(checkpoint()))) == 8 - number + 1
    assert found[0][0] == rows and same(found[0][1], weights)


def test_a_loss_that_is_not_finite_stops_the_stage(tiny_base: Base) -> None:
    with pytest.raises(
        StudyError, match=r"^Expected finite losses in stage 'toy', .*: lower the stage's learning_rate"
    ):
        fitted(learner(tiny_base), CASES, CONTRARY, epochs=4, patience=1, learning_rate=1e30)


def test_a_stage_holds_out_whole_training_images_and_at_least_one() -> None:
    cases = [case(n, f"image-{n // 2}", "What?", "yes", "test" if n > 15 else "train") for n in range(20)]
    training, held_out = cases_of(cases, Stage(title="toy", holdout=0.25), seed=0)
    assert (len(training), len(held_out)) == (12, 4)
    assert not {each.image_id for each in training} & {each.image_id for each in held_out}
    assert all(each.split == "train" for each in (*training, *held_out))
    with pytest.raises(
        StudyError, match=r"^Expected stage 'toy' to hold out at least one .*, found 8 images.*holdout\.$"
    ):
        cases_of(cases, Stage(title="toy", holdout=0.01), seed=0)
