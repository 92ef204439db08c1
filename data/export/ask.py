"""Answers a question about an image with this folder's model and cases: python ask.py IMAGE "QUESTION"."""

import sys
from pathlib import Path

import faiss
import pandas
from library import ANSWERING, HERE, MODEL, Mixture, inputs, nearest, to_rgb, tokenizer
from peft import PeftModel
from transformers import AutoModelForImageTextToText

image, question = to_rgb(Path(sys.argv[1]).read_bytes()), sys.argv[2]
model = AutoModelForImageTextToText.from_pretrained(**MODEL)
model.generation_config = ANSWERING
if (HERE / "adapter").is_dir():
    model = PeftModel.from_pretrained(model, HERE / "adapter")
index, entries = faiss.read_index(str(HERE / "index.faiss")), pandas.read_parquet(HERE / "entries.parquet")
shown = nearest(model.eval(), index, entries, image, question)
print(shown[["case_id", "similarity"]].to_string(index=False), file=sys.stderr)
asked = inputs(shown, image, question)
start = asked["input_ids"].shape[1]
answer = model.generate(**asked, logits_processor=[Mixture(shown, start)])[0, start:]
print(tokenizer.decode(answer, skip_special_tokens=True).strip())
