"""The answers of the client, under their public name: all of `pushforward.client.answers`."""

from pushforward.client.answers import *  # noqa: F403
from pushforward.client.answers import __all__  # noqa: F401  makes `import *` of this module the same
