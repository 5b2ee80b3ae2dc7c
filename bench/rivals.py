"""Images/s of `ganforge train` beside other loops, with the same networks, data and loss, window by window in turn.

torch-mimicry's Trainer with its own SNGAN for 32x32: first the very same networks in both, then each with its own. It
is installed from the package index into a temporary folder; what it imports and is no more there (TensorFlow, an old
module of PyTorch) is replaced by empty modules, none of which its training calls. Its data come from a DataLoader over
tensors in memory, and it logs as its Trainer does by default.

PyTorch-StudioGAN is not on the package index, so its loop cannot be had here. In its place stands an obvious loop, as
tutorials write it: Adam as it comes, losses read by .item() in each round, the discriminator not frozen in the
generator's step, a moving average parameter by parameter.

python bench/rivals.py [--width 32] [--windows 7] [--seconds 1.0] [--mimicry FOLDER] [WORD ...]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganforge.images import to_float
from header import header
from loop import DEVICE, LeanLoop, compare

GONE = (
    "tensorflow",
    "torch._six",
    "skimage",
    "skimage.io",
    "torch.utils.model_zoo",
    "tensorboard",
    "torch.utils.tensorboard",
)


class Empty(types.ModuleType):
    """Stands for a module that is not there: has whatever is asked for, which does nothing."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(
            name, (), {"__init__": lambda *_, **__: None, "__getattr__": lambda *_: lambda *_, **__: None}
        )


def import_mimicry(folder: str) -> bool:
    """Whether `torch_mimicry` can be imported now, from `folder`, where it is installed if need be."""
    if not (Path(folder) / "torch_mimicry").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        if subprocess.run([*command, "torch-mimicry==0.1.16"], capture_output=True).returncode:
            return False
    sys.path.append(folder)
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.utils.tensorboard")  # before TensorFlow seems to be there
    for name in GONE:
        try:
            missing = importlib.util.find_spec(name) is None
        except (ImportError, ValueError):
            missing = True
        if missing:
            sys.modules[name] = Empty(name)
    zoo: Any = importlib.import_module("torch.utils.model_zoo")
    zoo.tqdm = getattr(zoo, "tqdm", None)
    importlib.import_module("torch_mimicry")
    return True


class MimicryGenerator(nn.Module):
    """mimicry's generator as a part of ganforge."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from torch_mimicry.nets import sngan

        self.network = sngan.SNGANGenerator32(ngf=width)
        self.latent_dim = self.network.nz

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.network(z)
        return images


class MimicryDiscriminator(nn.Module):
    """mimicry's discriminator as a part of ganforge."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from torch_mimicry.nets import sngan

        self.network = sngan.SNGANDiscriminator32(ndf=width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.squeeze(1)


class Gate:
    """Batches for mimicry's Trainer, which runs in a thread of its own, for so many rounds as it may play now."""

    def __init__(self, data: Any, batch_size: int) -> None:
        images = to_float(data.batch(torch.arange(len(data))))
        pairs = torch.utils.data.TensorDataset(images, data.labels)
        self.loader = torch.utils.data.DataLoader(pairs, batch_size, shuffle=True, drop_last=True)
        self.batch_size = batch_size
        self.allowed = 0
        self.go, self.done = threading.Event(), threading.Event()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if not self.allowed:
                self.done.set()
                self.go.wait()
                self.go.clear()
            self.allowed -= 1
            yield batch


class Mimicry:
    """mimicry's Trainer with its own networks."""

    width = 32

    def __init__(self, module: Any, data: Any) -> None:
        from torch_mimicry.nets import sngan

        self.gate = Gate(data, module.batch_size)
        generator, discriminator = (
            sngan.SNGANGenerator32(ngf=self.width),
            sngan.SNGANDiscriminator32(ndf=self.width),
        )
        self.optimizers = [
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9))
            for network in (discriminator, generator)
        ]
        self.networks = (discriminator.to(DEVICE), generator.to(DEVICE))
        self.folder = tempfile.TemporaryDirectory(prefix="mimicry-", ignore_cleanup_errors=True)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            threading.Thread(target=self._train, daemon=True).start()
            self.gate.done.wait()

    def _train(self) -> None:
        from torch_mimicry.training import Trainer

        torch.set_num_threads(1)
        (d, g), (d_optimizer, g_optimizer) = self.networks, self.optimizers
        Trainer(
            netD=d,
            netG=g,
            optD=d_optimizer,
            optG=g_optimizer,
            dataloader=self.gate,
            num_steps=10**9,
            lr_decay="linear",
            log_dir=self.folder.name,
            device=DEVICE,
        ).train()

    def play(self, rounds: int) -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints each round
            self.gate.done.clear()
            self.gate.allowed = rounds
            self.gate.go.set()
            self.gate.done.wait()


class ObviousLoop(LeanLoop):
    """The same game as tutorials write it."""

    def __init__(self, module: Any, data: Any) -> None:
        super().__init__(module, data)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas=(0.0, 0.9))
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), 2e-4, betas=(0.0, 0.9))
        self.logged: dict[str, float] = {}

    def round(self) -> None:
        real, labels = self.batch()
        self.d_optimizer.zero_grad()
        fake = self.generator(self.noise(), labels).detach()
        d_loss = self.loss.discriminator_loss(
            self.discriminator(real, labels), self.discriminator(fake, labels)
        )
        d_loss.backward()
        self.d_optimizer.step()
        self.g_optimizer.zero_grad()
        fake = self.generator(self.noise(), labels)
        g_loss = self.loss.generator_loss(None, self.discriminator(fake, labels))
        g_loss.backward()
        self.g_optimizer.step()
        with torch.no_grad():
            for averaged, followed in zip(self.averaged, self.followed, strict=True):
                averaged.copy_(0.99 * averaged + 0.01 * followed)
        self.logged = {"d_loss": d_loss.item(), "g_loss": g_loss.item()}


def random_images(path: Path) -> None:
    """2,048 pictures of noise: what is on them does not matter to the speed."""
    np.save(path, np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=32, help="of both networks; the papers' are 256 and 128")
    parser.add_argument("--windows", type=int, default=7, help="pairs of windows for each row")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--mimicry", help="a folder that holds, or is to hold, the package torch_mimicry")
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    Mimicry.width = width = arguments.width
    print(header(seed=0))
    print(f"Batch 64, 32x32, width {width}; the ratio is that of images/s.\n")
    with tempfile.TemporaryDirectory() as folder:
        random_images(Path(folder) / "images.npy")
        sizes = [f"model.{side}.width={width}" for side in ("generator", "discriminator")]
        common = [
            "~experiment",
            "name=rivals",
            "loss=hinge",
            "data=array",
            f"data.root={folder}/images.npy",
            *words,
        ]
        common += ["conditional=false", "metrics=none", "batch_size=64"]
        common += [
            f"optimizer.{s}.{k}"
            for s in ("generator", "discriminator")
            for k in ("lr=2e-4", "betas=[0.0,0.9]")
        ]
        ours = [*common, "model=sngan", *sizes]
        theirs = [*common, "model=sngan"]
        for side, network in (("generator", MimicryGenerator), ("discriminator", MimicryDiscriminator)):
            node = f"{{_target_: rivals.{network.__name__}, width: {width}}}"
            theirs += [f"~model.{side}", f"+model.{side}={node}"]
        print("| other loop | networks | ganforge's settings | ganforge, img/s | other, img/s | ratio |")
        print("|---|---|---|---|---|---|", flush=True)
        rivals = []
        if import_mimicry(arguments.mimicry or str(Path(folder) / "packages")):
            rivals = [("mimicry", "mimicry's", Mimicry, theirs), ("mimicry", "each its own", Mimicry, ours)]
        for name, networks, rival, settings in [*rivals, ("obvious loop", "ganforge's", ObviousLoop, ours)]:
            for fast in ("default", "fast.all=true"):
                asked = [] if fast == "default" else [fast]
                mine, other, ratio = compare([*settings, *asked], arguments.windows, arguments.seconds, rival)
                print(
                    f"| {name} | {networks} | {fast} | {mine:,.0f} | {other:,.0f} | {ratio:.2f} |", flush=True
                )
        if not rivals:
            print("\ntorch-mimicry is left out: it could not be installed from the package index.")
    return 0


if __name__ == "__main__":
    sys.modules["rivals"] = sys.modules["__main__"]  # one module under both names, for `_target_`
    sys.exit(main())
