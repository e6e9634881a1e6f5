"""`python -m pushforward` is `pushforward`."""

from pushforward.cli.group import main

if __name__ == "__main__":
    main()
