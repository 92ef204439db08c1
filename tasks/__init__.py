"""The stages of a study: pure modules, and beside them the thin Prefect tasks in each `step.py`."""

import os

# MKL, which torch multiplies with, else adds in an order that may depend on the number of threads ("conditional
# numerical reproducibility"). It reads this at its first product, wherever that is; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# The most compiled products that oneDNN and torch keep: more than a batch needs (43 shapes, smol-clip in bfloat16).
# Each number of rows needs its own. With their 1,024 each, training fills hundreds of megabytes, and is no faster. They
# read these at the first product too.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "64")
