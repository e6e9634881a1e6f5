"""The answers of the client, under their public name."""

from pushforward.client import answers, posterior_answers
from pushforward.client.answers import *  # noqa: F403
from pushforward.client.posterior_answers import *  # noqa: F403

__all__ = [*answers.__all__, *posterior_answers.__all__]  # noqa: PLE0604  names
