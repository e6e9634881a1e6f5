"""`make mutants`: how many of a sample of mutants the tests kill, and which survive."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from tests.mutants.equivalent import reasons
from tests.mutants.sample import Mutant, sample
from tests.mutants.verdict import Verdict, copy_tree, enter, failing, judge

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "mutants"
VERDICTS = CACHE / "verdicts.jsonl"
AIM = 0.9
SMALL_TESTS = ("tests/models/test_recipe.py", "tests/service/bundle/test_calibration.py")
"""Run before the first mutant: where pytest itself cannot run, every mutant would seem to be killed."""


def start_worker(folder: Path) -> None:
    """Give this process a copy of the project of its own."""
    copy = Path(tempfile.mkdtemp(dir=folder))
    copy_tree(ROOT, copy)
    enter(copy)
    if fails := failing(SMALL_TESTS):
        raise RuntimeError(f"tests fail without a mutant:\n{fails}")


@click.command()
@click.option("--count", default=200, show_default=True, help="How many mutants are drawn.")
@click.option("--seed", default=0, show_default=True, help="Which mutants are drawn.")
@click.option("--jobs", default=1, show_default=True, help="How many processes test at a time.")
@click.option("--seconds", default=60.0, show_default=True, help="Of the processor, after which a mutant has survived.")
@click.option("--again", is_flag=True, help="Judge only what has not been killed before.")
def main(count: int, seed: int, jobs: int, seconds: float, again: bool) -> None:
    """Draw mutants, run the tests that can see each, and tell which survive."""
    equivalent = reasons()
    drawn = sample(ROOT, count, seed)
    wanted = [mutant for mutant in drawn if (mutant.file, mutant.before, mutant.after) not in equivalent]
    VERDICTS.parent.mkdir(parents=True, exist_ok=True)
    if not again:
        VERDICTS.unlink(missing_ok=True)
    verdicts = {mutant: verdict for mutant, verdict in read() if not verdict.survived and mutant in wanted}
    pending = [mutant for mutant in wanted if mutant not in verdicts]
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ProcessPoolExecutor(jobs, initializer=start_worker, initargs=(Path(folder),)) as pool,
        VERDICTS.open("a") as file,
        tqdm(total=len(wanted), initial=len(verdicts), desc="mutants", unit="") as bar,
    ):
        futures = {pool.submit(judge, mutant, seconds): mutant for mutant in pending}
        for future in as_completed(futures):
            mutant, verdict = futures[future], future.result()
            verdicts[mutant] = verdict
            file.write(json.dumps([asdict(mutant), asdict(verdict)]) + "\n")
            file.flush()
            bar.set_postfix(survived=sum(one.survived for one in verdicts.values()))
            bar.update()
        # Without their parameters: cases that were added since give the others new names.
        killers = {verdict.by.partition("[")[0] for verdict in verdicts.values() if verdict.by.startswith("tests/")}
        if fails := pool.submit(failing, killers).result():
            raise click.ClickException(f"these tests fail without a mutant, and so have killed none:\n{fails}")
    survivors = [mutant for mutant in wanted if verdicts[mutant].survived]
    for mutant in survivors:
        click.echo(f"survived {mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
    killed = len(wanted) - len(survivors)
    click.echo(f"{killed} of {len(wanted)} killed; {len(drawn) - len(wanted)} more are known to be equivalent")
    sys.exit(killed < AIM * len(wanted))


def read() -> Iterator[tuple[Mutant, Verdict]]:
    """What was judged before."""
    if VERDICTS.exists():
        for line in VERDICTS.read_text().splitlines():
            mutant, verdict = json.loads(line)
            yield Mutant(**mutant), Verdict(**verdict)


if __name__ == "__main__":
    main()
