"""`pushforward inspect`: the description of a bundle, as text or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.bundle.constraints import Constraint
    from service.bundle.manifest import Manifest, Support
    from service.bundle.store import Bundle

__all__ = ["command"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
def command(bundle: Path, as_json: bool) -> None:
    """Describe BUNDLE: a bundle's folder, or REPOSITORY/NAME for the newest version.

    The files of the bundle are checked first. `pushforward check` runs its graphs too.
    """
    from pushforward.cli.flow_sources import find_bundle
    from service.bundle.store import read_bundle

    folder = find_bundle(bundle)
    facts = _collect_facts(read_bundle(folder), {file.name: file.stat().st_size for file in sorted(folder.iterdir())})
    click.echo(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else _format_facts(facts))


def _collect_facts(bundle: Bundle, sizes: dict[str, int]) -> dict[str, Any]:
    """The manifest, with what follows from it and from the files."""
    from service.bundle.operators import check_graph

    manifest = bundle.manifest
    graphs = {name: check_graph(data, name) for name, data in bundle.graphs.items()}
    return {
        "manifest": manifest.model_dump(),
        "base": manifest.base.reading,
        "support": _format_support(manifest.support, manifest.constraints),
        "held_out": _measure_held_out(manifest),
        "graphs": {
            name: {"nodes": graph.nodes, "operators": dict(graph.operators.most_common())}
            for name, graph in graphs.items()
        },
        "bytes": {**sizes, "total": sum(sizes.values())},
        "golden_rows": len(bundle.golden.x),
    }


def _measure_held_out(manifest: Manifest) -> dict[str, float | int | None]:
    """The held-out log-likelihood: a mean over rows, for each dimension, and in bits.

    Bits per dimension of quantized data are of the probability of a bin of width `step`: the density times it.
    """
    calibration, width = manifest.calibration, manifest.event_width
    step = manifest.quantization.step if manifest.quantization else 1.0
    gaussian = calibration.gaussian_mean
    return {
        "rows": calibration.rows,
        "nats": calibration.mean,
        "standard_error": calibration.standard_error,
        "nats_per_dim": calibration.mean / width,
        "bits_per_dim": -(calibration.mean / width + math.log(step)) / math.log(2),
        "gaussian_nats": gaussian,
        "gaussian_nats_per_dim": None if gaussian is None else gaussian / width,
    }


def _format_support(support: Support | None, constraints: Sequence[Constraint]) -> str:
    """The support as an interval of each value of x, or column by column where they differ."""
    if constraints:
        return "; ".join(map(_format_constraint, constraints))
    if support is None or (support.low is None and support.high is None):
        return "all of space"
    low = "(-inf" if support.low is None else f"{'[' if support.low_closed else '('}{support.low:g}"
    high = "inf)" if support.high is None else f"{support.high:g}{']' if support.high_closed else ')'}"
    return f"{low}, {high} in each value"


def _format_constraint(constraint: Constraint) -> str:
    """A constraint with the columns that it is of, numbered from 0."""
    last = constraint.first + constraint.columns - 1
    columns = f"x{constraint.first}" if constraint.columns == 1 else f"x{constraint.first} to x{last}"
    if constraint.kind == "simplex":
        return f"{columns} positive, with sum 1"
    low = "-inf" if constraint.low is None else f"{constraint.low:g}"
    high = "inf" if constraint.high is None else f"{constraint.high:g}"
    return f"({low}, {high}) in {columns}"


def _format_facts(facts: dict[str, Any]) -> str:
    manifest, held_out = facts["manifest"], facts["held_out"]
    provenance = manifest["provenance"]
    rows = [
        ("flow", f"{manifest['name']} version {manifest['version']} (format {manifest['format']})"),
        ("", manifest["description"]),
        ("event shape", f"{manifest['event_shape']}, {manifest['latent_width']} coordinates of z"),
        ("features", ", ".join(_format_feature(feature) for feature in manifest["features"])),
        ("context", _format_context(manifest)),
        ("base", facts["base"]),
        ("support", facts["support"]),
        ("integers", manifest["quantization"]["reading"] if manifest["quantization"] else ""),
        ("inverse", manifest["inverse"]),
        ("held-out", f"{held_out['nats']:.4f} nats a row, of {held_out['rows']} rows"),
        ("", f"{held_out['standard_error']:.4f} nats standard error of it"),
        ("", f"{held_out['nats_per_dim']:.4f} nats a dimension, {held_out['bits_per_dim']:.4f} bits a dimension"),
        (
            "Gaussian",
            "" if held_out["gaussian_nats"] is None else _format_gaussian(held_out, manifest["context_width"]),
        ),
        ("WARNING", manifest["calibration"]["warning"]),
        *_format_evidence(manifest.get("variational")),
        ("graphs", f"ONNX opset {manifest['opset']}"),
        *(
            ("", f"{name}: {graph['nodes']} nodes, {facts['bytes'][name]:,} bytes")
            for name, graph in facts["graphs"].items()
        ),
        ("parity", f"log_prob {manifest['parity']['log_prob']:.1e}, round trip {manifest['parity']['round_trip']:.1e}"),
        ("WARNING", manifest["parity"]["warning"]),
        ("golden rows", str(facts["golden_rows"])),
        ("directions", ", ".join(manifest["directions"])),
        ("size", f"{facts['bytes']['total']:,} bytes"),
        ("data", provenance["data"]),
        ("calibration", _format_recalibration(provenance["recalibration"])),
        ("seed", "" if provenance["seed"] is None else str(provenance["seed"])),
        ("made", provenance["created"]),
        ("with", ", ".join(f"{name} {version}" for name, version in provenance["libraries"].items())),
    ]
    return "\n".join(f"{label:<13}{value}" for label, value in rows if value)


def _format_evidence(variational: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The lines of a flow that was fitted to a density: its evidence and its verdict."""
    if variational is None:
        return []

    def number(key: str) -> str:
        value, error = variational[key], variational.get(f"{key}_se")
        return ("none" if value is None else f"{value:.4f}") + ("" if error is None else f" ± {error:.4f}")

    verdict = variational["verdict"].replace("_", " ")
    k = variational["pareto_k"]
    return [
        ("evidence", f"log Z {number('log_evidence')} by draws, {number('log_evidence_ais')} by annealing, in nats"),
        ("", f"ELBO {number('elbo')}, {variational['ess_share']:.1%} of draws effective"),
        ("", f"Pareto k {'unknown' if k is None else f'{k:.2f}'}, of {variational['restarts']} restarts"),
        ("verdict" if verdict == "good" else "WARNING", verdict),
    ]


def _format_recalibration(source: dict[str, Any] | None) -> str:
    if source is None:
        return ""
    return f"of version {source['version']} measured anew on {source['data']}, {source['created']}"


def _format_context(manifest: dict[str, Any]) -> str:
    width = manifest["context_width"]
    named = ", ".join(_format_feature(feature) for feature in manifest["context_features"])
    columns = "1 column" if width == 1 else f"{width} columns"
    return f"{columns}: {named}" if named else columns if width else ""


def _format_gaussian(held_out: dict[str, Any], context_width: int) -> str:
    if held_out["gaussian_nats"] is None:
        return ""
    ahead = held_out["nats"] - held_out["gaussian_nats"]
    what = "a linear Gaussian, given the context" if context_width else "a full-covariance Gaussian"
    return f"{held_out['gaussian_nats']:.4f} nats a row for {what}; the flow is {ahead:+.4f}"


def _format_feature(feature: dict[str, str | None]) -> str:
    return f"{feature['name']} [{feature['unit']}]" if feature["unit"] else str(feature["name"])
