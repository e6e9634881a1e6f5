"""`python -m pushforward` is `pushforward`."""

from pushforward.cli import main

if __name__ == "__main__":
    main()
