"""Prints the quality figures of docs/synthesis.md: `python benchmarks/synthesis.py [folder of MedPix-2-0]`."""

import json
import sys
from pathlib import Path

from tasks.ingest import phantom
from tasks.records import Caption
from tasks.synthesize.generate import synthesize


def medpix(folder: Path) -> list[Caption]:
    """The captions of MedPix 2.0 as published, all splits together."""
    captions = []
    for row in json.loads((folder / "Descriptions.json").read_text(encoding="utf-8")):
        said = row["Description"]
        known = {"modality": said["Modality"], "plane": said["Plane"], "organ": row["Location"], "group": row["U_id"]}
        captions.append(Caption(row["image"], said["Caption"] or "", "train", "medpix", "en", **known))
    return captions


def main() -> None:
    """Phantom always, MedPix where its folder is given."""
    sources = {"phantom": phantom.read(images=120, seed=0, public=False, test_fraction=0.2).captions}
    if len(sys.argv) > 1:
        sources["medpix"] = medpix(Path(sys.argv[1]))
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
