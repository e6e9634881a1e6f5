"""`make faults`: what is done to a server on purpose, and what held; beside the same on a plain app."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from tqdm import tqdm

from tests.faults import bodies, container, deploys, ends, fuzz, keys, load, machine, mixed, stored
from tests.faults.scenario import Effort, NotPossible, Outcome, Scenario, Subject
from tests.faults.table import Cell, render, replace

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reliability.md"
SCENARIOS: Final = (
    *bodies.SCENARIOS,
    *container.SCENARIOS,
    *deploys.SCENARIOS,
    *ends.SCENARIOS,
    *fuzz.SCENARIOS,
    *keys.SCENARIOS,
    *load.SCENARIOS,
    *machine.SCENARIOS,
    *mixed.SCENARIOS,
    *stored.SCENARIOS,
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([scenario.name for scenario in SCENARIOS]))
@click.option("--share", default=1.0, show_default=True, help="Of the full counts and seconds.")
@click.option("--seed", default=0, show_default=True, help="Of all that is random.")
@click.option("--alone", is_flag=True, help="Pushforward as it is only.")
@click.option("--write", is_flag=True, help="Write the rows into docs/reliability.md.")
def main(names: tuple[str, ...], share: float, seed: int, alone: bool, write: bool) -> None:
    """Run these scenarios, or all of them, and print a table. The status is 1 where something did not hold."""
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    cells = []
    with tqdm(total=sum(len(_subjects(one, alone)) for one in chosen), unit="") as bar:
        effort = Effort(share, seed, bar.set_postfix_str)
        for scenario in chosen:
            for subject in _subjects(scenario, alone):
                bar.set_description(f"{scenario.name}, {subject}")
                cells.append(Cell(scenario, subject, measure(scenario, subject, effort)))
                bar.set_postfix_str("")
                bar.update()
    click.echo(render(cells))
    if write:
        PAGE.write_text(replace(PAGE.read_text(), cells))
    sys.exit(any(cell.subject == "pushforward" and cell.outcome.held is False for cell in cells))


def _subjects(scenario: Scenario, alone: bool) -> tuple[Subject, ...]:
    return ("pushforward",) if alone else scenario.subjects


def measure(scenario: Scenario, subject: Subject, effort: Effort) -> Outcome:
    """What came of a scenario for one subject."""
    try:
        return scenario.measure(scenario.start(subject), effort)
    except NotPossible as error:
        return Outcome(None, f"not run: {error}")


if __name__ == "__main__":
    main()
