"""Gated fusion: federated equals centralised on equal data, own images teach nothing, answers come together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.federate.means import weighted_mean
from tasks.records import Case
from tasks.retrieve.encoded import Encoded, Inputs
from tasks.retrieve.fusion import BATCH, WIDTH, Fused, Lessons, _case_loss, fuse, initial_fusion, train_fusion
from tasks.retrieve.fusion_lessons import epoch_orders, fusion_lessons
from tasks.retrieve.hospital_data import HospitalData
from tasks.retrieve.rows import Rows
from tasks.retrieve.similarity import Encoder, fit_encoder, hash_words

ANSWERS = ("liver", "lung", "left", "right", "yes", "no")


def cases(images: int, seed: int = 0) -> list[Case]:
    """Three questions an image; the answer follows from image and question together."""
    draw = np.random.default_rng(seed)
    return [
        Case(f"d:{i}:{n}", f"i{i}", f"{word} shown here {draw.integers(9)}", ANSWERS[2 * n + i % 2], "open", "train",
             "d", "en")
        for i in range(images) for n, word in enumerate(("organ", "side", "mass"))
    ]  # fmt: skip


def hospital_data(rows: list[Case], width: int = 12) -> HospitalData:
    """Images of the same parity have a direction in common, among noise."""
    names = sorted({case.image_id for case in rows})
    noise = np.random.default_rng(1).normal(size=(len(names), width)).astype(np.float32)
    for place, name in enumerate(names):
        noise[place, 0] += 2 * (-1) ** int(name[1:])
    return HospitalData(rows, Inputs(Encoded(noise, image_places={name: place for place, name in enumerate(names)})))


def random_unit(n: int, width: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def train_together(hospitals: list[HospitalData], rounds: int, seed: int = 0) -> dict[str, torch.Tensor]:
    state = initial_fusion(12, 1024, seed)
    for number in range(1, rounds + 1):
        sent = []
        for data in hospitals:
            chosen, lessons = fusion_lessons(data, 0.0, seed)
            sent.append((train_fusion(state, lessons, epoch_orders(chosen, 2, seed, number), 1e-3)[0], len(chosen)))
        state = weighted_mean([each for each, _ in sent], [samples for _, samples in sent])
    return state


def test_four_hospitals_with_the_same_cases_train_the_centralised_fusion() -> None:
    rows = cases(22)
    assert len(rows) > BATCH  # several steps an epoch, so that an order matters
    alone = train_together([hospital_data(rows)], rounds=2)
    four = train_together([hospital_data(rows) for _ in range(4)], rounds=2)
    assert alone.keys() == four.keys()
    assert all(torch.equal(alone[name], four[name]) for name in alone)
    one, other = (
        train_together(each, rounds=1)
        for each in ([hospital_data(rows)], [hospital_data(rows), hospital_data(cases(22, seed=5))])
    )
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_start_keeps_similarities_about_as_they_are() -> None:
    images, texts = random_unit(60, 40, 0), random_unit(60, 90, 1)
    rows = fuse(initial_fusion(40, 90, 0), images, texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows.shape == (60, WIDTH)
    expected = (images @ images.T + texts @ texts.T) / 2
    assert np.abs(rows @ rows.T - expected).mean() < 0.06


def test_fusion_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(each.shape, generator=generator) * 0.1 for name, each in initial_fusion(5, 7, 0).items()}
    weights = {name: each.double().numpy() for name, each in state.items()}
    images, texts = random_unit(3, 5, 2), random_unit(3, 7, 3)
    image, text = images @ weights["image.weight"].T, texts @ weights["text.weight"].T
    gate = 1 / (1 + np.exp(-(np.hstack([image, text]) @ weights["gate.weight"].T + weights["gate.bias"])))
    mixed = gate * image + (1 - gate) * text
    mixed = mixed + mixed @ weights["fusion.weight"].T
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    np.testing.assert_allclose(fuse(state, images, texts), expected, atol=1e-5)


def test_cases_of_the_querys_image_are_neither_for_nor_against() -> None:
    rows = torch.from_numpy(random_unit(6, 8, 0)).requires_grad_()
    answers, images = torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 1, 2, 3])
    scores = (rows @ rows.T / 0.07).detach().double().numpy()
    terms = []
    for i in range(6):
        others = [j for j in range(6) if images[j] != images[i]]
        alike = [j for j in others if answers[j] == answers[i]]
        total = np.log(sum(np.exp(scores[i, j]) for j in others))
        if alike:
            terms.append(-np.mean([scores[i, j] - total for j in alike]))
    assert float(_case_loss(rows, answers, images).detach()) == pytest.approx(np.mean(terms), rel=1e-5)
    one = torch.from_numpy(random_unit(4, 8, 0)).requires_grad_()
    loss = _case_loss(one, torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not one.grad.any()  # type: ignore[union-attr]


def test_training_brings_held_out_cases_to_their_answers() -> None:
    everything = hospital_data(cases(60))
    held = [case for case in everything.cases if int(case.image_id[1:]) >= 45]
    known = HospitalData([case for case in everything.cases if int(case.image_id[1:]) < 45], everything.inputs)
    encoder = known.fit(0.5)
    recalls = []
    for state in (initial_fusion(12, 1024, 0), train_together([known], rounds=3)):
        fused = Fused(encoder, state)
        near = fused.encode(*everything.inputs.of(held)) @ fused.encode(*everything.inputs.of(known.cases)).T
        best = near.argmax(1)
        recalls.append(np.mean([known.cases[b].answer == case.answer for b, case in zip(best, held, strict=True)]))
    assert recalls[1] > recalls[0] + 0.1
    assert recalls[1] > 0.85


def test_what_the_fusion_learns_from() -> None:
    rows = cases(10)
    chosen, lessons = fusion_lessons(hospital_data(rows), 0.3, 0)
    assert len({case.image_id for case in chosen}) == 7
    assert lessons.texts.shape == (len(chosen), 1024)
    for place, case in enumerate(chosen):
        assert np.array_equal(lessons.answers[lessons.answer_of[place]], hash_words([case.answer])[0])
        same = [other for other, each in enumerate(chosen) if each.image_id == case.image_id]
        assert [p for p, i in enumerate(lessons.image_of) if i == lessons.image_of[place]] == same
    encoded = random_unit(40, 9, 0)
    texts = sorted({case.question for case in rows} | set(ANSWERS))
    seen = hospital_data(rows).inputs.features
    read = Encoded(texts=encoded[: len(texts)], text_places={text: place for place, text in enumerate(texts)})
    _, lessons = fusion_lessons(HospitalData(rows, Inputs(seen, read)), 0.0, 0)
    assert lessons.texts.shape[1] == lessons.answers.shape[1] == 9


def test_orders_follow_from_seed_round_and_cases_alone() -> None:
    rows = cases(8)
    orders = epoch_orders(rows, 2, 0, 1)
    assert all(sorted(order) == list(range(len(rows))) for order in orders)
    assert orders[0] != orders[1]
    assert orders != epoch_orders(rows, 2, 0, 2)
    turned = epoch_orders(rows[::-1], 2, 0, 1)
    assert [rows[n].id for n in orders[0]] == [rows[::-1][n].id for n in turned[0]]


def test_hashed_words_are_unit_rows_without_a_vocabulary() -> None:
    rows = hash_words(["T2 image", "t2 IMAGE", "肺", "???", ""])
    assert rows.shape == (5, 1024)
    assert np.array_equal(rows[0], rows[1])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 0, 0], atol=1e-6)


def test_a_library_keeps_its_encoder_and_fusion(tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    from tasks.retrieve.fusion import FUSION
    from tasks.retrieve.retriever_files import ENCODER, open_library_encoder
    from tasks.retrieve.similarity import encoder_to_json

    images, questions = random_unit(5, 6, 0), ["mass", "cyst left", "mass right", "cyst", "organ"]
    for texts in (questions, random_unit(5, 4, 1)):
        encoder = fit_encoder(images, texts, 0.3)
        (tmp_path / ENCODER).write_text(json.dumps(encoder_to_json(encoder)))
        opened = open_library_encoder(tmp_path)
        assert isinstance(opened, Encoder)
        assert np.array_equal(opened.encode(images, texts), encoder.encode(images, texts))
    state = initial_fusion(6, 4, 0)
    save_file(state, tmp_path / FUSION)
    again = open_library_encoder(tmp_path)
    assert np.array_equal(again.encode(images, texts), Fused(encoder, state).encode(images, texts))


def test_lessons_keep_the_global_state() -> None:
    data = hospital_data(cases(6))
    chosen, lessons = fusion_lessons(data, 0.0, 0)
    assert isinstance(lessons, Lessons)
    state = initial_fusion(12, 1024, 0)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    _, loss, steps = train_fusion(state, lessons, epoch_orders(chosen, 3, 0, 1), 1e-2)
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert (loss > 0, steps) == (True, 3)
