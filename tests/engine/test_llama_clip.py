"""BiomedCLIP's tower converted tensor by tensor, and the parts put together as one LLaVA folder."""

import json
from pathlib import Path

import pytest
import torch
from engine_samples import IMAGES, answer_texts, prompts_with_neighbours, spread
from family_samples import TEXT, TOWER, llama3_tokenizer
from safetensors.torch import load_file, save_file
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tasks.engine.base import load_base
from tasks.engine.batch import collate, encode
from tasks.engine.engine import Engine
from tasks.engine.families.llama_clip import compose
from tasks.engine.families.open_clip import OPEN_CLIP, convert_trunk
from tasks.engine.vision import encode_images
from tasks.errors import StudyError

WIDTH, DEPTH, HEADS, INNER, PATCH, EDGE = 48, 3, 12, 96, 14, 56
State = dict[str, torch.Tensor]


def checkpoint() -> State:
    """Random tensors with the names that BiomedCLIP's checkpoint has, one of each part beside the trunk."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, (EDGE // PATCH) ** 2 + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for layer in range(DEPTH):
        for name, shape in {
            "norm1": (WIDTH,),
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH,),
            "mlp.fc1": (INNER, WIDTH),
            "mlp.fc2": (WIDTH, INNER),
        }.items():
            shapes[f"blocks.{layer}.{name}.weight"] = shape
            shapes[f"blocks.{layer}.{name}.bias"] = shape[:1]
    generator = torch.Generator().manual_seed(0)
    state = {f"visual.trunk.{name}": torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    others = {"visual.head.proj.weight": (32, WIDTH), "text.transformer.embeddings.word_embeddings.weight": (9, 8)}
    return state | {name: torch.randn(shape) for name, shape in others.items()} | {"logit_scale": torch.tensor(4.6)}


def timm_forward(state: State, pixels: torch.Tensor, layers: int) -> torch.Tensor:
    """timm's VisionTransformer written out: the tokens after some blocks, normalised after all of them."""
    weight_of = {name.removeprefix("visual.trunk."): tensor for name, tensor in state.items()}
    found = conv2d(pixels, weight_of["patch_embed.proj.weight"], weight_of["patch_embed.proj.bias"], stride=PATCH)
    found = torch.cat([weight_of["cls_token"].expand(len(pixels), -1, -1), found.flatten(2).transpose(1, 2)], dim=1)
    found = found + weight_of["pos_embed"]
    for layer in range(layers):
        of = {name.removeprefix(f"blocks.{layer}."): each for name, each in weight_of.items()}
        normed = layer_norm(found, (WIDTH,), of["norm1.weight"], of["norm1.bias"], eps=1e-6)
        qkv = linear(normed, of["attn.qkv.weight"], of["attn.qkv.bias"])
        query, key, value = qkv.reshape(*qkv.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        found = found + linear(mixed, of["attn.proj.weight"], of["attn.proj.bias"])
        normed = layer_norm(found, (WIDTH,), of["norm2.weight"], of["norm2.bias"], eps=1e-6)
        inner = gelu(linear(normed, of["mlp.fc1.weight"], of["mlp.fc1.bias"]))
        found = found + linear(inner, of["mlp.fc2.weight"], of["mlp.fc2.bias"])
    return (
        layer_norm(found, (WIDTH,), weight_of["norm.weight"], weight_of["norm.bias"], eps=1e-6)
        if layers == DEPTH
        else found
    )


@torch.inference_mode()
def test_the_converted_tower_computes_what_timms_does() -> None:
    state = checkpoint()
    config, tensors = convert_trunk(state, HEADS)
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(tensors)
    pixels = torch.randn((2, 3, EDGE, EDGE), generator=torch.Generator().manual_seed(1))
    found = model(pixels, output_hidden_states=True)
    torch.testing.assert_close(found.last_hidden_state, timm_forward(state, pixels, DEPTH), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.hidden_states[-2], timm_forward(state, pixels, DEPTH - 1), rtol=0, atol=1e-5)


def test_every_tensor_is_used_once() -> None:
    state = checkpoint()
    _, tensors = convert_trunk(state, HEADS)
    trunk = [tensor for name, tensor in state.items() if name.startswith("visual.trunk.")]
    assert sum(each.numel() for each in tensors.values()) == sum(each.numel() for each in trunk)
    assert len(tensors) == len(trunk) + 2 * 2 * DEPTH


FIRST = "visual.trunk.blocks.0."


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (FIRST + "attn.qkv.bias", None, r"lacks layers\.0\.attention\.k_proj\.bias"),
        (FIRST + "mlp.fc2.weight", None, r"lacks layers\.0\.mlp\.fc2\.weight"),
        (FIRST + "ls1.gamma", torch.zeros(WIDTH), r"has beside them blocks\.0\.ls1\.gamma"),
        (FIRST + "norm1.weight", torch.zeros(7), r"layernorm_before\.weight of shape \(48,\) .* found \(7,\)"),
        (FIRST + "attn.qkv.weight", torch.zeros(4, WIDTH), r"lacks layers\.0\.attention\.v_proj\.weight"),
        ("visual.trunk.pos_embed", None, r"no visual\.trunk\.pos_embed"),
        ("visual.trunk.patch_embed.proj.weight", None, r"no visual\.trunk\.patch_embed\.proj\.weight"),
        ("audio.proj", torch.zeros(1), r"found audio\.proj, which is of no part of it"),
    ],
)
def test_another_checkpoint_is_refused(name: str, tensor: torch.Tensor | None, message: str) -> None:
    state = checkpoint()
    state = {key: each for key, each in state.items() if key != name} if tensor is None else state | {name: tensor}
    with pytest.raises(StudyError, match=message):
        convert_trunk(state, HEADS)


def open_clip_folder(folder: Path, binary: bool) -> Path:
    folder.mkdir()
    colours = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    tower = {"timm_model_name": "vit_base_patch16_224"}
    settings = {"model_cfg": {"vision_cfg": tower}, "preprocess_cfg": colours}
    (folder / OPEN_CLIP).write_text(json.dumps(settings))
    if binary:
        torch.save(checkpoint(), folder / "open_clip_pytorch_model.bin")
    else:
        save_file(checkpoint(), folder / "open_clip_model.safetensors")
    return folder


def clip_folder(folder: Path) -> Path:
    model = CLIPVisionModel(CLIPVisionConfig(**TOWER))
    spread(model)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def llama_folder(folder: Path, tied: bool) -> Path:
    tokenizer = llama3_tokenizer(image=False)
    words = len(tokenizer)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=words, bos_token_id=0, eos_token_id=3, tie_word_embeddings=tied, **TEXT)
    )
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "tied"), [("bin", False), ("safetensors", True), ("clip", False)])
def test_a_composed_folder_is_a_base_like_any_other(tmp_path: Path, kind: str, tied: bool) -> None:
    vision = clip_folder(tmp_path / "v") if kind == "clip" else open_clip_folder(tmp_path / "v", kind == "bin")
    text = llama_folder(tmp_path / "t", tied)
    base = load_base(str(compose(vision, text, tmp_path / "out")), device="cpu")
    features = encode_images(base, IMAGES)
    assert features.tokens("image-0") == 16
    engine = Engine(base, r=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])
    examples = encode(base, features, prompts_with_neighbours())
    assert len(answer_texts(engine, features, examples, tokens=8192, max_new_tokens=4)) == len(examples)
    assert collate(base, features, examples).labels.shape[0] == len(examples)
    whole = LlamaForCausalLM.from_pretrained(text)
    ids = torch.tensor([base.tokenizer("a large effusion")["input_ids"]])
    with torch.inference_mode():
        found = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        expected = whole(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_composed_tower_is_the_part(tmp_path: Path) -> None:
    vision = open_clip_folder(tmp_path / "v", binary=False)
    base = load_base(str(compose(vision, llama_folder(tmp_path / "t", False), tmp_path / "out")), device="cpu")
    pixels = torch.randn((1, 3, EDGE, EDGE), generator=torch.Generator().manual_seed(1))
    patches = timm_forward(checkpoint(), pixels, DEPTH - 1)[:, 1:]
    projected = base.model.model.multi_modal_projector(patches)
    torch.testing.assert_close(base.model.get_image_features(pixels).pooler_output[0], projected[0], rtol=0, atol=1e-5)
    assert base.image_processor.image_mean == (0.5, 0.4, 0.3)


@torch.inference_mode()
def test_the_placeholder_is_never_the_answer(tmp_path: Path) -> None:
    base = load_base(
        str(compose(clip_folder(tmp_path / "v"), llama_folder(tmp_path / "t", False), tmp_path / "out")), device="cpu"
    )
    ids = torch.arange(4, 24)[None]
    found = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    assert found.shape[-1] == base.image_token_id + 1
    torch.testing.assert_close(found[:, -1], found[:, :-1].mean(-1), rtol=0, atol=1e-5)
    assert (found.argmax(-1) != base.image_token_id).all()
    assert base.tokenizer.eos_token == "<|eot_id|>"


def test_parts_of_another_kind_are_refused(tmp_path: Path) -> None:
    text = llama_folder(tmp_path / "t", False)
    with pytest.raises(StudyError, match=r"Expected BiomedCLIP .* found a model of type llama: give"):
        compose(text, text, tmp_path / "out")
    bare = open_clip_folder(tmp_path / "bare", binary=True)
    (bare / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(StudyError, match=r"^Expected an open_clip model in .* No such file .*: download it again\.$"):
        compose(bare, text, tmp_path / "out")
    settings = json.loads((bare / OPEN_CLIP).read_text())
    settings["model_cfg"]["vision_cfg"]["timm_model_name"] = "resnet50"
    (bare / OPEN_CLIP).write_text(json.dumps(settings))
    torch.save(checkpoint(), bare / "open_clip_pytorch_model.bin")
    with pytest.raises(StudyError, match=r"Expected a timm tower among .* found resnet50"):
        compose(bare, text, tmp_path / "out")


def test_partial_downloads_are_refused(tmp_path: Path) -> None:
    vision, text = open_clip_folder(tmp_path / "v", binary=True), llama_folder(tmp_path / "t", False)
    published = vision / "open_clip_pytorch_model.bin"
    published.write_bytes(published.read_bytes()[:5000])
    with pytest.raises(StudyError, match=r"^Expected an open_clip model in .*: download it again\.$"):
        compose(vision, text, tmp_path / "out")
    weights = load_file(text / "model.safetensors")
    save_file({name: each for name, each in weights.items() if ".layers.1." not in name}, text / "model.safetensors")
    with pytest.raises(StudyError, match=r"lacks model\.layers\.1\..*: download it again\.$"):
        compose(vision, text, tmp_path / "out")
    (text / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"^Expected a whole transformers model in .*: download it again\.$"):
        compose(vision, text, tmp_path / "out")
    with pytest.raises(StudyError, match=r"^Expected a whole transformers model in .*: download it again\.$"):
        compose(vision, tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()
