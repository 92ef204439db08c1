"""Scripts in a process of their own that cannot import this project: what hospitals have who take their work away."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = ("tasks", "flows")
START = f"""
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OURS}:
            raise ImportError(f"{{name}} must not be needed")

sys.meta_path.insert(0, Refuse())
script, sys.argv = sys.argv[1], sys.argv[1:]
sys.path.insert(0, sys.argv.pop(1))
runpy.run_path(script, run_name="__main__")
assert not [name for name in sys.modules if name.split(".")[0] in {OURS}]
"""
ANSWER = """
import json, sys
from pathlib import Path
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

def inputs(folder, model, messages):
    parts = [part for message in messages for part in message["content"] if part["type"] == "image"]
    images = [Image.open(part.pop("path")) for part in parts]
    how = {"add_generation_prompt": True}
    if Path(folder, "processor_config.json").exists():
        for part, image in zip(parts, images):
            part["image"] = image
        how |= {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        found = AutoProcessor.from_pretrained(folder).apply_chat_template(messages, **how)
        found.pop("labels", None)
        return found
    # Qwen-VL's asks for torchvision.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen = AutoImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")
    text, *rest = tokenizer.apply_chat_template(messages, tokenize=False, **how).split("<|image_pad|>")
    for grid, piece in zip(seen["image_grid_thw"], rest):
        text += "<|image_pad|>" * (int(grid.prod()) // 4) + piece
    found = {**tokenizer(text, return_tensors="pt"), **seen}
    return found | {"mm_token_type_ids": (found["input_ids"] == model.config.image_token_id).int()}

for folder, adapter, asked in json.loads(Path(sys.argv[1]).read_text()):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = []
    for messages in asked:
        given = inputs(folder, model, messages)
        made = model.generate(**given)[0, given["input_ids"].shape[1]:]
        said.append(tokenizer.decode(made, skip_special_tokens=True).strip())
    print(json.dumps(said))
"""
Conversation = list[dict[str, Any]]


def plainly(folder: Path, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with nothing of this project to be had."""
    command = [sys.executable, "-I", "-W", "ignore", "-c", START, str(script), str(script.parent), *arguments]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def plain_answers(work: Path, jobs: Sequence[tuple[Path, Path, Sequence[Conversation]]]) -> list[list[str]]:
    """Greedy answers of bases, each with a PEFT folder and the conversations put to it; images name a `path`."""
    (work / "answer.py").write_text(ANSWER, encoding="utf-8")
    documents = [(str(base), str(adapter), conversations) for base, adapter, conversations in jobs]
    (work / "jobs.json").write_text(json.dumps(documents), encoding="utf-8")
    done = plainly(work, work / "answer.py", str(work / "jobs.json"))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
