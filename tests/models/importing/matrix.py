"""The table of docs/imports.md: every family of `tests.models.importing.families`, read and made a bundle of.

`python -m tests.models.importing.matrix` writes it anew: minutes for the reading, an hour and more on two cores for the
bundles, of which it makes one of each family first, and keeps the page up to date while it goes on. A test holds the
page against the families, and a slow one against the bundles.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from models.importing.agreement import check_agreement
from models.importing.load import HeldOutRows, draw_rows, export_imported
from models.importing.take import ImportedFlow, take
from service.bundle.manifest import Manifest
from service.bundle.store import Repository
from service.errors import PushforwardError
from tests.models.importing.families import Case, cases

PAGE = Path(__file__).parents[3] / "docs" / "imports.md"
BEGIN, END = "<!-- begin families -->\n", "<!-- end families -->\n"
ROWS = 100
REFUSED = "refused: "

Line = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Args:
        against_library: the greatest relative error of log_prob against the library's own; None where it is refused.
        of_graphs: that of log_prob and its log-determinants in the graphs; None where no bundle was made.
        reason: why it is refused.
    """

    against_library: float | None = None
    of_graphs: float | None = None
    reason: str | None = None


def take_case(case: Case) -> tuple[ImportedFlow, HeldOutRows]:
    imported = take(case.family.build(case.width, case.context))
    return imported, draw_rows(imported, ROWS)


def read(case: Case) -> Outcome:
    """Hold a flow against its own library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            imported, rows = take_case(case)
            return Outcome(check_agreement(imported, rows.x, rows.context))
        except PushforwardError as error:
            return Outcome(reason=error.detail)


def exported(case: Case) -> Outcome:
    """Make a bundle of it."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            imported, rows = take_case(case)
            bundle = export_imported(imported, rows, repository=Repository(Path(folder)), name="flow", source="test")
        except PushforwardError as error:
            return Outcome(reason=error.detail)
        manifest = Manifest.from_json((bundle / "flow.json").read_bytes())
        error = float(manifest.provenance.recipe["import"]["library_error"])
        return Outcome(error, max(manifest.parity.log_prob, manifest.parity.log_abs_det_jacobian))


def name_of(case: Case) -> tuple[str, str]:
    """The first two cells of a case's row."""
    return case.family.library, case.family.name + (", conditional" if case.context else "")


def table_rows(results: dict[str, Outcome]) -> list[Line]:
    """A row for each family and outcome, with the greatest errors over its widths."""
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases():
        groups.setdefault((*name_of(case), results[str(case)].reason or ""), []).append(case)
    lines = []
    for (library, family, reason), chosen in groups.items():
        widths = ", ".join(str(case.width) for case in chosen)
        if reason:
            lines.append((library, family, widths, "", REFUSED + reason))
            continue
        found = [(case.width, results[str(case)]) for case in chosen]
        library_error = max(outcome.against_library or 0.0 for _, outcome in found)
        graphs = [(width, outcome.of_graphs) for width, outcome in found if outcome.of_graphs is not None]
        worst = max((error for _, error in graphs), default=0.0)
        bundles = f"passes, D = {', '.join(str(width) for width, _ in graphs)}: {worst:.0e}" if graphs else ""
        lines.append((library, family, widths, f"{library_error:.0e}", bundles))
    return lines


def page_rows() -> list[Line]:
    """The rows of the table as the page has it."""
    _, _, rest = PAGE.read_text().partition(BEGIN)
    lines = [line for line in rest.partition(END)[0].splitlines() if line.startswith("|")][2:]
    rows = []
    for line in lines:
        library, family, widths, error, words = (cell.strip() for cell in line.strip("|").split(" | "))
        rows.append((library, family, widths, error, words))
    return rows


def write(results: dict[str, Outcome]) -> None:
    """Put the table into the page."""
    header = ("library", "family", "D", "log_prob against the library's", "as a bundle")
    lines = [header, ("---",) * 5, *table_rows(results)]
    table = "".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |\n" for line in lines)
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}")


def order() -> list[int]:
    """The indices of the cases to make bundles of: one of each family first."""
    whole = cases()
    # the conditional one of 16 columns, where there is one: most of what can go wrong
    last = {(case.family.library, case.family.name): index for index, case in enumerate(whole) if case.width <= 16}
    return sorted(range(len(whole)), key=lambda index: (index not in last.values(), index))


def _read(index: int) -> tuple[str, Outcome]:
    return str(cases()[index]), read(cases()[index])


def _exported(index: int) -> tuple[str, Outcome]:
    return str(cases()[index]), exported(cases()[index])


def main() -> None:
    torch.set_num_threads(1)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = dict(pool.imap_unordered(_read, range(len(cases()))))
        write(results)
        refused = {name for name, outcome in results.items() if outcome.reason is not None}
        left = [index for index in order() if str(cases()[index]) not in refused]
        for name, outcome in pool.imap_unordered(_exported, left):
            sys.stderr.write(f"{name}: {outcome}\n")
            results[name] = outcome
            write(results)


if __name__ == "__main__":
    main()
