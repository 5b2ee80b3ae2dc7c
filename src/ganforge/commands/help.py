"""What `ganforge` and `--help` say: the commands, the groups with their options, and examples to type."""

from __future__ import annotations

from ganforge.commands.options import options

COMMANDS = {
    "train": "train a game from a composed configuration, or go on with a run",
    "evaluate": "score a checkpoint: FID, KID, Inception Score, precision, recall",
    "sample": "make pictures from a checkpoint",
}

EXAMPLES = {
    "train": [
        ("ganforge train", "learn handwritten digits on this machine, in minutes"),
        ("ganforge train loss=hinge penalty=[r1] penalty.r1.gamma=0.5", "other parts, other numbers"),
        ("ganforge train data=image_folder data.root=my_pictures data.image_size=64", "your own pictures"),
        ("ganforge train -m loss=hinge,wasserstein,relativistic seed=0,1,2", "a sweep: nine runs"),
        ("ganforge train resume=outputs/digits/DATE_TIME total_kimg=4000", "go on with a run, for longer"),
    ],
    "evaluate": [
        (
            "ganforge evaluate checkpoint=outputs/digits/DATE_TIME",
            "the run's best checkpoint, by its own metrics",
        ),
        ("ganforge evaluate checkpoint=best.ckpt num_samples=10000", "more samples"),
        ("ganforge evaluate checkpoint=best.ckpt metrics=inception", "figures comparable with papers"),
        ("ganforge evaluate checkpoint=last.ckpt ema=false", "the raw weights, not their average"),
        ("ganforge evaluate -m checkpoint=a.ckpt,b.ckpt", "several"),
    ],
    "sample": [
        ("ganforge sample checkpoint=outputs/digits/DATE_TIME", "64 pictures and one grid"),
        ("ganforge sample checkpoint=best.ckpt num=1000 out=fakes", "a thousand, into a folder"),
        ("ganforge sample checkpoint=best.ckpt labels=[3]", "threes only"),
        ("ganforge sample checkpoint=best.ckpt labels=[0,1,2] num=30", "three classes in turn"),
        ("ganforge sample -m checkpoint=best.ckpt seed=0,1,2", "three seeds, a folder each"),
    ],
}

OWN_KEYS = {
    "train": "experiment name tags seed total_kimg batch_size conditional discriminator_steps accumulate clip_norm ema "
    "workers resume",
    "evaluate": "checkpoint metrics num_samples batch_size seed ema device out trust",
    "sample": "checkpoint num out seed labels batch_size ema device trust",
}


def overview() -> str:
    """The text of `ganforge --help`."""
    commands = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    examples = [
        EXAMPLES["train"][0],
        EXAMPLES["train"][1],
        EXAMPLES["train"][2],
        EXAMPLES["evaluate"][0],
        EXAMPLES["sample"][0],
    ]
    return (
        "ganforge: compose, train, evaluate and sample generative adversarial networks\n\n"
        f"usage: ganforge COMMAND [KEY=VALUE ...]\n\n{commands}\n\n"
        f"Parts that train composes (GROUP=OPTION):\n{_groups()}\n\n"
        f"Examples:\n{_examples(examples)}\n\n"
        "ganforge COMMAND --help says more; ganforge COMMAND --cfg job prints the composed configuration."
    )


def command_help(command: str) -> str:
    """The text of `ganforge COMMAND --help`."""
    groups = _groups() if command == "train" else _groups(only="metrics")
    return (
        f"ganforge {command}: {COMMANDS[command]}\n\n"
        f"usage: ganforge {command} [KEY=VALUE ...] [-m]\n\n"
        f"Settings: {OWN_KEYS[command].replace(' ', ', ')}\n\n"
        + (f"Parts (GROUP=OPTION):\n{groups}\n\n" if command != "sample" else "")
        + f"Examples:\n{_examples(EXAMPLES[command])}\n\n"
        f"The grammar is Hydra's: GROUP=OPTION chooses a part, KEY.SUBKEY=VALUE sets a number in it, -m sweeps over\n"
        f"comma-separated values. ganforge {command} --cfg job prints everything that can be set."
    )


def _examples(examples: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {command}\n      {what}" for command, what in examples)


def _groups(only: str | None = None) -> str:
    groups = {group: names for group, names in options().items() if only in (None, group)}
    return "\n".join(f"  {group:<11}{', '.join(names)}" for group, names in groups.items())
