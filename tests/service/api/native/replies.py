"""Helpers of the verbs' tests: what an error says, and a body of type application/x-npy."""

from __future__ import annotations

import io

import numpy as np

__all__ = ["npy", "problem"]


def problem(answer, status=422):
    """Code, detail and reasons of an error."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    return document["code"], document["detail"], document.get("errors")


def npy(array):
    """An array as a body."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()
