"""Where Hydra looks for launchers."""

from ganforge.commands.sweep import SweepInProcesses


class Processes(SweepInProcesses):
    """See there."""
