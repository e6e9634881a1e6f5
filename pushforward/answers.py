"""What the client gives back, under its public name: all of it is `pushforward.client.answers`."""

from pushforward.client.answers import *  # noqa: F403
from pushforward.client.answers import __all__  # noqa: F401  makes `import *` of this module the same
