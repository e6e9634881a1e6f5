"""The errors of the client, under their public name: all of `pushforward.client.errors`."""

from pushforward.client.errors import *  # noqa: F403
from pushforward.client.errors import __all__  # noqa: F401  makes `import *` of this module the same
