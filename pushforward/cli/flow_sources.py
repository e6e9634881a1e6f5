"""The flow that a command works on: a server's, or a bundle's that is run in this process.

Both kinds have the same verbs. The server's modules are imported only where a bundle is run, and httpx only where a
server is asked.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import numpy as np

from pushforward.cli.context_input import make_context_layout
from pushforward.cli.row_layout import RowLayout
from pushforward.client.arrays import FloatArray
from pushforward.client.calls import PictureVerb
from pushforward.client.errors import InvalidInput
from pushforward.client.sampling import ContextNoise, Method, Noise

if TYPE_CHECKING:
    from pushforward.client.client import Client
    from service.bundle.store import Repository
    from service.engine.verbs.edits import Direction
    from service.engine.verbs.flow import ServedFlow
    from service.pictures.options import PictureOptions
    from service.plan import Plan

__all__ = [
    "DRAWN_SEED_BITS",
    "EditResult",
    "FlowSource",
    "PathKind",
    "PathResult",
    "PosteriorOptions",
    "PosteriorResult",
    "SampleResult",
    "SourceOptions",
    "Space",
    "Spacing",
    "find_bundle",
    "open_source",
]

Space = Literal["x", "z"]
PathKind = Literal["slerp", "linear"]
Spacing = Literal["parameter", "arc_length"]

DRAWN_SEED_BITS: Final = 53
"""The bits of a seed that is drawn here, as many as a server's: every reader of JSON and CSV keeps it exact."""


class SampleResult(NamedTuple):
    """Rows drawn from a flow.

    Args:
        x: ``[n, *event]``; ``[K, n, *event]`` for K contexts.
        log_prob: ``[n]`` or ``[K, n]``, in nats.
        seed: the seed that gives them again.
    """

    x: FloatArray
    log_prob: FloatArray
    seed: int


class PosteriorOptions(NamedTuple):
    """The draws that are summarized, and by what.

    Args:
        n: how many draws of each context.
        seed: None for one that is drawn.
        offset: the number of the first draw in the seed's sequence.
        quantiles: levels, from 0 to 1.
        hpd: the shares of the draws that highest-density intervals hold.
        correlation: whether it is wanted.
        method: of the draws.
        noise: of the draws.
    """

    n: int
    seed: int | None
    offset: int
    quantiles: Sequence[float]
    hpd: Sequence[float]
    correlation: bool
    method: Method
    noise: ContextNoise


class PosteriorResult(NamedTuple):
    """Summaries of the draws of K contexts.

    Args:
        mean: ``[K, *event]``.
        std: ``[K, *event]``.
        quantiles: ``[K, Q, *event]``, or None.
        hpd: ``[K, H, 2, *event]``, or None.
        correlation: ``[K, D, D]``, or None.
        acceptance: ``[K]``, of a flow with a prior: the share of the draws inside it; else None.
        seed: the seed that gives them again.
    """

    mean: FloatArray
    std: FloatArray
    quantiles: FloatArray | None
    hpd: FloatArray | None
    correlation: FloatArray | None
    acceptance: FloatArray | None
    seed: int


class PathResult(NamedTuple):
    """The rows of a path through latent space.

    Args:
        t: ``[T]``; point k lies at t = k.
        x: ``[T, *event]``.
        log_prob: ``[T]``, in nats.
        round_trip_error: ``[T]``.
    """

    t: FloatArray
    x: FloatArray
    log_prob: FloatArray
    round_trip_error: FloatArray


class EditResult(NamedTuple):
    """Rows moved along a direction by S strengths.

    Args:
        x: ``[S, N, *event]``.
        log_prob: ``[S, N]``, in nats.
    """

    x: FloatArray
    log_prob: FloatArray


class FlowSource(Protocol):
    """One flow: a server's or a bundle's."""

    @property
    def layout(self) -> RowLayout:
        """The layout of a row of x."""
        ...

    @property
    def context_layout(self) -> RowLayout | None:
        """The layout of a row of context; None for a flow without."""
        ...

    @property
    def directions(self) -> Sequence[str]:
        """The names of the flow's directions."""
        ...

    def log_prob(self, x: FloatArray, context: FloatArray | None, *, correct: bool = False) -> FloatArray:
        """Log-densities ``[n]`` of rows ``[n, *event]``, in nats; -inf outside the support.

        Args:
            x: the rows.
            context: ``[C]`` or ``[n, C]``; None for a flow without.
            correct: whether to divide by the mass inside the prior.
        """
        ...

    def sample(
        self, n: int, *, seed: int | None, offset: int, noise: Noise, context: FloatArray | None
    ) -> SampleResult:
        """Draw rows of a seed.

        Args:
            n: how many; for each context where there are several.
            seed: None for one that is drawn.
            offset: the number of the first row in the seed's sequence.
            noise: the latents.
            context: ``[C]`` or ``[K, C]``; None for a flow without.
        """
        ...

    def posterior(self, context: FloatArray | None, options: PosteriorOptions) -> PosteriorResult:
        """Summarize the draws of each context ``[K, C]``, or of one ``[C]``; None for a flow without."""
        ...

    def interpolate(
        self,
        points: FloatArray,
        *,
        space: Space,
        steps: int,
        path: PathKind | None,
        spacing: Spacing,
        context: FloatArray | None,
    ) -> PathResult:
        """Walk from point to point through latent space.

        Args:
            points: ``[K, *event]``, or ``[K, D]``.
            space: of the points, data or latents.
            steps: the rows of each segment, both ends included.
            path: None for the flow's own.
            spacing: what the rows are equally far apart in.
            context: ``[C]`` or ``[K, C]``; None for a flow without.
        """
        ...

    def edit(
        self,
        x: FloatArray,
        direction: str | FloatArray,
        strength: Sequence[float],
        *,
        context: FloatArray | None,
    ) -> EditResult:
        """Move rows along a direction of latent space.

        Args:
            x: ``[N, *event]``.
            direction: a name, a vector ``[D]``, or two rows ``[2, *event]``.
            strength: how far, S numbers.
            context: ``[C]`` or ``[N, C]``; None for a flow without.
        """
        ...

    def picture(self, verb: PictureVerb, columns: int | None, size: int | None, **arguments: Any) -> bytes:  # noqa: ANN401
        """The answer of logprob, sample, interpolate or edit as a PNG file; its arguments as the HTTP API calls them.

        A direction is as `edit` takes it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options that name a flow.

    Args:
        url: a server's base URL.
        bundle: a bundle's folder.
        repository: a folder of flows.
        model: the flow's name; needed with a repository of several flows.
        version: its version, or an alias; None for the newest.
        key: for the server; None for that of the environment.
        load_seconds: as in `service.engine.trials.TrialLimits`, of the trial of a bundle that is run here.
        load_bytes: as there.
    """

    url: str | None = None
    bundle: Path | None = None
    repository: Path | None = None
    model: str | None = None
    version: int | str | None = None
    key: str | None = field(default=None, repr=False)
    load_seconds: float = 60.0
    load_bytes: int = 2 << 30


@contextmanager
def open_source(options: SourceOptions) -> Iterator[FlowSource]:
    """Open the flow that the options name: a server's at the default address where they name no place.

    Raises:
        InvalidInput: they name two places, or a name that a bundle's folder has no use for.
        FlowNotFound, VersionNotFound, BundleError: the bundle is not there or may not be run.
        ClientError: the server does not answer, or has no such flow.
    """
    if options.key is not None and (options.bundle or options.repository):
        raise InvalidInput("--key is for a server: it goes with --url")
    places = [f"--{name}" for name in ("url", "bundle", "repository") if getattr(options, name) is not None]
    if len(places) > 1:
        raise InvalidInput(f"{' and '.join(places)} name different places: give one of them")
    if options.bundle is None and options.repository is None:
        from pushforward.client.client import Client
        from pushforward.client.connection import DEFAULT_URL

        url = options.url or DEFAULT_URL
        with Client(url, model=options.model, version=options.version, key=options.key) as client:
            yield _ServedFlow(client)
        return
    yield _LocalFlow(_load(_folder(options), options))


def find_bundle(path: Path) -> Path:
    """Find the folder of a bundle: the path itself, or the newest version of ``repository/name``.

    Raises:
        FlowNotFound: the path is neither.
    """
    from service.bundle.store import Repository

    if (path / "flow.json").exists():
        return path
    named = Path(os.path.abspath(path))  # noqa: PTH100  a flow is known by its folder's name, a link's too
    return Repository(named.parent).path(named.name)


def _folder(options: SourceOptions) -> Path:
    from service.bundle.store import Repository

    if options.bundle is not None:
        if options.model is not None or options.version is not None:
            raise InvalidInput(
                "--bundle is one version of one flow already: --model and --version go with --repository"
            )
        return find_bundle(options.bundle)
    repository = Repository(Path() if options.repository is None else options.repository)
    names = repository.names()
    if options.model is None and len(names) != 1:
        raise InvalidInput(f"--model must say which flow of the repository is meant; it holds {names}")
    return find_version(repository, options.model or names[0], options.version)


def find_version(repository: Repository, name: str, version: int | str | None) -> Path:
    """The folder of a version.

    Args:
        repository: that holds the flow.
        name: of the flow.
        version: of it, or an alias; None for the newest.

    Raises:
        FlowNotFound, VersionNotFound: there is no such flow, version or alias.
        DataError: the aliases cannot be read.
    """
    from service.bundle.aliases import read_aliases
    from service.errors import VersionNotFound

    if not isinstance(version, str):
        return repository.path(name, version)
    repository.path(name)
    aliases = read_aliases(repository, name)
    if version not in aliases:
        raise VersionNotFound(f"flow {name!r} has no alias {version!r}; its aliases are {sorted(aliases)}")
    return repository.path(name, aliases[version])


def _load(folder: Path, options: SourceOptions) -> ServedFlow:
    from service.engine.loading import load_folder
    from service.engine.trials import TrialLimits

    _, flow = load_folder(folder, TrialLimits(options.load_seconds, options.load_bytes))
    return flow


class _LocalFlow:
    """A bundle's flow, run in this process."""

    def __init__(self, flow: ServedFlow) -> None:
        self._flow = flow
        manifest = flow.manifest
        self.layout = RowLayout.of(
            manifest.event_shape, [feature.name for feature in manifest.features], precision=manifest.precision
        )
        self.directions = tuple(manifest.directions)
        features = [feature.model_dump() for feature in manifest.context_features]
        self.context_layout = make_context_layout(self.layout, manifest.context_width, features)

    def log_prob(self, x: FloatArray, context: FloatArray | None, *, correct: bool = False) -> FloatArray:
        from service.plan import run_now

        return run_now(self._flow.log_prob(x, _context_rows(context), correct=correct)).log_prob

    def sample(
        self, n: int, *, seed: int | None, offset: int, noise: Noise, context: FloatArray | None
    ) -> SampleResult:
        from service.plan import run_now

        seed = secrets.randbits(DRAWN_SEED_BITS) if seed is None else seed
        samples = run_now(
            self._flow.sample(
                n,
                seed,
                offset,
                context=context,
                temperature=noise.temperature,
                truncation=noise.truncation,
                method=noise.method,
                noise=noise.noise,
            )
        )
        return SampleResult(samples.x, samples.log_prob, seed)

    def posterior(self, context: FloatArray | None, options: PosteriorOptions) -> PosteriorResult:
        from service.engine.verbs.posterior import posterior
        from service.plan import run_now

        given = options._asdict()
        seed = given.pop("seed")
        seed = secrets.randbits(DRAWN_SEED_BITS) if seed is None else seed
        return PosteriorResult(*run_now(posterior(self._flow, seed=seed, context=context, **given)), seed)

    def interpolate(
        self,
        points: FloatArray,
        *,
        space: Space,
        steps: int,
        path: PathKind | None,
        spacing: Spacing,
        context: FloatArray | None,
    ) -> PathResult:
        from service.engine.verbs.interpolate import interpolate
        from service.plan import run_now

        walk = run_now(
            interpolate(self._flow, points, steps=steps, path=path, space=space, context=context, spacing=spacing)
        )
        return PathResult(walk.t.astype(walk.x.dtype), walk.x, walk.log_prob, walk.round_trip_error)

    def edit(
        self,
        x: FloatArray,
        direction: str | FloatArray,
        strength: Sequence[float],
        *,
        context: FloatArray | None,
    ) -> EditResult:
        from service.engine.verbs.edits import edit
        from service.plan import run_now

        found = run_now(edit(self._flow, x, _engine_direction(direction), strength, _context_rows(context)))
        return EditResult(found.x, found.log_prob)

    def picture(self, verb: PictureVerb, columns: int | None, size: int | None, **arguments: Any) -> bytes:  # noqa: ANN401
        from service.pictures.options import PictureOptions
        from service.plan import run_now

        plans: dict[PictureVerb, Callable[..., Plan[bytes]]] = {
            "logprob": self._draw_densities,
            "sample": self._draw_samples,
            "interpolate": self._draw_walk,
            "edit": self._draw_edit,
        }
        return run_now(plans[verb](PictureOptions(columns, size), **arguments))

    def _draw_densities(self, options: PictureOptions, x: FloatArray, context: FloatArray | None) -> Plan[bytes]:
        from service.drawing import density_drawing, draw_answer
        from service.pictures.options import Extent

        rows = _context_rows(context)
        found = self._flow.log_prob(x, rows)
        return draw_answer(
            self._flow, options, Extent(len(x), "x"), found, lambda f: density_drawing(x, f.log_prob, rows)
        )

    def _draw_samples(
        self,
        options: PictureOptions,
        n: int,
        context: FloatArray | None,
        **noise: Any,  # noqa: ANN401
    ) -> Plan[bytes]:
        from service.drawing import draw_answer, rows_drawing
        from service.pictures.options import Extent

        several = context is not None and context.ndim > 1
        count = n * len(context) if several and context is not None else n
        found = self._flow.sample(n, context=context, **noise)
        extent = Extent(count, "n", columns=n if several else None)
        return draw_answer(self._flow, options, extent, found, lambda f: rows_drawing(f.x, f.log_prob))

    def _draw_walk(
        self,
        options: PictureOptions,
        points: FloatArray,
        steps: int,
        context: FloatArray | None,
        **how: Any,  # noqa: ANN401
    ) -> Plan[bytes]:
        from service.drawing import draw_answer, walks_drawing
        from service.engine.verbs.interpolate import interpolate
        from service.pictures.options import Extent

        found = interpolate(self._flow, points, steps, context=context, **how)
        extent = Extent((len(points) - 1) * steps, "steps", columns=steps, strip=True)
        return draw_answer(
            self._flow, options, extent, found, lambda f: walks_drawing(f, steps, _context_rows(context))
        )

    def _draw_edit(
        self,
        options: PictureOptions,
        x: FloatArray,
        direction: str | FloatArray,
        strength: Sequence[float],
        context: FloatArray | None,
    ) -> Plan[bytes]:
        from service.drawing import draw_answer, edit_drawing
        from service.engine.verbs.edits import edit
        from service.pictures.options import Extent

        count, rows = len(strength), _context_rows(context)
        found = edit(self._flow, x, _engine_direction(direction), strength, rows)
        extent = Extent(len(x) * count, "x", columns=count, strip=True, walks=len(x), walks_argument="x")
        return draw_answer(self._flow, options, extent, found, lambda f: edit_drawing(f, strength, rows))


class _ServedFlow:
    """A server's flow."""

    def __init__(self, client: Client) -> None:
        about = client.model()
        self._client = client
        self._about = about
        self.layout = RowLayout.of(about.event_shape, about.features, precision=about.precision)
        self.context_layout = make_context_layout(
            self.layout, about.context_width, about.payload.get("context_features", ())
        )

    @property
    def directions(self) -> Sequence[str]:
        return self._about.directions

    def log_prob(self, x: FloatArray, context: FloatArray | None, *, correct: bool = False) -> FloatArray:
        return self._client.log_prob(x, context=context, correct=correct)

    def sample(
        self, n: int, *, seed: int | None, offset: int, noise: Noise, context: FloatArray | None
    ) -> SampleResult:
        samples = self._client.sample(
            n,
            seed=seed,
            offset=offset,
            context=context,
            temperature=noise.temperature,
            truncation=noise.truncation,
            method=noise.method,
            noise=noise.noise,
        )
        return SampleResult(samples.x, samples.log_prob, samples.seed)

    def posterior(self, context: FloatArray | None, options: PosteriorOptions) -> PosteriorResult:
        found = self._client.posterior(context, **options._asdict())
        return PosteriorResult(**{name: getattr(found, name) for name in PosteriorResult._fields})

    def interpolate(
        self,
        points: FloatArray,
        *,
        space: Space,
        steps: int,
        path: PathKind | None,
        spacing: Spacing,
        context: FloatArray | None,
    ) -> PathResult:
        how: dict[str, Any] = {"space": space, "steps": steps, "path": path, "spacing": spacing}
        walk = self._client.interpolate(points, context=context, **how)
        return PathResult(walk.t.astype(walk.x.dtype), walk.x, walk.log_prob, walk.round_trip_error)

    def edit(
        self,
        x: FloatArray,
        direction: str | FloatArray,
        strength: Sequence[float],
        *,
        context: FloatArray | None,
    ) -> EditResult:
        found = self._client.edit(x, direction, strength, context=context)
        return EditResult(found.x, found.log_prob)

    def picture(self, verb: PictureVerb, columns: int | None, size: int | None, **arguments: Any) -> bytes:  # noqa: ANN401
        if verb == "edit":
            from pushforward.client.call_numbers import format_direction

            arguments["direction"] = format_direction(arguments["direction"], self.layout.dtype)
        return self._client.picture(verb, columns=columns, size=size, **arguments)


def _engine_direction(direction: str | FloatArray) -> Direction:
    """A direction in the form that the engine takes."""
    from service.engine.verbs.edits import Between

    if isinstance(direction, str):
        return direction
    return direction.astype(np.float64) if direction.ndim == 1 else Between(direction[:1], direction[1:])


def _context_rows(context: FloatArray | None) -> FloatArray | None:
    """A context as rows ``[1, C]`` or ``[N, C]``."""
    return None if context is None else np.atleast_2d(context)
