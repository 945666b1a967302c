"""Run `python -m spoofkit`, as torchrun starts it."""

from spoofkit.cli.main import main

if __name__ == "__main__":
    main()
