"""A generator from anywhere: a TorchScript or ONNX file holds its network and its weights, and needs no code beside."""

import importlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganforge.images import to_float

TORCHSCRIPT = (".pt", ".pth", ".ts", ".jit", ".torchscript")
ONNX = (".onnx",)
LIMIT = 1.01  # a tanh stays below 1, and a resized image may overshoot by a little

Run = Callable[[Tensor, Tensor | None], Any]
"""z (B, D) or (B, D, 1, 1), and labels where they are taken -> images."""

log = logging.getLogger(__name__)


class Exported(nn.Module):
    """An exported generator that keeps to this package's contract.

    The first batch is checked: a rank, number or range of outputs that does not fit would make figures of something
    else than the images.

    Args:
        path: the file, for messages.
        run: calls it.
        latent_dim: length D of z.
        num_classes: 0 for an unconditional generator.
        takes_labels: whether it is given the labels.
        z_shapes: the shapes of z to try, beside the number of samples: the first that works stays.
    """

    def __init__(
        self,
        path: Path,
        run: Run,
        latent_dim: int,
        num_classes: int,
        takes_labels: bool,
        z_shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.path = path
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.run = run
        self.takes_labels = takes_labels
        self.z_shapes = list(z_shapes)
        self.first = True

    @torch.no_grad()
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float32 (B, latent_dim), labels int64 (B,) -> images float32 (B, C, H, W) in [-1, 1].

        uint8 outputs become x / 127.5 - 1, which `ganforge.images.to_uint8` undoes exactly.

        Raises:
            ValueError: the file cannot work with these inputs, or gives no such images.
        """
        given = labels if self.takes_labels else None
        shape = self.z_shapes[0]
        images = self._try_shapes(z, given) if self.first else self.run(z.reshape(len(z), *shape), given)
        if not isinstance(images, Tensor):
            raise ValueError(
                f"{self.path} gives a {type(images).__name__}: export a generator that gives images alone"
            )
        if images.dim() != 4 or len(images) != len(z) or images.shape[1] not in (1, 3, 4):
            raise ValueError(
                f"{self.path} gives {tuple(images.shape)} for {len(z)} samples: images are (B, C, H, W) with 1, 3 or 4 "
                "channels"
            )
        if images.dtype == torch.uint8:
            images = to_float(images)
        elif not images.is_floating_point():
            raise ValueError(
                f"{self.path} gives {images.dtype}: images are float in [-1, 1] or uint8 in 0..255"
            )
        elif self.first:
            self._check_range(images)
        self.first = False
        return images.to(torch.float32)

    def _try_shapes(self, z: Tensor, labels: Tensor | None) -> Any:
        failures: list[Exception] = []
        for shape in self.z_shapes:
            try:
                images = self.run(z.reshape(len(z), *shape), labels)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the classes of the runtimes' errors are their own
                failures.append(error)
            else:
                self.z_shapes = [shape]
                return images
        reason = next((line for line in reversed(str(failures[0]).splitlines()) if line.strip()), "")
        raise ValueError(
            f"{self.path} does not work with z of shape {(len(z), self.latent_dim)}"
            f"{' and labels of ' + str((len(z),)) if labels is not None else ''} ({reason.strip()}): is "
            f"latent_dim={self.latent_dim} right?"
        ) from failures[0]

    def _check_range(self, images: Tensor) -> None:
        lowest, highest = images.min().item(), images.max().item()
        if lowest < -LIMIT or highest > LIMIT:
            raise ValueError(
                f"{self.path} gives images from {lowest:.4g} to {highest:.4g}: export it to give float in [-1, 1], or "
                "uint8 in 0..255"
            )
        if lowest >= 0:
            log.warning(
                "%s: no pixel of the first images is below %.4g; images are taken to lie in [-1, 1], where 0 is grey, "
                "and not in [0, 1]",
                self.path,
                lowest,
            )


def load_exported(
    path: str | Path, latent_dim: int | None = None, num_classes: int | None = None
) -> Exported:
    """The generator in a TorchScript (.pt, .pth, .ts, .jit, .torchscript) or ONNX (.onnx) file, in evaluation mode.

    It takes z alone, (B, D) or (B, D, 1, 1), or z and labels int64 (B,). ONNX runs on the CPU whatever the device, and
    in parts where the file fixes the size of a batch.

    Args:
        path: the file. It is never unpickled; TorchScript and ONNX are programs for their own runtimes.
        latent_dim: length of z; None where the file says it: ONNX by the shape of its input, TorchScript by an
            attribute `latent_dim` or `z_dim`.
        num_classes: None or 0 for a generator without classes, which is given labels of 0 if it takes any.

    Raises:
        ValueError: the file is something else or damaged, ONNX's runtime is not installed, or its inputs do not fit.
        OSError: it cannot be opened.
    """
    path = Path(path)
    with path.open("rb"):  # a missing file is an OSError, whatever the runtimes raise
        pass
    suffix = path.suffix.lower()
    if suffix not in (*TORCHSCRIPT, *ONNX):
        raise ValueError(
            f"{path} is no exported generator: TorchScript ends in {', '.join(TORCHSCRIPT)}, ONNX in {', '.join(ONNX)}"
        )
    load = _load_onnx if suffix in ONNX else _load_torchscript
    return load(path, latent_dim, num_classes or 0).eval()


def _load_torchscript(path: Path, latent_dim: int | None, num_classes: int) -> Exported:
    jit: Any = torch.jit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what is written today has to be read for years
            module = jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is no TorchScript file that can be read. Pickled modules and weights alone are not read, as they "
            "may carry code or lack it: export the generator with torch.jit.trace(generator, (z, labels)).save(FILE)"
        ) from error
    if latent_dim is None:
        found = [getattr(module, name, None) for name in ("latent_dim", "z_dim")]
        latent_dim = next((value for value in found if isinstance(value, int)), None)
    if latent_dim is None:
        raise ValueError(f"{path} does not say how long z is: give latent_dim=...")
    _, *arguments = module.forward.schema.arguments
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    if len(arguments) < 1 or len(needed) > 2:
        raise ValueError(
            f"{path} takes {', '.join(needed) or 'nothing'}: a generator takes z, or z and labels"
        )
    second_is_tensor = len(arguments) > 1 and "Tensor" in str(arguments[1].type)
    takes_labels = len(needed) == 2 or (second_is_tensor and num_classes > 0)
    _check_labels(path, takes_labels, num_classes)

    def run(z: Tensor, labels: Tensor | None) -> Any:
        return module(z) if labels is None else module(z, labels)

    # No schema tells whether convolutions from 1x1, as in PyTorch's own DCGAN example, come first.
    exported = Exported(path, run, latent_dim, num_classes, takes_labels, [(latent_dim,), (latent_dim, 1, 1)])
    exported.module = module  # moves with the device
    return exported


def _load_onnx(path: Path, latent_dim: int | None, num_classes: int) -> Exported:
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ValueError(f"{path} needs ONNX's runtime: pip install 'ganforge[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a dozen classes of its own
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no ONNX file that can be read ({reason}): export it again") from error
    z_input, labels_input = _onnx_inputs(path, session.get_inputs())
    if len(session.get_outputs()) != 1:
        names = ", ".join(output.name for output in session.get_outputs())
        raise ValueError(f"{path} gives {names}: export a generator that gives images alone")
    fixed_batch, found, *ones = z_input.shape
    if isinstance(found, int):
        if latent_dim not in (None, found):
            raise ValueError(
                f"latent_dim={latent_dim} does not fit {path}, which takes {found}: set latent_dim={found}"
            )
        latent_dim = found
    if latent_dim is None:
        raise ValueError(f"{path} does not say how long z is: give latent_dim=...")
    _check_labels(path, labels_input is not None, num_classes)
    z_type = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(z_input.type, np.float32)
    label_type = np.int32 if labels_input is not None and labels_input.type == "tensor(int32)" else np.int64

    def run_part(z: Tensor, labels: Tensor | None) -> Tensor:
        feed = {z_input.name: z.cpu().numpy().astype(z_type)}
        if labels is not None and labels_input is not None:
            feed[labels_input.name] = labels.cpu().numpy().astype(label_type)
        return torch.from_numpy(session.run(None, feed)[0])

    def run(z: Tensor, labels: Tensor | None) -> Tensor:
        if not isinstance(fixed_batch, int):
            return run_part(z, labels).to(z.device)
        parts = []
        whole = torch.arange(-(-len(z) // fixed_batch) * fixed_batch, device=z.device)
        for rows in torch.split(whole, fixed_batch):
            rows = rows.clamp(max=len(z) - 1)  # the last part is filled up with the last sample
            parts.append(run_part(z[rows], None if labels is None else labels[rows]))
        return torch.cat(parts)[: len(z)].to(z.device)

    return Exported(path, run, latent_dim, num_classes, labels_input is not None, [(latent_dim, *ones)])


def _onnx_inputs(path: Path, inputs: Sequence[Any]) -> tuple[Any, Any | None]:
    """The inputs that are z, float (B, D) or (B, D, 1, 1), and the labels, integers (B,), told by type and rank."""
    z = [each for each in inputs if each.type in ("tensor(float)", "tensor(float16)", "tensor(double)")]
    labels = [each for each in inputs if each.type in ("tensor(int64)", "tensor(int32)")]
    if (
        len(z) == 1
        and len(z) + len(labels) == len(inputs) <= 2
        and (len(z[0].shape) == 2 or (len(z[0].shape) == 4 and list(z[0].shape[2:]) == [1, 1]))
        and all(len(each.shape) == 1 for each in labels)
    ):
        return z[0], next(iter(labels), None)
    listed = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs) or "nothing"
    raise ValueError(
        f"{path} takes {listed}: a generator takes z float (B, D) or (B, D, 1, 1), or it and labels int64 (B,)"
    )


def _check_labels(path: Path, takes_labels: bool, num_classes: int) -> None:
    if num_classes and not takes_labels:
        raise ValueError(
            f"num_classes={num_classes} does not fit {path}, which takes no labels: leave it out"
        )
