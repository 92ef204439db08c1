"""What ask.py does beside loading: the nearest cases of a question, and the prompt that they and it make."""

import contextlib
import io
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import torch
from pixels import picture_digest, to_rgb
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, GenerationConfig, LogitsProcessor

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
ENCODER = json.loads((HERE / "encoder.json").read_text(encoding="utf-8"))
RULES = json.loads((HERE / "library.json").read_text(encoding="utf-8"))
BASE = HERE / SETTINGS["folder"]
SAFE = {"trust_remote_code": False, "use_safetensors": True}
MODEL = {"pretrained_model_name_or_path": BASE, "dtype": SETTINGS["dtype"]} | SETTINGS["hub"] | SAFE
ANSWERING = GenerationConfig.from_pretrained(BASE)
tokenizer = AutoTokenizer.from_pretrained(BASE, trust_remote_code=False)
image_processor = AutoImageProcessor.from_pretrained(BASE, trust_remote_code=False)


def nearest(model: Any, index: Any, entries: pd.DataFrame, image: PIL.Image.Image, question: str) -> pd.DataFrame:
    """The entries that are shown with a question, nearest first, each with its `similarity` and its `png`."""
    images = pd.read_parquet(HERE / "images.parquet").set_index("image_id")
    # Never the image itself, nor copies of it, nor what else there is of its patient.
    own = set(images.index[images["picture"] == picture_digest(image)])
    copies = {copy for each in own for copy in RULES["copies"].get(each, ())}
    hidden = entries["image_id"].isin(own | copies)
    if RULES["hide_patient"]:
        patients = entries["group"][entries["image_id"].isin(own)]
        hidden |= entries["group"].isin(patients.dropna())
    wanted = min(SETTINGS["k"] + int(hidden.sum()), len(entries))
    if not SETTINGS["k"] or not wanted:
        return entries[:0].assign(similarity=0.0, png=b"")
    near, numbers = index.search(encode(model, image, question), wanted)
    found = pd.DataFrame({"number": numbers[0], "similarity": np.clip(near[0], -1, 1)})
    found = found.merge(entries[~hidden], on="number")[: SETTINGS["k"]]
    found["png"] = images["png"].loc[found["image_id"]].to_numpy()
    return found[found["similarity"] >= SETTINGS["floor"]]


def encode(model: Any, image: PIL.Image.Image, question: str) -> np.ndarray:
    """The unit row `(1, d)` that the index compares: the mean of the image's features beside the question's words."""
    weight, mean = ENCODER["image_weight"], np.asarray(ENCODER["image_mean"], np.float32)
    sides = unit(features(model, image, len(mean)).mean(0) - mean), unit(words(model, question))
    return unit(np.concatenate([math.sqrt(weight) * sides[0], math.sqrt(1 - weight) * sides[1]]))[None]


@torch.inference_mode()
def features(model: Any, image: PIL.Image.Image, width: int) -> np.ndarray:
    """The image's features `(tokens, width)`: behind the projector, or what the tower gives it where it was trained.

    They are those of the base without its adapter, as in the index.
    """
    pixels, given = image_processor(images=[image], return_tensors="pt"), []
    with model.disable_adapter() if (HERE / "adapter").is_dir() else contextlib.nullcontext():
        if SETTINGS["projector"] is None:
            return model.get_image_features(**pixels).pooler_output[0].float().numpy()
        projector = next(each for name, each in model.named_modules() if name.endswith(SETTINGS["projector"]))
        handle = projector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        model.get_image_features(**pixels)
        handle.remove()
    return given[0].reshape(-1, width).float().numpy()


def words(model: Any, question: str) -> np.ndarray:
    """The question by its words' TF-IDF, or by the mean of its tokens' embeddings where the library has these."""
    if ENCODER["text_mean"] is not None:
        ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        table = model.get_input_embeddings().weight.detach().float().numpy()
        mean = table[ids].mean(0) if ids else 0 * table[0]
        return (mean - np.asarray(ENCODER["text_mean"], np.float32)).astype(np.float32)
    counts = Counter(re.findall(SETTINGS["words"], question.lower()))
    terms = zip(ENCODER["vocabulary"], ENCODER["idf"], strict=True)
    return np.array([(1 + math.log(counts[word])) * idf if counts[word] else 0 for word, idf in terms], np.float32)


def unit(row: np.ndarray) -> np.ndarray:
    """The row at length 1, or as it is where it has none."""
    return (row / max(float(np.linalg.norm(row)), 1e-12)).astype(np.float32)


def inputs(shown: pd.DataFrame, image: PIL.Image.Image, question: str) -> dict[str, torch.Tensor]:
    """What the model is given: the conversation, tokenised, and its pictures."""
    rows = [] if SETTINGS["show"] == "nothing" else list(shown.itertuples())
    if SETTINGS["order"] != "nearest first":
        rows.reverse()
    messages: list[dict[str, Any]] = []
    for row in rows:
        said = f"(similarity {row.similarity:.2f}) " if SETTINGS["say_similarity"] else ""
        messages.append({"role": "user", "content": [*_image(row), _words(said + row.question)]})
        messages.append({"role": "assistant", "content": [_words(row.answer)]})
    asked = [{"type": "image", "image": image}, _words(plain(question))]
    if SETTINGS["quote"] and rows:
        messages, asked = [], [*_quoted(rows), *asked]
    return tokenised([*messages, {"role": "user", "content": asked}])


def _quoted(rows: list[Any]) -> list[dict[str, Any]]:
    """The cases as data in the question's own turn."""
    parts = [_words("Earlier cases, quoted as data:\n")]
    for number, row in enumerate(rows, 1):
        said = f", similarity {row.similarity:.2f}" if SETTINGS["say_similarity"] else ""
        question, answer = (json.dumps(text, ensure_ascii=False) for text in (row.question, row.answer))
        parts += [*_image(row), _words(f"Case {number}{said}: question {question}, answer {answer}\n")]
    return parts


def _image(row: Any) -> list[dict[str, Any]]:
    """A case's image, where images are shown."""
    return (
        [{"type": "image", "image": PIL.Image.open(io.BytesIO(row.png))}] if SETTINGS["show"] == "images+text" else []
    )


def _words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def plain(text: str) -> str:
    """The text with every special token in it broken by a space, so that it ends no turn."""
    while re.search(SETTINGS["marks"], text):
        text = re.sub(SETTINGS["marks"], lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)
    return text


class Mixture(LogitsProcessor):
    """Mixes the shown cases' answers into each next token's distribution, as the study did (arXiv 1911.00172)."""

    def __init__(self, shown: pd.DataFrame, start: int) -> None:
        self.start, end = start, tokenizer.eos_token
        self.answers = [tokenizer(plain(text) + end, add_special_tokens=False)["input_ids"] for text in shown["answer"]]
        near = torch.tensor(shown["similarity"].to_numpy(np.float64)) / (SETTINGS["temperature"] or 1)
        self.shares = near.softmax(0).tolist()

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logarithm of the mixture; the model's scores where no answer goes on from what is written."""
        written, votes = ids[0, self.start :].tolist(), Counter[int]()
        for answer, share in zip(self.answers, self.shares, strict=True):
            if answer[: len(written)] == written and len(answer) > len(written):
                votes[answer[len(written)]] += share
        if not votes or not SETTINGS["weight"]:
            return scores
        mixed = (1 - SETTINGS["weight"]) * scores.float().softmax(-1)
        for token, share in votes.items():
            mixed[0, token] += SETTINGS["weight"] * share / sum(votes.values())
        return mixed.log()


def tokenised(messages: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The conversation as the model takes it."""
    how: dict[str, Any] = {"add_generation_prompt": True}
    if not hasattr(image_processor, "merge_size"):
        processor = AutoProcessor.from_pretrained(BASE, trust_remote_code=False)
        found = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt", **how)
        return {name: each for name, each in found.items() if name != "labels"}
    # Qwen-VL's processor does the same, but does not load without torchvision, which it reads videos with.
    images = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
    pixels = image_processor(images=images, return_tensors="pt")
    text, *pieces = tokenizer.apply_chat_template(messages, tokenize=False, **how).split("<|image_pad|>")
    for grid, piece in zip(pixels["image_grid_thw"], pieces, strict=True):
        text += "<|image_pad|>" * (int(grid.prod()) // image_processor.merge_size**2) + piece
    found = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    kinds = (found["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return {**found, **pixels, "mm_token_type_ids": kinds}


__all__ = ["ANSWERING", "HERE", "MODEL", "Mixture", "encode", "inputs", "nearest", "to_rgb", "tokenizer"]
