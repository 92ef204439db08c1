"""Prints the quality figures of docs/synthesis.md: `python benchmarks/synthesis.py [folder of MedPix-2-0]`."""

import sys
from pathlib import Path

from tasks.ingest import medpix, phantom
from tasks.synthesize.generate import synthesize


def main() -> None:
    """Phantom always, MedPix where its folder is given."""
    sources = {"phantom": phantom.read(images=120, seed=0, public=False, test_fraction=0.2).captions}
    if len(sys.argv) > 1:
        sources["medpix"] = medpix.read(Path(sys.argv[1])).captions
    for name, captions in sources.items():
        *_, report = synthesize(captions, "rules", seed=0)
        print(name, len(captions), "captions")
        for when in ("before", "after"):
            measured = report[when]
            faults = {fault: each["pairs"] for fault, each in measured["faults"].items()}
            print(f"  {when}: {measured['pairs']} pairs, {faults}, yes/no {measured['yes_no']}")
        print(f"  done: {report['done']}\n  topics: {report['after']['topics']}")


if __name__ == "__main__":
    main()
