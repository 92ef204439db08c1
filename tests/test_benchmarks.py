"""What `make bench` writes, what its ways are given, and what it counts; nothing is timed here."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import set_peft_model_state_dict
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM, Qwen2VLConfig

from benchmarks import __main__ as runner
from benchmarks import busy, evaluate_vs_one_by_one, gpu, limit, train_vs_published_loop, train_vs_trainer
from benchmarks.figure import Figure
from benchmarks.workload import Work, check_close, draw_work, drawn_state, in_turn, machine, rate, spread
from tasks.engine import cores
from tasks.engine.fast.onednn import use_onednn
from tasks.engine.vision import encode_images
from tasks.errors import StudyError
from tasks.records.pixels import to_rgb

AT_LEAST = Figure("one", 24.0, 2.0, target=12, unit="samples/s", ceiling=16.0, notes={"cases": 3})
AT_MOST = Figure("other", 1.0, 2.0, target=0.4, unit="µs", at_most=True)
FREE = Figure("free", 1.0, 4.0, target=None, unit="GFLOP/s")
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 1481}


@pytest.fixture(scope="module")
def work() -> Work:
    return draw_work(dropout=0.0)


def test_a_figure_is_held_against_its_target() -> None:
    assert (AT_LEAST.ratio, AT_LEAST.met) == (12, True)
    assert (AT_MOST.ratio, AT_MOST.met) == (0.5, False)
    assert (FREE.ratio, FREE.met) == (0.25, None)
    assert not Figure("", 23.9, 2.0, target=12, unit="").met
    assert Figure("", 1.0, 2.0, target=0.5, unit="", at_most=True).met


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "NAMES", ("train_vs_trainer",))
    monkeypatch.setattr(runner, "alone", lambda body: AT_LEAST)
    runner.main(["train_vs_trainer"])
    assert not (tmp_path / "artifacts").exists()
    runner.main([])
    (row,) = json.loads((tmp_path / "artifacts/bench.json").read_text())
    expected = {"name": "one", "value": 24.0, "reference": 2.0, "ratio": 12.0, "target": 12, "unit": "samples/s"}
    assert list(row.items()) == list(expected.items())
    notes = json.loads((tmp_path / "artifacts/bench_notes.json").read_text())
    assert notes["one"].pop("share of the cores that others used") >= 0
    assert notes["one"] == {"cases": 3, "largest ratio that products allow": 16.0, "share of it": 0.75}
    assert notes["machine"]["torch"] == torch.__version__


def test_every_benchmark_has_its_file() -> None:
    folder = Path(runner.__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in runner.NAMES)
    table = runner.table([AT_LEAST, AT_MOST, FREE], [0, 0, 0])
    assert list(table.columns[-1].cells) == ["yes", "no", ""]
    assert machine()["threads"] == torch.get_num_threads()


def test_ways_take_turns() -> None:
    calls: list[str] = []
    seconds = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "")
    assert calls == ["a", "b"] * 3
    assert [len(each) for each in seconds.values()] == [3, 3]
    assert rate(6, [1.0, 9.0, 2.0]) == 3
    assert spread([1.0, 2.0], [3.0, 2.0]) == (1, 3)


@pytest.mark.parametrize("other", [1.2, math.nan])
def test_ways_that_disagree_are_refused(other: float) -> None:
    assert check_close("losses", torch.tensor([1.0]), torch.tensor([1.0625]), within=0.1) == 0.0625
    with pytest.raises(StudyError, match=r"^Expected the losses of both ways to agree within 0\.1, found "):
        check_close("losses", torch.tensor([1.0]), torch.tensor([other]), within=0.1)


def test_both_ways_of_training_see_the_same(work: Work) -> None:
    part = Work(work.engine, work.plain, work.images, work.train[:32], work.test[:6])
    state = drawn_state(work.engine)
    assert train_vs_published_loop.check(part, state) < 1e-4
    ordered = train_vs_trainer.in_batches(part, epochs=2)
    assert sorted(prompt.image_ids for prompt in ordered[:32]) == sorted(prompt.image_ids for prompt in part.train)
    assert ordered[:32] != ordered[32:] != part.train
    assert train_vs_trainer.check(part) < 1e-4
    work.engine.switch(state)
    set_peft_model_state_dict(work.plain, state)
    assert evaluate_vs_one_by_one.check(part, encode_images(work.engine.base, list(work.images.values()))) == 0


def test_matrix_products_are_counted_as_they_are() -> None:
    x, weight = torch.randn(5, 3), torch.randn(3, 7, requires_grad=True)
    query, key = (torch.randn(2, heads, 6, 8) for heads in (4, 2))
    frozen = torch.nn.Sequential(torch.nn.Linear(9, 11)).requires_grad_(False)
    use_onednn(frozen)
    with limit.Recorder() as recorder:
        frozen(torch.randn(2, 4, 9, requires_grad=True)).sum().backward()
        (x @ weight).sum().backward()
        torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
    counted = {
        (one[0], other[0]): count * limit.operations((one, other)) for (one, other), count in recorder.products.items()
    }
    assert counted == {
        ((8, 9), (9, 11)): 2 * 8 * 9 * 11,
        ((8, 11), (11, 9)): 2 * 8 * 9 * 11,
        ((5, 3), (3, 7)): 2 * 5 * 3 * 7,
        ((3, 5), (5, 7)): 2 * 5 * 3 * 7,
        ((2, 4, 6, 8), (2, 4, 8, 6)): 2 * 2 * 4 * 6 * 6 * 8,
        ((2, 4, 6, 6), (2, 4, 6, 8)): 2 * 2 * 4 * 6 * 6 * 8,
    }
    assert all(limit.seconds_of(product) > 0 for product in recorder.products)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_products_are_counted_in_every_mode(mode: Any) -> None:
    layer, query = torch.nn.Linear(8, 4), torch.randn(1, 2, 5, 8)
    with mode(), limit.Recorder() as recorder:
        layer(torch.randn(3, 8))
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
        torch.nn.functional.conv2d(torch.randn(1, 3, 8, 8), torch.randn(4, 3, 2, 2))
        torch.matmul(query, query.transpose(2, 3))
    counted = sum(count * limit.operations(product) for product, count in recorder.products.items())
    assert counted == 2 * (3 * 8 * 4 + 3 * 2 * 5 * 5 * 8 + 49 * 12 * 4)


def test_convolutions_are_counted_as_torch_counts_them() -> None:
    images, kernels = torch.randn(2, 3, 9, 8), torch.randn(5, 3, 2, 3)
    with limit.Recorder() as recorder, FlopCounterMode(display=False) as counter:
        torch.nn.functional.conv2d(images, kernels, stride=2)
    ((product, count),) = recorder.products.items()
    assert count * limit.operations(product) == counter.get_total_flops()
    assert limit.limit(lambda: torch.nn.functional.conv2d(images, kernels)) > 0


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (busy.BUSY, "yes"),
        (busy.BUSY + 0.01, "not judged: busy cores"),
        (None, "not judged: use of the cores unknown"),
    ],
)
def test_a_verdict_needs_cores_that_others_leave_alone(share: float | None, verdict: str) -> None:
    found = Figure("one", 30.0, 10.0, target=2, unit="samples/s", ceiling=4.0)
    cells = [next(iter(column.cells)) for column in runner.table([found], [share]).columns]
    assert cells == ["one", "30.0", "10.0", "samples/s", "3.00", "4.0", "0.75", "at least 2", verdict]


def test_what_others_use_is_what_is_not_the_benchmarks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of four cores, of which four were used, two of them by the benchmark."""
    for module, name, values in ((cores, "used", [10.0, 14.0]), (busy, "own", [1.0, 3.0])):
        coming = iter(values)
        monkeypatch.setattr(module, name, lambda *_, coming=coming: next(coming))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    watch = busy.Watch()
    monkeypatch.setattr(busy.Watch, "seconds", 2.0)
    assert watch.share() == pytest.approx(2 / 8)


def test_the_benchmarks_own_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert busy.own() > 0
    monkeypatch.setattr(cores, "STAT", tmp_path / "absent")
    assert busy.Watch().share() is None


def test_model_operations_are_those_that_torch_counts() -> None:
    config = LlamaConfig(**TINY, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
    model = LlamaForCausalLM(config).requires_grad_(False)
    inputs = torch.randn(1, 10, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=inputs).logits.sum().backward()
    assert gpu.model_operations(config, 10) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("model", "billions", "placeholders"),
    list(zip(gpu.MODELS, (2.2, 13.4, 8.1), (144, 576, 196), strict=True)),
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_full_sizes_are_those_published(model: gpu.Model, billions: float, placeholders: int) -> None:
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(model.config())
    assert sum(each.numel() for each in made.parameters()) / 1e9 == pytest.approx(billions, abs=0.06)
    pixels = model.image_processor()(images=to_rgb(gpu.noise(np.random.default_rng(0), model.pixels)))
    if "image_grid_thw" in pixels:
        assert int(pixels["image_grid_thw"].prod()) // 4 == placeholders
    else:
        assert pixels["pixel_values"][0].shape[-1] == model.pixels


def test_both_executors_are_measured() -> None:
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    text = TINY | {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rotary}
    text |= {"bos_token_id": None, "eos_token_id": 2}
    vision = {"depth": 1, "embed_dim": 64, "num_heads": 2, "hidden_size": 64}
    special = {"image_token_id": 12, "video_token_id": 13, "vision_start_token_id": 9, "vision_end_token_id": 10}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **special)
    tiny = gpu.Model("tiny", lambda: config, gpu.MODELS[0].image_processor, 56, 1)
    runs = gpu.measure(tiny, "cpu", hospitals=2, cases=3, best=gpu.best_rate("cpu", 64))
    assert list(runs) == ["mapped", "batched"]
    assert all(run.samples_per_second > 0 and run.utilisation > 0 for run in runs.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_the_reason_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main()
    assert capsys.readouterr().out == "benchmarks.gpu: not measured, this machine has no CUDA device.\n"
