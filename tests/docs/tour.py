"""docs/tour.md and its pictures, made from the running service: `python -m tests.docs.tour`.

Everything but the chain is drawn by the server itself.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from models.data.faces import draw_faces
from pushforward import Client
from tests.server import Server

DOCS: Final = Path(__file__).parents[2] / "docs"
SHOWN: Final = 16
"""How many digits a ranking shows from either end."""
FACES: Final = 2026
"""The seed of the faces that walks go between: none that the shipped flow was fitted to."""


def chain(client: Client) -> bytes:
    """Where rows of two-moons are after each other step, coloured by the side of x that they come from."""
    traced = client.trace(n=1500, seed=1, model="two-moons")
    steps = [step for step in traced.steps if step.name != "flatten"]
    shown = [steps[at] for at in np.unique(np.linspace(0, len(steps) - 1, 6).round().astype(int))]
    angle = np.arctan2(*(traced.steps[0].value - traced.steps[0].value.mean(axis=0)).T)
    figure = Figure(figsize=(2.1 * len(shown), 2.4), layout="constrained")
    for axes, step in zip(figure.subplots(1, len(shown)), shown, strict=True):
        axes.scatter(*step.value.T, c=angle, s=2, cmap="twilight", linewidths=0)
        axes.set(title=step.name, xticks=[], yticks=[])
        axes.set(**({"xlim": (-4, 4), "ylim": (-4, 4)} if step is shown[-1] else {}))
    file = io.BytesIO()
    with mpl.rc_context({"font.size": 8}):
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def pictures(client: Client) -> dict[str, bytes]:
    """File name -> PNG."""
    bunch = load_digits()
    digits = bunch.images[..., None].astype(np.float32)
    three, eight = (digits[np.flatnonzero(bunch.target == number)[:1]] for number in (3, 8))
    faces = draw_faces(12, FACES)[0].astype(np.float32)
    order = np.argsort(client.log_prob(digits, model="digits"), kind="stable")
    grid = {"model": "digits", "columns": SHOWN, "size": 40}
    moons = np.concatenate((client.sample(300, seed=3, model="two-moons").x, [[0.5, 0.25], [-1.2, -0.4]]))
    return {
        "chain.png": chain(client),
        "faces.png": client.picture(
            "interpolate", points=faces[:8].reshape(4, 2, 32, 32, 1), steps=9, path="linear", model="faces", size=88
        ),
        "smile.png": client.picture(
            "edit", x=faces[8:12], direction="smile", strength=np.linspace(-1.5, 1.5, 7).tolist(), model="faces",
            size=88,
        ),
        "samples.png": client.picture(
            "sample", n=48, seed=7, temperature=0.8, model="faces", columns=12, size=64
        ),
        "walk.png": client.picture(
            "edit",
            x=three,
            direction={"from": three[0].tolist(), "to": eight[0].tolist()},
            strength=np.linspace(0, 1, 11).tolist(),
            model="digits",
            size=56,
        ),
        "direction.png": client.picture(
            "edit", x=digits[np.flatnonzero(bunch.target == 3)[:4]], direction="8", strength=[0, 1, 2, 3, 4],
            model="digits", size=56,
        ),
        "density.png": client.picture("logprob", x=moons.astype(np.float32), model="two-moons", size=480),
        "likely.png": client.picture("logprob", x=digits[order[: -SHOWN - 1 : -1]], **grid),
        "unlikely.png": client.picture("logprob", x=digits[order[:SHOWN]], **grid),
        "wine.png": client.picture("sample", n=400, seed=1, model="wine", columns=4, size=640),
    }  # fmt: skip


PAGE: Final = """\
# A tour in pictures

<!-- Made from the running service by `python -m tests.docs.tour`. -->

**Step by step.** A flow is a chain of invertible steps from data x to a simple latent z. `POST /trace` gives the event
after each step. The picture shows 1,500 rows of the shipped `two-moons`: x on the left, z, a normal cloud, on the
right. Each row keeps its colour.

![two moons become a normal cloud, step by step](tour/chain.png)

**From one face to another.** `POST /interpolate` with `"path": "linear"` walks between pairs of rows, along the
straight line between their latents. The shipped `faces` are drawn ones: a generator in `models/data/faces.py` makes
them from 25 parameters, and a flow is fitted to 50,000. Each line of the picture is a walk. It begins and ends at faces
that the flow was not fitted to.

![four walks, each from one drawn face to another](tour/faces.png)

**A smile.** `POST /edit` moves rows along a named direction. Four faces along "smile", with strengths from -1.5 to 1.5:

![four faces, from a frown to a smile](tour/smile.png)

**Samples.** `GET /sample?n=48&seed=7&temperature=0.8&model=faces` with `Accept: image/png`. The same seed gives the
same faces.

![a grid of 48 sampled faces](tour/samples.png)

**From one row to another.** `POST /edit` moves a 3 to an 8, along the straight line between their latents. Strength 0
is the 3, and strength 1 the 8.

![a 3 becomes an 8](tour/walk.png)

**Along a named direction.** `digits` names a direction for each class. Here four 3s move along "8", with strengths 0
to 4:

![four 3s walk towards 8](tour/direction.png)

**A density.** `POST /logprob` shows rows of two columns on a map of log_prob, in nats. The two rows off the moons are
unusual.

![rows on a density map of two moons](tour/density.png)

**Rows of a table.** `GET /sample?n=400&model=wine` draws wines. The picture shows four of their thirteen columns:

![a pair plot of four columns of drawn wines](tour/wine.png)

**Anomalies, ranked.** Among scikit-learn's 1,797 digits, these are the likeliest under the shipped flow, the likeliest
first:

![the sixteen likeliest digits](tour/likely.png)

These are the least likely, the strangest first. [What a log-density is worth](scores.md) says when such a ranking
misleads.

![the sixteen strangest digits](tour/unlikely.png)
"""


def write(docs: Path = DOCS) -> None:
    """Write the page and its pictures into a folder."""
    server = Server()
    try:
        with Client(server.url) as client:
            drawn = pictures(client)
    finally:
        server.stop()
    (docs / "tour").mkdir(exist_ok=True)
    for name, content in drawn.items():
        (docs / "tour" / name).write_bytes(content)
    (docs / "tour.md").write_text(PAGE)


if __name__ == "__main__":
    write()
