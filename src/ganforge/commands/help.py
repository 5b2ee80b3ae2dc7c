"""What `ganforge` and `--help` say: the commands, the groups with their options, and examples to type."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ganforge.commands.options import options

COMMANDS = {
    "train": "train a game from a composed configuration, or go on with a run",
    "evaluate": "score a checkpoint, another generator or any images: FID, KID, precision, recall and more",
    "sample": "make pictures from a checkpoint",
    "prepare": "bring a folder or ZIP of images to one size, as shards for more data than memory, or as a ZIP",
    "profile": "say where a round's time, memory and arithmetic go, for what train would run",
    "report": "make a page about runs and sweeps, one HTML file or served live: figures, curves, samples, settings",
    "compare": "hold runs against one another, seeds together: means, spreads, significance",
    "zoo": "list the recipes: paper, parts, parameters, data, expected and measured result",
    "dashboard": "make the project's workspace on Weights & Biases",
}

EXAMPLES = {
    "train": [
        ("ganforge train", "learn handwritten digits on this machine, in minutes"),
        ("ganforge train loss=hinge penalty=[r1] penalty.r1.gamma=0.5", "other parts, other numbers"),
        ("ganforge train data=image_folder data.root=my_pictures data.image_size=64", "your own pictures"),
        ("ganforge train -m loss=hinge,wasserstein,relativistic seed=0,1,2", "a sweep: nine runs"),
        (
            "ganforge train sweep=optuna sweep.n_trials=40 sweep.n_jobs=2 loss=hinge,wasserstein "
            "'optimizer.generator.lr=tag(log,interval(1e-4,1e-2))'",
            "a search: 40 runs, two at a time, by their FID; the same command goes on with it",
        ),
        (
            "ganforge train init=RUN data=image_folder data.root=few freeze_discriminator=2",
            "from another run's weights",
        ),
        (
            "ganforge train callbacks.health.checks.mode_collapse.action=stop",
            "end a run that collapses, docs/health.md",
        ),
        ("ganforge train resume=outputs/digits/DATE_TIME total_kimg=4000", "go on with a run, for longer"),
    ],
    "evaluate": [
        (
            "ganforge evaluate checkpoint=outputs/digits/DATE_TIME",
            "the run's best checkpoint, by its own metrics",
        ),
        (
            "ganforge evaluate generated=my_samples real=my_photos metrics.extractor=inception",
            "two folders, no checkpoint anywhere",
        ),
        (
            "ganforge evaluate generated=g.onnx real=cifar10 real.split=test real.root=data seeds=5",
            "a generator made elsewhere, against a data set's split",
        ),
        (
            "ganforge evaluate real=my_photos save_stats=photos.npz metrics.extractor=inception",
            "mean and covariance, for later: real=photos.npz",
        ),
        (
            "ganforge evaluate checkpoint=RUN metrics.compute=[fid,memorisation] neighbours=8",
            "other figures, and a picture",
        ),
        (
            "ganforge evaluate checkpoint=RUN metrics=inception bootstrap=200 processes=2",
            "intervals; two processes",
        ),
        (
            "ganforge evaluate checkpoint=last.ckpt ema=false num_samples=10000",
            "the raw weights, more samples",
        ),
        ("ganforge evaluate -m checkpoint=a.ckpt,b.ckpt", "several"),
    ],
    "sample": [
        ("ganforge sample checkpoint=outputs/digits/DATE_TIME", "64 pictures and one grid"),
        ("ganforge sample checkpoint=best.ckpt num=1000 out=fakes", "a thousand, into a folder"),
        ("ganforge sample checkpoint=best.ckpt labels=[3]", "threes only"),
        ("ganforge sample checkpoint=best.ckpt labels=[0,1,2] num=30", "three classes in turn"),
        (
            "ganforge sample checkpoint=best.ckpt truncation=0.7 balanced=true",
            "fewer outliers, as many of each class",
        ),
        ("ganforge sample checkpoint=best.ckpt sampling=ddls", "with the discriminator's help"),
        ("ganforge sample -m checkpoint=best.ckpt seed=0,1,2", "three seeds, a folder each"),
    ],
    "prepare": [
        ("ganforge prepare my_pictures out=shards image_size=64", "shards in a folder, for data=streaming"),
        ("ganforge prepare my_pictures out=grey channels=1 num_classes=0", "in grey, without their classes"),
        (
            "ganforge prepare my_pictures out=pictures.zip image_size=64",
            "one ZIP file, for data=image_folder",
        ),
        (
            "ganforge prepare photos.zip out=shards image_size=128 resize=pad",
            "black borders instead of cropping",
        ),
        ("ganforge prepare my_pictures out=shards skip_broken=true workers=16", "go on past damaged files"),
    ],
    "profile": [
        ("ganforge profile", "the digits, on this machine"),
        (
            "ganforge profile experiment=sngan_cifar10 data.root=data fast.all=true",
            "a recipe with the fast settings",
        ),
        (
            "ganforge profile model=sngan data.image_size=32 penalty=[r1] penalty.r1.every=16",
            "what a penalty costs",
        ),
        ("ganforge profile batch_size=256 largest_batch=true", "the largest batch size that fits as well"),
        ("ganforge profile rounds=64 out=my_profile", "more rounds, into a folder of your choice"),
        ("ganforge profile -m fast.all=false,true", "before and after"),
    ],
    "report": [
        ("ganforge report", "all runs below outputs, in report.html"),
        ("ganforge report outputs/digits/DATE_TIME_sweep out=sweep.html", "one sweep"),
        ("ganforge report outputs/digits outputs/grid_gan title=Comparison", "several folders on one page"),
        ("ganforge report --watch", "served on this machine, and up to date while runs train"),
        ("ganforge report outputs/digits watch=true port=0", "one experiment, at any port that is free"),
    ],
    "compare": [
        (
            "ganforge compare outputs/digits/DATE_TIME_sweep",
            "a sweep, a row for all seeds of a configuration",
        ),
        ("ganforge compare RUN_A RUN_B figures=[fid,recall]", "two runs by two figures"),
        (
            "ganforge compare outputs/digits baseline=outputs/digits/DATE_TIME",
            "against one run's configuration",
        ),
        ("ganforge compare outputs/digits format=latex out=table.tex", "a table for a paper"),
        ("ganforge compare outputs/digits format=csv", "every digit, for other programs"),
    ],
    "zoo": [
        ("ganforge zoo", "every recipe"),
        ("ganforge zoo biggan_cifar10", "one, in full"),
        ("ganforge zoo markdown=true out=zoo.md", "the page docs/zoo.md"),
        ("ganforge zoo sngan_cifar10 markdown=true", "one as a row of its table"),
        ("ganforge zoo out=zoo.txt", "the list, into a file"),
    ],
    "dashboard": [
        ("ganforge dashboard", "of the project ganforge; printed as JSON where nobody is logged in"),
        ("ganforge dashboard entity=my_team project=faces", "of a team's project"),
        ("ganforge dashboard group=2026-11-30_10-00-00_sweep name='learning rates'", "of one sweep"),
        (
            "ganforge dashboard figure=kid_mean parameters=[batch_size,parts.loss]",
            "another figure, other settings",
        ),
        ("ganforge dashboard out=workspace.json", "into a file, without a server"),
    ],
}

OWN_KEYS = {
    "train": "experiment name tags seed total_kimg batch_size conditional discriminator_steps accumulate clip_norm ema "
    "stop workers fast init freeze_discriminator held_out resume",
    "evaluate": "checkpoint generated real held_out num_samples batch_size seed seeds bootstrap ema batch_norm "
    "truncation truncation_psi balanced latent_dim num_classes image_size device processes save_stats neighbours out "
    "trust",
    "sample": "checkpoint num out seed labels balanced batch_size ema batch_norm truncation truncation_psi "
    "device trust",
    "prepare": "source out format image_size channels num_classes resize skip_broken workers shard_mb",
    "zoo": "name markdown out",
    "dashboard": "project entity name group figure parameters out",
    "report": "runs out title watch port",
    "compare": "runs figures baseline confidence resamples seed format out",
}
OWN_KEYS["profile"] = OWN_KEYS["train"].removesuffix(" resume") + " warmup rounds out only largest_batch"

BARE = {
    "prepare": "SOURCE out=PATH ",
    "zoo": "[NAME] ",
    "report": "[FOLDER ...] ",
    "compare": "[FOLDER ...] ",
}  # what a usage line has before KEY=VALUE
SWEEP_KEYS = "n_trials n_jobs seeds metric study storage seed dead_after_seconds params"

BARE = {"prepare": "SOURCE out=PATH ", "zoo": "[NAME] "}  # what a usage line has before KEY=VALUE


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
        f"Parts that train composes (GROUP=OPTION):\n{_groups(leave_out=('sampling',))}\n\n"
        f"Examples:\n{_examples(examples)}\n\n"
        "ganforge COMMAND --help says more; ganforge COMMAND --cfg job prints the composed configuration."
    )


def command_help(command: str) -> str:
    """The text of `ganforge COMMAND --help`."""
    groups = (
        _groups(leave_out=("sampling",))
        if command in ("train", "profile")
        else _groups(
            only=("sampling",) if command == "sample" else ("metrics", "metrics/compute", "data", "sampling")
        )
    )
    fast = "fast" in OWN_KEYS[command].split()
    return (
        f"ganforge {command}: {COMMANDS[command]}\n\n"
        f"usage: ganforge {command} {BARE.get(command, '')}[KEY=VALUE ...] [-m]\n\n"
        + textwrap.fill(f"Settings: {OWN_KEYS[command].replace(' ', ', ')}", 118, subsequent_indent=" " * 10)
        + (_of_a_sweep() if command == "train" else "")
        + (
            "\n\nfast.all=true takes every setting for speed that is safe for the device: docs/speed.md"
            if fast
            else ""
        )
        + "\n\n"
        + (f"Parts (GROUP=OPTION):\n{groups}\n\n" if command in ("train", "evaluate", "sample") else "")
        + f"Examples:\n{_examples(EXAMPLES[command])}\n\n"
        f"The grammar is Hydra's: GROUP=OPTION chooses a part, KEY.SUBKEY=VALUE sets a number in it, -m sweeps over\n"
        f"comma-separated values. ganforge {command} --cfg job prints everything that can be set."
    )


def _of_a_sweep() -> str:
    keys = ", ".join(f"sweep.{key}" for key in SWEEP_KEYS.split())
    text = f"Of a sweep (-m, sweep=grid): sweep.n_jobs; of a search (sweep=optuna): {keys}: docs/sweeps.md"
    return "\n\n" + textwrap.fill(text, 118, subsequent_indent=" " * 10)


def _examples(examples: list[tuple[str, str]]) -> str:
    return "\n".join(f"  {command}\n      {what}" for command, what in examples)


def _groups(only: Sequence[str] | None = None, leave_out: Sequence[str] = ()) -> str:
    groups = {
        name: found
        for name, found in options().items()
        if (only is None or name in only) and name not in leave_out
    }
    return "\n".join(
        textwrap.fill(
            f"{name.replace('/', '.'):<16}{', '.join(found)}",
            width=118,
            initial_indent="  ",
            subsequent_indent=" " * 18,
        )
        for name, found in groups.items()
    )
