"""``python -m tracegraph`` is the command ``tracegraph``, also where its script is not on the path."""

from tracegraph.cli import main

if __name__ == "__main__":
    main()
