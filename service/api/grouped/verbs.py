"""The verbs of one server, each for many small requests at once."""

from __future__ import annotations

from typing import Final

from service.api.grouped.draws import SampleGroups
from service.api.grouped.groups import GroupVerb
from service.api.grouped.row_verbs import LogProbGroups, TraceGroups, TransformGroups
from service.api.grouped.walks import EditGroups, InterpolateGroups
from service.api.native.backend import Backend
from service.api.native.schemas import DecodeRequest, EncodeRequest
from service.engine.registry import Registry

__all__ = ["GroupVerbs"]


class GroupVerbs:
    """Each verb for many requests, bound to what the server serves.

    Each request gets byte for byte the verb's own answer, or none: what is odd, and what has no plain answer, is left
    to the verb.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values.
    """

    def __init__(self, registry: Registry, max_work: int) -> None:
        backend = Backend(registry, max_work, max_work)
        self.log_prob: Final[GroupVerb] = LogProbGroups(backend)
        self.sample: Final[GroupVerb] = SampleGroups(backend, by_query=False)
        self.sample_by_query: Final[GroupVerb] = SampleGroups(backend, by_query=True)
        self.interpolate: Final[GroupVerb] = InterpolateGroups(backend)
        self.encode: Final[GroupVerb] = TransformGroups(backend, EncodeRequest, "x")
        self.decode: Final[GroupVerb] = TransformGroups(backend, DecodeRequest, "z")
        self.trace: Final[GroupVerb] = TraceGroups(backend)
        self.edit: Final[GroupVerb] = EditGroups(backend)
