from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from service.engine.runtime import ort_graph as runtime
from service.engine.runtime.graph import CpuGraph
from service.errors import BundleError
from tests.service.bundles import affine, bundle, coupling, image, square

SIZES = [1, 2, 3, 4, 5, 7, 13, 64, 255]


def in_batches(graph, rows, size):
    runs = [graph(rows[at : at + size], None).arrays for at in range(0, len(rows), size)]
    return [np.concatenate(arrays) for arrays in zip(*runs, strict=True)]


def differing(graph, rows):
    """How many outputs depend on the size of the batch."""
    whole = in_batches(graph, rows, len(rows))
    return sum((a != b).sum() for size in SIZES for a, b in zip(in_batches(graph, rows, size), whole, strict=True))


@pytest.mark.parametrize("made", [square, image, affine, *(lambda w=w: coupling(width=w) for w in (2, 3, 5, 8))])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_row_has_the_same_bits_in_every_batch(tmp_path, made, direction):
    parts = made()
    manifest = parts.manifest
    shape = manifest.event_shape if direction == "forward" else [manifest.latent_width]
    rows = np.random.default_rng(0).uniform(0.01, 2, size=(300, *shape)).astype(np.float32)
    assert differing(CpuGraph(bundle(tmp_path, parts), direction), rows) == 0


def test_without_padding_it_would_not(tmp_path, monkeypatch):
    # A logarithm takes another way through the last values of an array: this is what the padding is for.
    rows = np.random.default_rng(0).uniform(0.01, 4, size=(300, 1)).astype(np.float32)
    graph = CpuGraph(bundle(tmp_path, square()), "forward")
    monkeypatch.setattr(runtime, "BATCH_MULTIPLE", 1)
    if differing(graph, rows) == 0:
        pytest.skip("this processor's vector units take one way through all values")


def test_outputs_have_as_many_rows_as_were_given(tmp_path):
    graph = CpuGraph(bundle(tmp_path, affine(context_width=3)), "forward")
    outputs = graph(np.zeros((5, 2), np.float32), np.zeros((5, 3), np.float32))
    assert [array.shape for array in outputs.arrays] == [(5, 2), (5,), (5,)]
    assert all(array.dtype == np.float32 for array in outputs.arrays)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_answer_stays_what_it_is_when_the_next_batch_runs(tmp_path, count):
    graph = CpuGraph(bundle(tmp_path, coupling(width=3)), "forward")
    first, second = np.random.default_rng(0).normal(size=(2, count, 3)).astype(np.float32)
    answer = graph(first, None)
    before = [array.tobytes() for array in answer.arrays]
    other = graph(second, None)
    assert [array.tobytes() for array in answer.arrays] == before
    assert [array.tobytes() for array in other.arrays] != before


def test_single_rows_on_several_threads_get_their_own_answers(tmp_path):
    graph = CpuGraph(bundle(tmp_path, coupling(width=3)), "forward")
    rows = np.random.default_rng(0).normal(size=(8, 200, 3)).astype(np.float32)
    expected = [graph(part, None).log_prob.tobytes() for part in rows]
    found = {}
    together = threading.Barrier(len(rows))

    def ask(number):
        together.wait()
        found[number] = b"".join(graph(rows[number, i : i + 1], None).log_prob.tobytes() for i in range(200))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(rows))] == expected


@pytest.mark.parametrize("count", [1, 4, 6])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_a_batch_knows_whether_all_of_it_is_finite(tmp_path, count, output):
    # x = z^2 overflows, and so does the log-density's argument; a row far outside the support has log_prob -inf
    rows = np.full((count, 1), 0.5, np.float32)
    graph = CpuGraph(bundle(tmp_path, square()), "inverse" if output == 0 else "forward")
    assert graph(rows, None).finite
    rows[-1] = 3e38 if output == 0 else -1.0
    outputs = graph(rows, None)
    assert not outputs.finite
    assert not all(np.isfinite(array).all() for array in outputs.arrays)


@pytest.mark.parametrize("output", [0, 1, 2])
def test_a_larger_batch_is_looked_at_whole(tmp_path, monkeypatch, output):
    graph = CpuGraph(bundle(tmp_path, affine()), "forward")
    run = graph._session.run

    def spoiled(*given):
        outputs = run(*given)
        outputs[output][5] = np.nan
        return outputs

    assert graph(np.zeros((6, 2), np.float32), None).finite
    monkeypatch.setattr(graph._session, "run", spoiled)
    assert not graph(np.zeros((6, 2), np.float32), None).finite


def test_strided_rows_and_contexts_are_taken(tmp_path):
    parts = affine(context_width=3)
    graph = CpuGraph(bundle(tmp_path, parts), "forward")
    rows = np.asfortranarray(np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32))
    context = np.broadcast_to(np.float32([[1, 2, 3]]), (8, 3))
    for count in (8, 3):
        found = graph(rows[:count], context[:count]).log_prob
        np.testing.assert_allclose(found, parts.log_prob(rows, context)[:count], rtol=1e-5)


def test_bytes_that_are_no_graph_are_refused_without_a_word_from_the_library(tmp_path):
    broken = dataclasses.replace(bundle(tmp_path, affine()), graphs={"forward.onnx": b"\x08\x09nonsense"})
    with pytest.raises(BundleError, match=r"^ONNX Runtime cannot load forward\.onnx$"):
        CpuGraph(broken, "forward")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("inverse", r"inputs \['x'\], and has \['z'\]"),
        ("wider", r"input x must be float32 of shape \['N', 2\]"),
        ("conditional", r"inputs \['x'\], and has \['x', 'context'\]"),
        ("image", r"input x must be float32 of shape \['N', 2\]"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(tmp_path, graph, message):
    other = {
        "inverse": affine().files["inverse.onnx"],
        "wider": affine(event_shape=(3,)).files["forward.onnx"],
        "conditional": affine(context_width=1).files["forward.onnx"],
        "image": image().files["forward.onnx"],
    }[graph]
    wrong = dataclasses.replace(bundle(tmp_path, affine()), graphs={"forward.onnx": other})
    with pytest.raises(BundleError, match=message):
        CpuGraph(wrong, "forward")
