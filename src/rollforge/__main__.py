"""`python -m rollforge`: the command, where its script is not on the path."""

from rollforge.cli.main import main

if __name__ == "__main__":
    main()
