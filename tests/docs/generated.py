"""The pages of docs/ that are made from the code: `make docs` writes them anew, and a test compares."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from models.architectures import ARCHITECTURES, IMAGES, default_options
from pushforward.cli.group import COMMANDS, cli
from service.api.problems import PROBLEMS, problem_type
from service.app import create_app
from service.bundle.manifest import Manifest
from service.bundle.store import Repository
from service.engine.metrics.metrics import METRICS
from service.settings import Settings, environment_name, flag_name
from tests.docs import architecture

ROOT = Path(__file__).parents[2]
NOTE = "<!-- Made from the code by `make docs`; a test holds it against the code. -->\n"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def settings_page() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        if field.is_required():
            default = "the shipped flows"
        else:
            usual = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
            default = "none" if usual in (None, "") else f"`{usual}`"
        rows.append((f"`{flag_name(name)}`", f"`{environment_name(name)}`", default, field.description or ""))
    return (
        "# Settings\n\n"
        + NOTE
        + "\nEach setting is a flag of `pushforward serve` and an environment variable. The flag has precedence over"
        "\nthe variable, and the variable over the default.\n\n"
        + table(("flag", "environment variable", "default", "what it sets"), rows)
    )


def cli_page() -> str:
    whole = click.Context(cli, info_name="pushforward", terminal_width=100, **cli.context_settings)
    page = "# The command line\n\n" + NOTE + f"\n```\n{cli.get_help(whole)}\n```\n"
    for name in COMMANDS:
        command = cli.get_command(whole, name)
        if command is None:
            raise LookupError(name)
        own = click.Context(command, parent=whole, info_name=name, **command.context_settings)
        page += f"\n## pushforward {name}\n\n```\n{command.get_help(own)}\n```\n"
        for part, inner in getattr(command, "commands", {}).items():
            context = click.Context(inner, parent=own, info_name=part, **inner.context_settings)
            page += f"\n### pushforward {name} {part}\n\n```\n{inner.get_help(context)}\n```\n"
    return page


def http_page() -> str:
    """docs/http.md: what is written by hand stays; the tables between the marks are made here."""
    page = (ROOT / "docs" / "http.md").read_text()
    app = create_app(Settings(repository=Path("unused")))
    routes: dict[str, tuple[str, str]] = {}
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/models/{name}") and operation["tags"] != ["models"]:
                continue
            routes[f"{method.upper()} {path}"] = (f"`{method.upper()} {path}`", operation["summary"])
    page = _between(page, "routes", table(("call", "what it does"), list(routes.values())))
    errors = [
        (str(p.status), f"`{code}`", p.title, f"{p.retry_after} s" if p.retry_after else "", f"`{problem_type(code)}`")
        for code, p in sorted(PROBLEMS.items(), key=lambda item: item[1].status)
    ]
    return _between(page, "errors", table(("status", "code", "title", "Retry-After", "type"), errors))


def _between(page: str, name: str, content: str) -> str:
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"the page has no marks for {name}")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def operations_page() -> str:
    """docs/operations.md: written by hand, but for the table of metrics."""
    rows = []
    for metric in METRICS:
        suffix = "_total" if metric.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append((f"`{metric.name}{suffix}`", metric.kind, labels, metric.help))
    page = (ROOT / "docs" / "operations.md").read_text()
    return _between(page, "metrics", table(("metric", "kind", "labels", "what it counts"), rows))


def zoo_page() -> str:
    repository = Repository(ROOT / "models" / "zoo")
    figures, parity = [], []
    for name in repository.names():
        folder = repository.path(name)
        manifest = Manifest.from_json((folder / "flow.json").read_bytes())
        held_out, width = manifest.calibration, manifest.event_width
        bits = f"{-held_out.mean / width / math.log(2):.3f}" if manifest.quantization else ""
        gaussian = "" if held_out.gaussian_mean is None else f"{held_out.gaussian_mean:.3f}"
        mean = f"{held_out.mean:.3f} ± {held_out.standard_error:.3f}"
        row = (f"`{name}`", str(held_out.rows), mean, f"{held_out.mean / width:.4f}", bits, gaussian)
        figures.append(row)
        found = manifest.parity
        errors = (found.log_prob, found.log_abs_det_jacobian, found.z, found.x, found.round_trip)
        size = sum(file.stat().st_size for file in folder.iterdir())
        parity.append((f"`{name}`", *(f"{error:.1e}" for error in errors), f"{size / 1000:.0f} kB"))
    return (
        "# The shipped flows\n\n"
        + NOTE
        + "\nThe table has the held-out log_prob in nats, in the units of the data, as the served graph gives it. A row"
        "\nof integers counts as the centre of its bin. `make zoo` fits the flows again, and `make zoo faces` that one;"
        "\neach ends within 0.05 nats per dimension of these figures.\n\n"
        + table(("flow", "held-out rows", "log_prob", "per dimension", "bits per dimension", "Gaussian"), figures)
        + "\nThis table says how far the graphs are from the flow in float64. It has the greatest abs(error) /"
        "\n(1 + abs(value)) over held-out rows and rows far outside the data, in batches of 1, 7 and 1,000.\n\n"
        + table(("flow", "log_prob", "log-det", "z", "x", "round trip", "bundle"), parity)
    )


def families_page() -> str:
    """docs/families.md: written by hand, but for the table of options."""
    rows = []
    for name, constructor in ARCHITECTURES.items():
        if name not in IMAGES:
            shown = (
                (key, list(value) if isinstance(value, tuple) else value)
                for key, value in default_options(constructor).items()
            )
            rows.append((f"`{name}`", ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in shown)))
    page = (ROOT / "docs" / "families.md").read_text()
    return _between(page, "options", table(("family", "options"), rows))


def architecture_page() -> str:
    """docs/architecture.md: written by hand, but for the tables of rooms and of a request's files."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    page = _between(page, "rooms", table(("room", "what it is", "imports"), architecture.rooms_table()))
    one, more = architecture.ways().values()
    also = ", ".join(f"`{architecture.place(name)}`" for name in more if name not in one)
    content = (
        table(("", "file", "what it is"), architecture.request_table(one))
        + f"\nA request with more rows, or with an argument, also enters {also}.\n"
    )
    return _between(page, "request", content)


def request_picture() -> str:
    return architecture.request_picture(next(iter(architecture.ways().values())))


def decisions_page() -> str:
    rows = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        rows.append((f"[{path.name[:4]}]({path.name})", title))
    return (
        "# Decisions\n\n"
        + NOTE
        + "\nEach page says what was chosen, why, and at what price. Where a choice changes, the page or a later page"
        "\nsays so.\n\n" + table(("number", "decision"), rows)
    )


PAGES = {
    "docs/architecture.md": architecture_page,
    "docs/architecture/rooms.svg": architecture.rooms_picture,
    "docs/architecture/request.svg": request_picture,
    "docs/decisions/README.md": decisions_page,
    "docs/settings.md": settings_page,
    "docs/cli.md": cli_page,
    "docs/http.md": http_page,
    "docs/operations.md": operations_page,
    "docs/zoo.md": zoo_page,
    "docs/families.md": families_page,
}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make())
