"""Answers that are pictures: what is in their pixels, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.api.codecs.png import Png
from service.errors import UnsupportedMediaType
from service.pictures.colours import DARK, PALE
from service.pictures.options import GAP, MAX_ROWS, MAX_WALKS
from tests.service.api.native.replies import problem
from tests.service.scraped import Scraped

PNG = {"accept": "image/png"}
INSIDE = np.linspace(0.1, 0.9, 12).reshape(2, 2, 3, 1).tolist()


def picture(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image).astype(int)


def levels(x):
    """The grey levels of images of the repository, whose values are quantized from 0 to 4."""
    return np.rint(np.clip(np.asarray(x) / 4, 0, 1) * 255).astype(int)


def cell(pixels, row, column, shape):
    top, left = GAP + row * (shape[0] + GAP), GAP + column * (shape[1] + GAP)
    return pixels[top : top + shape[0], left : left + shape[1]]


def test_a_cell_of_a_grid_is_a_row_of_the_sample(client):
    given = {"n": 5, "seed": 3}
    x = np.array(client.get("/models/image/sample", params=given).json()["x"])
    answer = client.get("/models/image/sample", params={**given, "columns": 2, "size": 6}, headers=PNG)
    pixels = picture(answer)
    assert pixels.shape == (3 * (4 + GAP) + GAP, 2 * (6 + GAP) + GAP, 3)
    for at in range(5):
        shown = np.repeat(np.repeat(levels(x[at]), 2, axis=0), 2, axis=1)
        np.testing.assert_array_equal(cell(pixels, at // 2, at % 2, (4, 6)), np.broadcast_to(shown, (4, 6, 3)))
    assert (cell(pixels, 2, 1, (4, 6)) == PALE).all()
    assert answer.headers["pushforward-seed"] == "3"
    assert answer.headers["pushforward-model"] == "image"


def test_the_same_request_gives_the_same_bytes(client):
    asked = [client.post("/logprob", json={"x": [[0.5, 0.2]]}, headers=PNG).content for _ in range(2)]
    assert asked[0] == asked[1]


def test_a_grid_is_near_square_where_nobody_says(client):
    pixels = picture(client.post("/models/image/sample", json={"n": 5, "seed": 3}, headers=PNG))
    assert pixels.shape == (2 * (44 + GAP) + GAP, 3 * (66 + GAP) + GAP, 3)


def test_decoded_latents_are_the_grid_of_their_data(client):
    z = np.linspace(-1, 1, 12).reshape(2, 6).tolist()
    x = client.post("/models/image/decode", json={"z": z}).json()["x"]
    pixels = picture(client.post("/models/image/decode", json={"z": z, "size": 3}, headers=PNG))
    np.testing.assert_array_equal(cell(pixels, 0, 1, (2, 3)), np.broadcast_to(levels(x[1]), (2, 3, 3)))


def test_a_path_is_a_strip_for_each_segment(client):
    points = [*INSIDE, INSIDE[0]]
    body = {"points": points, "steps": 4}
    x = client.post("/models/image/interpolate", json=body).json()["x"]
    pixels = picture(client.post("/models/image/interpolate", json={**body, "size": 3}, headers=PNG))
    assert pixels.shape == (2 * (2 + GAP) + GAP, 4 * (3 + GAP) + GAP, 3)
    for segment in range(2):
        for step in range(4):
            found = cell(pixels, segment, step, (2, 3))
            np.testing.assert_array_equal(found, np.broadcast_to(levels(x[3 * segment + step]), (2, 3, 3)))


def test_an_edit_is_a_strip_for_each_row(client):
    body = {"x": INSIDE, "direction": [1.0, 0, 0, 0, 0, 0], "strength": [-1, 0, 1]}
    x = client.post("/models/image/edit", json=body).json()["x"]
    pixels = picture(client.post("/models/image/edit", json={**body, "size": 3}, headers=PNG))
    assert pixels.shape == (2 * (2 + GAP) + GAP, 3 * (3 + GAP) + GAP, 3)
    np.testing.assert_array_equal(cell(pixels, 1, 2, (2, 3)), np.broadcast_to(levels(x[2][1]), (2, 3, 3)))


def test_a_map_is_brighter_where_the_density_is_higher(client, parts):
    # A row far out to the right stretches the map, so that the flow's own place lies left of its middle.
    mean, _ = parts["two-moons"].inverse(np.zeros((1, 2)), None)
    rows = [[mean[0][0] + 30.0, mean[0][1]]]
    pixels = picture(client.post("/logprob", json={"x": rows, "size": 400}, headers=PNG))
    assert pixels.shape == (400, 400, 3)
    panel = pixels[20:350, 66:316].sum(axis=2)
    bright = np.argwhere(panel > panel.min() + 0.6 * (panel.max() - panel.min()))
    assert bright[:, 1].min() < 60
    assert panel[:, 100:200].max() < panel[:, :60].max()


def test_rows_of_density_zero_stand_out(client):
    inside = picture(client.post("/models/square/logprob", json={"x": [[1.0]]}, headers=PNG))
    outside = picture(client.post("/models/square/logprob", json={"x": [[1.0], [9.0]]}, headers=PNG))
    red = lambda pixels: int(((pixels[..., 0] > 180) & (pixels[..., 1] < 110)).sum())  # noqa: E731
    assert red(inside) == 0
    assert red(outside) > 10


def test_a_table_of_several_columns_is_a_pair_plot(client):
    x = np.random.default_rng(0).normal(size=(40, 5)).tolist()
    pixels = picture(client.post("/models/coupling/logprob", json={"x": x}, headers=PNG))
    assert pixels.shape == (900, 900, 3)
    fewer = picture(client.post("/models/coupling/logprob", json={"x": x, "columns": 3, "size": 400}, headers=PNG))
    assert fewer.shape == (400, 400, 3)
    walk = {"points": x[:3], "steps": 4, "columns": 2}
    assert picture(client.post("/models/coupling/interpolate", json=walk, headers=PNG)).shape == (480, 480, 3)


def test_rows_of_several_contexts_have_no_map_in_common(client):
    x = np.zeros((2, 3)).tolist()
    one = {"x": x, "context": [0.5, 1.0]}
    several = {"x": x, "context": [[0.5, 1.0], [1.0, 0.0]]}
    for body in (one, several):
        picture(client.post("/models/conditional/logprob", json=body, headers=PNG))
    sampled = {"n": 4, "seed": 1, "context": several["context"]}
    picture(client.post("/models/conditional/sample", json=sampled, headers=PNG))


@pytest.mark.parametrize("accept", ["image/png", "image/*", "image/avif,image/webp,image/*,*/*;q=0.8"])
def test_an_image_tag_gets_a_picture(client, accept):
    picture(client.get("/sample?n=20&seed=1", headers={"accept": accept}))


@pytest.mark.parametrize("accept", ["text/html,image/avif,image/webp,*/*;q=0.8", "image/jpeg,application/json;q=0.1"])
def test_a_browser_that_would_take_anything_gets_json(client, accept):
    assert "x" in client.get("/sample?seed=1", headers={"accept": accept}).json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/encode", {"x": [[0.5, 0.2]]}),
        ("/trace", {"x": [[0.5, 0.2]]}),
        ("/weights", {"n": 2, "seed": 1, "log_target": [0.0, 0.0]}),
    ],
)
def test_where_there_is_no_picture_none_is_acceptable(client, path, body):
    code, detail, _ = problem(client.post(path, json=body, headers=PNG), 406)
    assert code == "not_acceptable"
    assert "image/png" not in detail.split("accept ")[1]
    both = client.post(path, json=body, headers={"accept": "image/png,application/json;q=0.5"})
    assert both.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/models", "/models/two-moons", "/models/two-moons/versions/1"])
def test_there_is_no_picture_of_a_flow(client, path):
    assert problem(client.get(path, headers=PNG), 406)[0] == "not_acceptable"
    assert client.get(path, headers={"accept": "image/png,*/*;q=0.1"}).status_code == 200


def test_a_picture_is_never_read(client):
    drawn = client.get("/sample?n=3&seed=1", headers=PNG).content
    code, detail, _ = problem(client.post("/logprob", content=drawn, headers={"content-type": "image/png"}), 415)
    assert code == "unsupported_media_type"
    assert "never read" in detail
    with pytest.raises(UnsupportedMediaType):
        Png().decode(drawn, "x")


@pytest.mark.parametrize(
    ("path", "given", "loc", "said"),
    [
        ("/models/image/sample", {"n": 10_000}, ["query", "n"], "4194304"),
        ("/models/image/sample", {"n": 3, "size": 2048}, ["query", "size"], "smaller size"),
        ("/models/image/sample", {"size": 0}, ["query", "size"], "greater than"),
        ("/models/image/sample", {"size": 5000}, ["query", "size"], "2048"),
        ("/models/image/sample", {"columns": 0}, ["query", "columns"], "greater than"),
        ("/sample", {"n": MAX_ROWS + 1}, ["query", "n"], f"at most {MAX_ROWS} rows"),
        ("/sample", {"size": 20}, ["query", "size"], "240 to 2048"),
        ("/models/coupling/sample", {"size": 300}, ["query", "size"], "5 columns of a table is 580 to 2048"),
        ("/sample", {"columns": 2}, ["query", "columns"], "no columns to choose"),
        ("/models/coupling/sample", {"columns": 6}, ["query", "columns"], "2 to 5 columns"),
        ("/sample", {"return": "round_trip_error"}, ["query", "return"], "image/png has room"),
    ],
)
def test_a_picture_has_its_limits(client, path, given, loc, said):
    _, detail, errors = problem(client.get(path, params=given, headers=PNG))
    assert said in detail
    assert errors[0]["loc"] == loc


@pytest.mark.parametrize(
    ("path", "main", "body"),
    [
        ("/edit", "x", {"x": [[0.0, 0.5]] * (MAX_WALKS + 1), "direction": [1.0, 0.0], "strength": [0.0]}),
        ("/interpolate", "points", {"points": [[[0.0, 0.5], [1.0, 0.0]]] * (MAX_WALKS + 1), "steps": 2}),
    ],
)
def test_walks_of_a_table_have_their_limit(client, path, main, body):
    _, detail, errors = problem(client.post(path, json=body, headers=PNG))
    assert f"at most {MAX_WALKS} walks, and these are {MAX_WALKS + 1}" in detail
    assert errors[0]["loc"] == ["body", main]


def test_columns_of_a_strip_are_its_steps(client):
    body = {"points": INSIDE, "steps": 4, "columns": 2}
    _, detail, errors = problem(client.post("/models/image/interpolate", json=body, headers=PNG))
    assert "each of its 4 steps" in detail
    assert errors[0]["loc"] == ["body", "columns"]


@pytest.mark.parametrize(("path", "point"), [("/models/image", INSIDE[0]), ("", [0.5, 0.2])])
def test_a_walk_from_one_point_is_refused_also_as_a_picture(client, path, point):
    code, _, errors = problem(client.post(path + "/interpolate", json={"points": [point]}, headers=PNG))
    assert (code, errors[0]["loc"]) == ("wrong_shape", ["body", "points"])


@pytest.mark.parametrize("name", ["columns", "size"])
def test_what_belongs_to_a_picture_is_refused_without_one(client, name):
    for answer in (
        client.get("/sample", params={name: 300}),
        client.post("/edit", json={"x": [[0, 0]], "direction": [1, 0], "strength": [1], name: 300}),
    ):
        _, detail, errors = problem(answer)
        assert "accept image/png" in detail
        assert errors[0]["loc"][1] == name


def test_a_map_counts_in_the_work_budget(serving):
    small = serving(max_work=20_000)
    assert small.post("/logprob", json={"x": [[0.5, 0.2]]}).status_code == 200
    assert problem(small.post("/logprob", json={"x": [[0.5, 0.2]]}, headers=PNG))[0] == "over_work_budget"


def test_the_map_is_darkest_outside_the_support():
    assert sum(DARK) < min(68 + 1 + 84, 100)


def test_the_points_of_a_map_are_not_counted_as_served(serving):
    fresh = serving()
    name = "pushforward_log_prob_quantile_count"

    def counted():
        scraped = Scraped(fresh.get("/metrics").text)
        return [
            scraped.total(name, flow="two-moons", version=2, direction=direction)
            for direction in ("forward", "inverse")
        ]

    assert fresh.get("/health/ready").status_code == 200
    before = counted()
    picture(fresh.post("/logprob", json={"x": [[0.5, 0.2]]}, headers=PNG))
    assert counted() == [before[0] + 1, before[1]]
