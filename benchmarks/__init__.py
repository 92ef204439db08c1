"""Measurements that the documents quote, a file each; `python -m benchmarks` runs those of docs/benchmarks.md."""
