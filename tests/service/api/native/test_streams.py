from __future__ import annotations

import numpy as np
import pytest

from service.api.codecs.codec import Form
from service.api.codecs.npy import Npy
from service.api.native import streams
from service.api.native.streams import Draw, stream_sample
from service.errors import EngineFailed, NotFinite
from service.plan import Finished, Outputs, advance, run_now

FORM = Form("x", ["x0", "x1", "x2", "x3", "x4"])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(streams, "STREAM_VALUES", 50)  # ten rows of five


def draw(flow, n=25, context=None):
    return Draw(flow, n, seed=3, offset=4, temperature=1.0, context=context)


def reply(made, lead=(25,)):
    return run_now(stream_sample(Npy(), FORM, made, lead, {"Pushforward-Seed": "3"}))


def test_the_pieces_are_the_rows_of_the_whole(flows):
    made = reply(draw(flows["coupling"]))
    pieces = [made.body, *(run_now(plan) for plan in made.rest)]
    whole = run_now(flows["coupling"].sample(25, 3, 4))
    assert b"".join(pieces) == Npy().encode({"x": whole.x}, FORM)
    assert [len(piece) for piece in pieces[1:]] == [10 * 5 * 4, 5 * 5 * 4]
    assert (made.media_type, made.headers) == ("application/x-npy", {"Pushforward-Seed": "3"})


def test_one_context_comes_after_the_other(flows):
    contexts = np.float32([[0, 0], [1, 2]])
    made = reply(draw(flows["conditional"], 20, contexts), (2, 20))
    body = b"".join([made.body, *(run_now(plan) for plan in made.rest)])
    assert body == Npy().encode({"x": run_now(flows["conditional"].sample(20, 3, 4, 1.0, contexts)).x}, FORM)


def test_only_the_first_piece_can_be_refused_for_want_of_room(flows):
    first = advance(stream_sample(Npy(), FORM, draw(flows["coupling"]), (25,), {}))
    assert first.bounded
    later = [advance(plan) for plan in reply(draw(flows["coupling"])).rest]
    assert [step.bounded for step in later] == [False, False]


def test_an_error_of_a_run_is_the_error_of_its_piece(flows):
    (plan, *_) = reply(draw(flows["coupling"])).rest
    advance(plan)
    with pytest.raises(EngineFailed, match="of the run"):
        advance(plan, EngineFailed("of the run"))


def test_a_row_that_has_no_float32_ends_its_piece(flows):
    (plan, *_) = reply(Draw(flows["coupling"], 25, 3, 4, 2.0, None)).rest
    step = advance(plan)
    rows = np.full((len(step.rows), 5), np.nan, np.float32)
    with pytest.raises(NotFinite):
        advance(plan, Outputs(rows, rows[:, 0], rows[:, 0]))


def test_nothing_is_drawn_before_it_is_asked_for(flows):
    endless = reply(draw(flows["coupling"], 10**12), (10**12,))
    assert not isinstance(advance(next(iter(endless.rest))), Finished)
