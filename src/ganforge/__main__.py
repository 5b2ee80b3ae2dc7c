"""The entry point: `ganforge COMMAND [overrides]`, and `python -m ganforge`."""

from ganforge.commands.application import main

if __name__ == "__main__":
    raise SystemExit(main())
