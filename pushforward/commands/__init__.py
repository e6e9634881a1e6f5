"""One module for each command of `pushforward`; each defines `command`."""
