"""The coverage-guided fuzzer (atheris) on one codec or on the heads: `python -m tests.faults.fuzz TARGET`.

A process of its own for each target: the fuzzer ends the process that it runs in. Inputs that reached new code are kept
in tests/faults/corpus/.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.faults.scenario import Effort, NotPossible, Outcome, Scenario, Start

__all__ = ["SCENARIOS"]

CORPUS: Final = Path(__file__).with_name("corpus")
RUNS: Final = 1_000_000
LONGEST: Final = 4096
"""Bytes of an input."""
SECONDS: Final = 2
"""An input that takes longer hangs."""
MEGABYTES: Final = 2048
"""More resident memory is a fault; the libraries take a few hundred."""
NAMES: Final = ("json", "ndjson", "csv", "npy", "vnd.apache.arrow.stream", "query", "heads")


def fuzz(_: Start, effort: Effort) -> Outcome:
    """Run the fuzzer on each target, one after the other.

    Raises:
        NotPossible: atheris is not installed.
    """
    runs = effort.count(RUNS, least=1000)
    fallen = []
    for name in NAMES:
        effort.tell(name)
        fallen += [seen] if (seen := _one(name, runs, effort.seed)) else []
    return Outcome(not fallen, "; ".join(fallen) or f"{runs:,} inputs of each of {len(NAMES)} targets, none fell")


def _one(name: str, runs: int, seed: int) -> str:
    """What fell of a target; nothing where all held."""
    command = [sys.executable, "-m", "tests.faults.fuzz", name, str(runs), str(seed)]
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd=CORPUS.parents[2], check=False)
        output.seek(0)
        text = output.read()
    if "No module named 'atheris'" in text:
        raise NotPossible("atheris is not installed; `make faults` installs it")
    return "" if done.returncode == 0 else f"{name}: {' / '.join(text.splitlines()[-12:])}"


def main(name: str, runs: int, seed: int) -> None:
    """Fuzz one target in this process, and end it."""
    import atheris  # an extra of `make faults` alone

    with atheris.instrument_imports(include=["service.api.codecs", "service.http", "service.tabular"]):
        from tests.faults.fuzzed import SEEDS, TARGETS  # instrumented while it is imported

    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(SEEDS[name]):
            (Path(folder) / str(number)).write_bytes(data)
        options = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", f"-timeout={SECONDS}"]
        options += [f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(kept), folder], TARGETS[name]())
        atheris.Fuzz()


SCENARIOS: Final = (
    Scenario(
        name="fuzz",
        done=f"{RUNS:,} inputs of a coverage-guided fuzzer to each codec, the query and the heads",
        to_hold=f"no error but ours, none takes {SECONDS} s, memory is bounded",
        measure=fuzz,
        plain=False,
    ),
)

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
