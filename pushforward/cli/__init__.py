"""The command line: `pushforward COMMAND`.

The commands themselves lie in `pushforward.commands`. This package holds what they share.
"""

from pushforward.cli.group import COMMANDS, cli, main

__all__ = ["COMMANDS", "cli", "main"]
