"""Exported generators give the images of the generators they were made of; other files are refused with the way out."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganforge.images import to_float, to_uint8
from ganforge.networks import dcgan
from ganforge.networks.exported import load_exported

LATENT_DIM = 7

runs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="onnx, onnxruntime and onnxscript are not all installed",
)

Export = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quiet_and_seeded() -> Iterator[None]:
    """torch.jit is deprecated but written everywhere; the seed is printed where a test fails."""
    print(f"seed: {torch.seed()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def generator(num_classes: int = 0, channels: int = 3) -> nn.Module:
    """A DCGAN with batch norm's statistics moved, as after training."""
    network = dcgan.Generator(LATENT_DIM, 8, channels, num_classes, width=4)
    for _ in range(3):
        network(torch.randn(16, LATENT_DIM), torch.zeros(16, dtype=torch.int64))
    return network.eval()


def inputs(count: int, num_classes: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(count, LATENT_DIM), torch.randint(max(num_classes, 1), (count,))


class LatentOnly(nn.Module):
    """z (B, D), or (B, D, 1, 1), alone -> images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.network(z.flatten(1), torch.zeros(len(z), dtype=torch.int64))
        return images


class Convolutional(nn.Module):
    """PyTorch's own DCGAN example: begins with a transposed convolution of z (B, D, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ConvTranspose2d(LATENT_DIM, 3, 4, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(z)
        return images


class Outputs(nn.Module):
    """Gives `make(z)`, with or without labels."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, z: Tensor) -> Any:
        return self.make(z)


def trace(path: Path, network: nn.Module, *arguments: Tensor) -> Path:
    torch.jit.trace(network, arguments, check_trace=False).save(str(path))
    return path


def to_onnx(path: Path, network: nn.Module, *arguments: Tensor, dynamic: bool = True) -> Path:
    """Through the exporter of today; several rows, as it makes a constant of a batch of one."""
    batch = torch.export.Dim("batch", min=1, max=512)
    shapes = tuple({0: batch} for _ in arguments) if dynamic else None
    torch.onnx.export(
        network, arguments, path, dynamic_shapes=shapes, dynamo=True, verbose=False, external_data=False
    )
    return path


WAYS = [pytest.param("gen.pt", trace), pytest.param("gen.onnx", to_onnx, marks=runs_onnx)]


@pytest.mark.parametrize(("name", "export"), WAYS)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_a_dcgan_with_labels(tmp_path: Path, name: str, export: Export, num_classes: int) -> None:
    network = generator(num_classes)
    path = export(tmp_path / name, network, *inputs(4, num_classes))
    loaded = load_exported(path, LATENT_DIM, num_classes or None)
    assert not loaded.training
    assert (loaded.latent_dim, loaded.num_classes) == (LATENT_DIM, num_classes)
    for count in (6, 1, 9):
        z, labels = inputs(count, num_classes)
        images = loaded(z, labels)
        assert images.dtype == torch.float32
        assert not images.requires_grad
        torch.testing.assert_close(images, network(z, labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "export"), WAYS)
def test_a_generator_of_z_alone(tmp_path: Path, name: str, export: Export) -> None:
    network = generator(channels=1)
    path = export(tmp_path / name, LatentOnly(network), inputs(4)[0])
    z, labels = inputs(6)
    torch.testing.assert_close(
        load_exported(path, LATENT_DIM)(z, labels), network(z, labels), rtol=0, atol=1e-5
    )
    with pytest.raises(ValueError, match=rf"num_classes=5 does not fit .*{name}, which takes no labels"):
        load_exported(path, LATENT_DIM, 5)


@pytest.mark.parametrize(("name", "export"), WAYS)
def test_latents_of_four_dimensions(tmp_path: Path, name: str, export: Export) -> None:
    network = Convolutional()
    z = torch.randn(5, LATENT_DIM)
    path = export(tmp_path / name, network, z[..., None, None])
    loaded = load_exported(path, LATENT_DIM)
    for part in (z, z[:2]):
        images = loaded(part, torch.zeros(len(part), dtype=torch.int64))
        torch.testing.assert_close(images, network(part[..., None, None]), rtol=0, atol=1e-5)


# How long z is


@pytest.mark.parametrize("attribute", ["latent_dim", "z_dim"])
def test_torchscript_may_say_the_length_of_z(tmp_path: Path, attribute: str) -> None:
    class Sized(Convolutional):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, attribute, LATENT_DIM)

    torch.jit.script(Sized()).save(str(tmp_path / "gen.ts"))
    assert load_exported(tmp_path / "gen.ts").latent_dim == LATENT_DIM


def test_torchscript_that_does_not_say_it(tmp_path: Path) -> None:
    path = trace(tmp_path / "gen.pt", generator(), *inputs(2))
    with pytest.raises(ValueError, match=r"gen\.pt does not say how long z is: give latent_dim=\.\.\."):
        load_exported(path)
    with pytest.raises(
        ValueError, match=r"gen\.pt does not work with z of shape \(4, 9\).*is latent_dim=9 right"
    ):
        load_exported(path, 9)(torch.randn(4, 9), torch.zeros(4, dtype=torch.int64))


def test_scripted_modules_may_have_further_arguments_with_defaults(tmp_path: Path) -> None:
    class Truncated(Convolutional):
        def forward(self, z: Tensor, labels: Tensor | None = None, psi: float = 1.0) -> Tensor:
            shift = torch.zeros(1) if labels is None else labels.float().mean()
            images: Tensor = self.layers(psi * z[:, :, None, None] + shift)
            return images

    network = Truncated()
    torch.jit.script(network).save(str(tmp_path / "gen.jit"))
    z, labels = torch.randn(4, LATENT_DIM), torch.arange(4)
    for num_classes, given in ((None, None), (4, labels)):
        images = load_exported(tmp_path / "gen.jit", LATENT_DIM, num_classes)(z, labels)
        torch.testing.assert_close(images, network(z, given))


@runs_onnx
def test_onnx_of_one_batch_size_runs_in_parts(tmp_path: Path) -> None:
    network = generator(5)
    path = to_onnx(tmp_path / "gen.onnx", network, *inputs(4, 5), dynamic=False)
    loaded = load_exported(path, num_classes=5)
    assert loaded.latent_dim == LATENT_DIM
    for count in (4, 1, 11):
        z, labels = inputs(count, 5)
        torch.testing.assert_close(loaded(z, labels), network(z, labels), rtol=0, atol=1e-5)


@runs_onnx
def test_onnx_of_the_older_exporter(tmp_path: Path) -> None:
    network = generator(5)
    path = tmp_path / "gen.onnx"
    torch.onnx.export(
        network,
        inputs(4, 5),
        str(path),
        dynamo=False,
        input_names=["z", "y"],
        dynamic_axes={"z": {0: "n"}, "y": {0: "n"}},
    )
    z, labels = inputs(6, 5)
    torch.testing.assert_close(
        load_exported(path, num_classes=5)(z, labels), network(z, labels), rtol=0, atol=1e-5
    )


def write_onnx(path: Path, inputs: Any, outputs: Any, nodes: Any, constants: Any = ()) -> Path:
    """A graph by hand: inputs and outputs are (name, type, shape)."""
    onnx: Any = importlib.import_module("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    sides = [
        [helper.make_tensor_value_info(name, getattr(types, kind), shape) for name, kind, shape in side]
        for side in (inputs, outputs)
    ]
    tensors = [helper.make_tensor(name, types.INT64, [len(values)], values) for name, values in constants]
    made = [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes]
    graph = helper.make_graph(made, "g", *sides, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@runs_onnx
def test_onnx_of_other_number_types(tmp_path: Path) -> None:
    """Labels in int32 before z in float64: told by their types, not their places."""
    path = write_onnx(
        tmp_path / "gen.onnx",
        [("y", "INT32", ["n"]), ("z", "DOUBLE", ["n", 4])],
        [("images", "DOUBLE", ["n", 1, 2, 2])],
        [
            ("Cast", ["y"], ["float_y"], {"to": 11}),
            ("Unsqueeze", ["float_y", "axis"], ["column"]),
            ("Add", ["z", "column"], ["sum"]),
            ("Tanh", ["sum"], ["tanh"]),
            ("Reshape", ["tanh", "shape"], ["images"]),
        ],
        [("axis", [1]), ("shape", [-1, 1, 2, 2])],
    )
    z, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    images = load_exported(path, num_classes=3)(z, labels)
    torch.testing.assert_close(images, (z.double() + labels[:, None]).tanh().float().view(3, 1, 2, 2))
    with pytest.raises(
        ValueError, match=r"latent_dim=9 does not fit .*gen\.onnx, which takes 4: set latent_dim=4"
    ):
        load_exported(path, 9)


@runs_onnx
def test_onnx_that_does_not_say_the_length_of_z(tmp_path: Path) -> None:
    path = write_onnx(
        tmp_path / "gen.onnx",
        [("z", "FLOAT", ["n", "d", 1, 1])],
        [("images", "FLOAT", ["n", "d", 1, 1])],
        [("Tanh", ["z"], ["images"])],
    )
    with pytest.raises(ValueError, match=r"gen\.onnx does not say how long z is: give latent_dim"):
        load_exported(path)
    z = torch.randn(5, 3)
    images = load_exported(path, 3)(z, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(images, z.tanh()[..., None, None])


@runs_onnx
@pytest.mark.parametrize(
    "inputs",
    [
        [("z", "FLOAT", [4, 7, 2])],
        [("z", "FLOAT", [4, 7, 2, 2])],
        [("z", "FLOAT", [4])],
        [("z", "INT64", ["n", 7])],
        [("z", "FLOAT", ["n", 7]), ("one_hot", "FLOAT", ["n", 10])],
        [("z", "FLOAT", ["n", 7]), ("y", "INT64", ["n", 10])],
        [("z", "FLOAT", ["n", 7]), ("y", "INT64", ["n"]), ("w", "INT64", ["n"])],
    ],
)
def test_onnx_of_other_inputs(tmp_path: Path, inputs: Any) -> None:
    name, kind, shape = inputs[0]
    path = write_onnx(
        tmp_path / "gen.onnx", inputs, [("images", kind, shape)], [("Identity", [name], ["images"])]
    )
    with pytest.raises(ValueError, match=r"gen\.onnx takes z tensor.*: a generator takes z float \(B, D\)"):
        load_exported(path, 7)


@runs_onnx
def test_onnx_of_two_outputs(tmp_path: Path) -> None:
    path = write_onnx(
        tmp_path / "gen.onnx",
        [("z", "FLOAT", ["n", 7])],
        [("images", "FLOAT", ["n", 7]), ("w", "FLOAT", ["n", 7])],
        [("Identity", ["z"], ["images"]), ("Tanh", ["z"], ["w"])],
    )
    with pytest.raises(
        ValueError, match=r"gen\.onnx gives images, w: export a generator that gives images alone"
    ):
        load_exported(path)


# What it gives


@pytest.mark.parametrize(("name", "export"), WAYS)
def test_bytes_come_back_exactly(tmp_path: Path, name: str, export: Export) -> None:
    def make(z: Tensor) -> Tensor:
        return (z[:, :3, None, None] * 40 + 128).clamp(0, 255).to(torch.uint8).expand(-1, -1, 4, 4)

    path = export(tmp_path / name, Outputs(make), torch.randn(5, LATENT_DIM))
    loaded = load_exported(path, LATENT_DIM)
    for _ in range(3):
        z = torch.randn(64, LATENT_DIM)
        images = loaded(z, torch.zeros(64, dtype=torch.int64))
        assert torch.equal(images, to_float(make(z)))
        assert torch.equal(to_uint8(images), make(z))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    def make(z: Tensor) -> Tensor:
        return z.tanh().to(dtype)[:, :3, None, None].expand(-1, -1, 4, 4)

    z = torch.randn(5, LATENT_DIM)
    images = load_exported(trace(tmp_path / "gen.pt", Outputs(make), z), LATENT_DIM)(z, torch.zeros(5).long())
    assert torch.equal(images, make(z).float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda z: 255 * z.sigmoid()[:, :3, None, None].expand(-1, -1, 4, 4),
            r"gives images from \d.* to \d+.*\[-1, 1\]",
        ),
        (lambda z: 1.02 * torch.ones_like(z)[:, :1, None, None], r"gives images from 1\.02 to 1\.02"),
        (lambda z: -1.02 * torch.ones_like(z)[:, :1, None, None], r"gives images from -1\.02 to -1\.02"),
        (lambda z: z / 0, r"gives \(5, 7\) for 5 samples"),
        (lambda z: z[:, :3, None], r"gives \(5, 3, 1\) for 5 samples: images are \(B, C, H, W\)"),
        (lambda z: z[:4, :3, None, None], r"gives \(4, 3, 1, 1\) for 5 samples"),
        (lambda z: z[:, None, None, :3].expand(-1, 8, 8, -1), r"gives \(5, 8, 8, 3\) for 5 samples"),
        (lambda z: z[:, :3, None, None].long(), r"gives torch\.int64: images are float"),
        (lambda z: (z[:, :3, None, None], z), r"gives a tuple: export a generator that gives images alone"),
    ],
)
def test_outputs_that_are_no_images(tmp_path: Path, make: Callable[[Tensor], Any], message: str) -> None:
    z = torch.randn(5, LATENT_DIM)
    loaded = load_exported(trace(tmp_path / "gen.pt", Outputs(make), z), LATENT_DIM)
    for _ in range(2):  # a refusal does not count as the first batch
        with pytest.raises(ValueError, match=rf"gen\.pt {message}"):
            loaded(z, torch.zeros(5, dtype=torch.int64))


def test_the_range_is_checked_once(tmp_path: Path) -> None:
    def make(z: Tensor) -> Tensor:
        return z[:, :3, None, None]

    z = torch.randn(5, LATENT_DIM).clamp(-1, 1)
    loaded = load_exported(trace(tmp_path / "gen.pt", Outputs(make), z), LATENT_DIM)
    labels = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(loaded(1.009 * z, labels), make(1.009 * z))
    assert torch.equal(loaded(3 * z, labels), make(3 * z))


def test_the_range_from_0_to_1_is_remarked_upon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make(z: Tensor) -> Tensor:
        return z.sigmoid()[:, :3, None, None]

    z = torch.randn(5, LATENT_DIM)
    loaded = load_exported(trace(tmp_path / "gen.pt", Outputs(make), z), LATENT_DIM)
    with caplog.at_level(logging.WARNING, logger="ganforge"):
        loaded(z, torch.zeros(5, dtype=torch.int64))
        loaded(z, torch.zeros(5, dtype=torch.int64))
    assert caplog.text.count("and not in [0, 1]") == 1


# Files of other kinds


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    network = generator()
    torch.save(network, tmp_path / "module.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    torch.save(Trap(), tmp_path / "trap.pt")
    torch.save(Trap(), tmp_path / "old_trap.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap()))
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    (tmp_path / "half.pt").write_bytes(buffer.getvalue()[:200])
    (tmp_path / "empty.ts").write_bytes(b"")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(
            ValueError,
            match=rf"{path.name} is no TorchScript file.*torch\.jit\.trace\(generator, \(z, labels\)\)",
        ):
            load_exported(path, LATENT_DIM)
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_missing_or_of_another_kind(tmp_path: Path) -> None:
    for name in ("absent.pt", "absent.onnx"):
        with pytest.raises(FileNotFoundError):
            load_exported(tmp_path / name, LATENT_DIM)
    (tmp_path / "gen.h5").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"gen\.h5 is no exported generator: TorchScript ends in \.pt, .*\.onnx"
    ):
        load_exported(tmp_path / "gen.h5", LATENT_DIM)


@runs_onnx
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256))])
def test_damaged_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gen.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"gen\.onnx is no ONNX file that can be read"):
        load_exported(tmp_path / "gen.onnx", LATENT_DIM)


def test_onnx_without_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # Python's own way to forbid an import
    (tmp_path / "gen.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"gen\.onnx needs ONNX's runtime: pip install 'ganforge\[onnx\]'"):
        load_exported(tmp_path / "gen.onnx", LATENT_DIM)


def test_modules_of_too_many_arguments(tmp_path: Path) -> None:
    class Three(Convolutional):
        def forward(self, z: Tensor, labels: Tensor, psi: Tensor) -> Tensor:  # type: ignore[override]
            return z + labels + psi

    torch.jit.script(Three()).save(str(tmp_path / "gen.pt"))
    with pytest.raises(
        ValueError, match=r"gen\.pt takes z, labels, psi: a generator takes z, or z and labels"
    ):
        load_exported(tmp_path / "gen.pt", LATENT_DIM)


def test_frozen_modules_and_the_device(tmp_path: Path) -> None:
    network = generator()
    frozen = torch.jit.freeze(torch.jit.trace(network, inputs(4), check_trace=False))
    frozen.save(str(tmp_path / "gen.pt"))
    z, labels = inputs(4)
    loaded = load_exported(tmp_path / "gen.pt", LATENT_DIM).to("cpu")
    torch.testing.assert_close(loaded(z, labels), network(z, labels), rtol=0, atol=1e-5)
