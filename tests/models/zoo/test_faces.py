"""The shipped faces: walks between them, and directions, read back by a regressor of the generator's parameters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from models.data.faces import PARAMETERS, SIZE, draw, draw_faces
from models.zoo.build import ZOO
from pushforward import Client
from service.bundle.store import Bundle, Repository, read_bundle
from tests.server import Server

NAMES = list(PARAMETERS)
LOW, HIGH = (np.array([parameter[at] for parameter in PARAMETERS.values()]) for at in range(2))
FITTED, EPOCHS, WALKS, STEPS = 24_000, 16, 24, 9

GAIN = 0.1
"""In bits per dimension."""

Floats = npt.NDArray[np.float64]


class Reader:
    """Reads the parameters of faces: a network fitted to drawings, its answers in shares of each parameter's range."""

    def __init__(self) -> None:
        pictures, parameters = draw_faces(FITTED, seed=77)
        x, y = self._seen(pictures), torch.from_numpy((parameters - LOW) / (HIGH - LOW)).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(
                nn.Linear(SIZE * SIZE, 512), nn.SiLU(), nn.Linear(512, 256), nn.SiLU(), nn.Linear(256, len(NAMES))
            )
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=0.01)
            steps = EPOCHS * (FITTED // 128)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
            for _ in range(EPOCHS):
                for rows in torch.split(torch.randperm(FITTED)[: FITTED // 128 * 128], 128):
                    loss = (self.network(x[rows]) - y[rows]).square().sum(dim=1).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()

    def __call__(self, pictures: npt.ArrayLike) -> Floats:
        """Pictures ``[N, 32, 32, 1]`` -> parameters ``[N, P]``, from 0 to 1."""
        with torch.no_grad():
            read = self.network(self._seen(np.asarray(pictures))).double().numpy()
        return np.asarray(np.clip(read, 0.0, 1.0))

    def distance(self, pictures: npt.ArrayLike) -> Floats:
        """How far each picture is from what is drawn of the parameters that are read off it: ``[N]``, of 255."""
        drawn = draw(LOW + self(pictures) * (HIGH - LOW))
        return np.asarray(np.sqrt(np.square(np.asarray(pictures, np.float64) - drawn).mean(axis=(1, 2, 3))))

    @staticmethod
    def _seen(pictures: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.asarray(pictures, np.float32).reshape(len(pictures), -1) / 128 - 1)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    server = Server()
    try:
        with Client(server.url, model="faces") as made:
            yield made
    finally:
        server.stop()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(Repository(ZOO).path("faces"))


def held_out(count: int) -> tuple[npt.NDArray[np.float32], Floats]:
    pictures, parameters = draw_faces(count, seed=99)
    return pictures.astype(np.float32), (parameters - LOW) / (HIGH - LOW)


def test_the_bundle_is_small_and_ahead_of_a_gaussian(bundle: Bundle) -> None:
    folder = Repository(ZOO).path("faces")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6_000_000
    manifest = bundle.manifest
    assert manifest.event_shape == [SIZE, SIZE, 1]
    assert set(manifest.directions) == {"smile", "glasses", "turn", "hair", "beard"}
    assert manifest.calibration.gaussian_mean is not None
    bits = (manifest.calibration.mean - manifest.calibration.gaussian_mean) / manifest.event_width / np.log(2)
    assert bits > GAIN


@pytest.mark.slow
def test_every_frame_of_a_walk_is_a_face(reader: Reader, client: Client) -> None:
    faces, _ = held_out(400)
    usual = float(reader.distance(faces).mean())
    frames = walks(client, faces)
    distance = reader.distance(frames.reshape(-1, SIZE, SIZE, 1))
    assert distance.mean() <= 1.5 * usual
    assert np.quantile(distance, 0.95) <= 1.5 * np.quantile(reader.distance(faces), 0.95)


@pytest.mark.slow
def test_nine_steps_of_ten_of_a_walk_go_one_way_within_noise(reader: Reader, client: Client) -> None:
    faces, truth = held_out(400)
    noise = np.sqrt(np.square(reader(faces) - truth).mean(axis=0))
    frames = walks(client, faces)
    read = reader(frames.reshape(-1, SIZE, SIZE, 1)).reshape(WALKS, STEPS, -1)
    towards = np.sign(read[:, -1] - read[:, 0])[:, None]
    back = np.maximum(-(np.diff(read, axis=1) * towards), 0.0) / noise
    assert np.quantile(back, 0.9) < 1.0


@pytest.mark.slow
def test_smile_moves_the_mouth_and_little_else(reader: Reader, client: Client) -> None:
    faces, _ = held_out(100)
    moved = client.edit(faces, direction="smile", strength=[-1.0, 1.0])
    before, after = (reader(x) for x in moved.x)
    change = (after - before).mean(axis=0)
    smile = NAMES.index("smile")
    assert change[smile] == np.abs(change).max()
    assert change[smile] > 0.1
    assert np.abs(np.delete(change, smile)).max() < 0.2


def walks(client: Client, faces: npt.NDArray[np.float32]) -> Floats:
    """Straight walks between pairs of faces ``[WALKS, STEPS, 32, 32, 1]``."""
    pairs = faces[: 2 * WALKS].reshape(WALKS, 2, SIZE, SIZE, 1)
    return np.asarray(client.interpolate(pairs, steps=STEPS, path="linear").x, np.float64)
