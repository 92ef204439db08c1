"""The stages of a study: pure modules, and beside them the thin Prefect tasks in each `step.py`."""

import os

# MKL, which torch multiplies with, else adds in an order that may depend on the number of threads ("conditional
# numerical reproducibility"). It reads this at its first product, wherever that is; it costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
