"""The command that attacks a federation: strategies by attacks."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import refuse_absent
from flows.cli.settings_file import load_attacks
from flows.cli.terminal import AsJson, Assignments, Quiet, SettingsFile, console, flow_running, print_place, print_rows


def attack(
    strategies: Annotated[
        str | None, typer.Option(help="Strategies, as fedavg,median; all if not given.", show_default=False)
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Attacks, as sign-flip,mimic; all if not given.", show_default=False)
    ] = None,
    byzantine: Annotated[
        str | None, typer.Option(help="Numbers of attackers; 1,2 if not given.", show_default=False)
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, as 0,1,2; 0 if not given.", show_default=False)] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Let robust strategies first choose settings by their worst attack.")
    ] = False,
    settings: SettingsFile = None,
    assignments: Assignments = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack the federation: train each strategy while some hospitals attack, and score what the others then answer.

    Without settings, 8 hospitals share a little of the embedded data and train for two rounds of long steps:
    study.dataset.images=24, study.dataset.test_fraction=0.4, study.partition.hospitals=8, study.partition.scheme=iid,
    study.federation.rounds=2, study.federation.holdout=0.2, study.federation.batch_size=4,
    study.federation.learning_rate=0.01, study.retrieval.k=1 and study.evaluation.max_new_tokens=8. Any setting of a
    study may be changed so (`fed-rag run --help` lists them).

    The first cells of a table tell how long the rest takes. After an interruption, the same command goes on where it
    stopped. artifacts/attacks/NAME receives attacks.parquet, .md and .html; docs/federation.md says what the attacks
    are and how tables are read.

    Example: fed-rag attack --strategies fedavg,median --attacks sign-flip,backdoor --byzantine 2
    """
    named = {"strategies": strategies, "attacks": attacks, "byzantine": byzantine, "seeds": seeds}
    told = [f"{name}=[{value}]" for name, value in named.items() if value is not None]
    table = load_attacks(settings, (*(assignments or ()), *told, *(["tune=true"] if tune else [])))
    refuse_absent(table.study)
    with flow_running(quiet):
        from flows.attack import attack as flow

        folder = Path(flow(table))
    _print(folder, as_json)


def _print(folder: Path, as_json: bool) -> None:
    import pandas as pd

    cells = pd.read_parquet(folder / "attacks.parquet")
    if as_json:
        print(cells.to_json(orient="records", indent=1))
        return
    columns = list(dict.fromkeys(cells["attack"]))
    for f, of_f in cells.groupby("byzantine"):
        rows = []
        for (strategy, hospitals), row in of_f.groupby(["strategy", "hospitals"], sort=False):
            scores = dict(zip(row["attack"], row["score"], strict=True))
            named = {"": f"{strategy}, {hospitals}"}
            refused = row["refused"].iloc[0]
            rows.append(named | {name: "refused" if refused else f"{scores[name]:.3f}" for name in columns})
        print_rows(rows, f"Right answers of honest hospitals, {f} attacking")
    for refusal in dict.fromkeys(text for text in cells["refused"] if text):
        console.print(refusal, highlight=False)
    print_place("Table", folder, ": attacks.html, .md, .parquet")
