"""Extractors load as a user's files are loaded, give what their sources give, and say plainly what is wrong."""

from __future__ import annotations

import importlib.util
import linecache
import math
import os
import random
import sys
import urllib.error
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

from ganforge.evaluation import dinov2
from ganforge.evaluation.cache import Cache
from ganforge.evaluation.dinov2 import GRID, MODELS, DinoV2, VisionTransformer
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.fidelity import Clip, Vgg16
from ganforge.evaluation.inception import Inception
from ganforge.evaluation.module import Module
from ganforge.evaluation.resizing import clean


@pytest.fixture
def images(random_images):
    return random_images(2, 3, 20, 30)


def prepared(extractor: Extractor) -> Extractor:
    before = torch.get_rng_state()
    extractor.prepare(None, "cpu", Cache())
    assert torch.equal(torch.get_rng_state(), before)
    return extractor


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def random_weights(shapes):
    """Random tensors that keep activations at their scale; a matrix shares its diagonals' memory: files are small."""
    seed = random.SystemRandom().randrange(2**31)
    print(f"weights of seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        rows, columns = (
            (shape[0], math.prod(shape[1:])) if len(shape) > 1 and shape[0] > 1 else (1, math.prod(shape))
        )
        numbers = torch.randn(rows + columns, generator=generator)
        if rows > 1:
            numbers /= math.sqrt(columns)
        elif name.endswith(("weight", "gamma")):
            numbers = 1 + 0.3 * numbers
        weights[name] = numbers.as_strided((rows, columns), (1, 1)).view(shape)
    return weights


# VGG-16


@pytest.fixture(scope="module")
def vgg16_path(tmp_path_factory):
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in torchvision.models.vgg16().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(random_weights(shapes), path)
    assert path.stat().st_size < 2**23
    return str(path)


@pytest.fixture(scope="module")
def vgg16_network(vgg16_path):
    """Half a gigabyte, built once."""
    return prepared(Vgg16(vgg16_path)).network


def test_vgg16_gives_torch_fidelitys_features(vgg16_path, vgg16_network, images):
    extractor = Vgg16(vgg16_path)
    extractor.network = vgg16_network
    features, logits = extractor.extract(images)
    with torch.random.fork_rng():
        theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=vgg16_path)
    assert logits is None
    assert features.shape == (2, 4096)
    assert features.std() > 0
    assert torch.equal(features, theirs(images)[0])
    assert extractor.comparable_with_papers


# CLIP


def clip_archive(path: Path, width=768, patch=32, dimensions=512, resolution=224) -> str:
    """A TorchScript archive as OpenAI's are, with one block and random weights."""
    full = nn.Module()
    full.visual = CLIPVisual(dimensions, resolution, 1, width, patch).visual
    full.text_projection = nn.Parameter(torch.zeros(4, dimensions))
    full.logit_scale = nn.Parameter(torch.zeros(()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(full.half()), path)
    return str(path)


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    return clip_archive(tmp_path_factory.mktemp("weights") / "clip.pt")


def test_clip_gives_torch_fidelitys_features(clip_path, images):
    extractor = prepared(Clip(weights_path=clip_path))
    features, logits = extractor.extract(images)
    theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=clip_path)
    assert logits is None
    assert features.shape == (2, 512)
    assert features.dtype == torch.float32
    assert torch.equal(features, theirs(images)[0])
    assert extractor.stamp() == {"model": "clip-vit-b-32"}
    assert extractor.resize == "224x224, bilinear as in TensorFlow 1"


def test_clip_refuses_the_weights_of_another_model(clip_path, tmp_path):
    for model in ("clip-vit-b-16", "clip-vit-l-14", "clip-rn50"):
        with pytest.raises(ValueError, match=rf"(?s){model}.*of another model.*\(224, 512, 768, 32\)"):
            Clip(model, clip_path).prepare(None, "cpu", Cache())
    other_size = clip_archive(tmp_path / "other.pt", resolution=96)
    with pytest.raises(ValueError, match="of another model"):
        Clip(weights_path=other_size).prepare(None, "cpu", Cache())


def test_models_are_checked_at_once():
    with pytest.raises(ValueError, match="model is vit; it can be clip-rn50"):
        Clip("vit")
    with pytest.raises(ValueError, match="model is vit; it can be dinov2-vit-s-14"):
        DinoV2("vit")
    with pytest.raises(ValueError, match="resize is bicubic"):
        DinoV2(resize="bicubic")


# DINOv2


def shapes_of(network):
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def dinov2_path(tmp_path_factory):
    with torch.device("meta"):
        shapes = shapes_of(VisionTransformer(384, 12))
    path = tmp_path_factory.mktemp("weights") / "dinov2.pth"
    torch.save(random_weights(shapes), path)
    return str(path)


def bicubic_positions(grid, side, step):
    """Keys' cubic (a = -0.75) at (i + 0.5) step - 0.5 with the border repeated: float64 (D, 37, 37) -> (D, s, s)."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = torch.zeros(side, GRID, dtype=torch.float64)
    for i in range(side):
        centre = (i + 0.5) * step - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), GRID - 1)] += kernel(centre - j)
    return weights @ grid @ weights.T


def as_torchvision(weights):
    """The same network as torchvision writes it: layer scale folded into the layers before it."""
    width, heads = weights["norm.weight"].shape[0], weights["norm.weight"].shape[0] // 64
    depth = sum(name.endswith("norm1.weight") for name in weights)
    network = TorchvisionTransformer(224, 14, depth, heads, width, 4 * width)
    network.heads = nn.Identity()
    grid = weights["pos_embed"][0, 1:].double().T.reshape(width, GRID, GRID)
    grid = bicubic_positions(grid, 16, GRID / 16.1).flatten(1).T.float()
    theirs = {
        "class_token": weights["cls_token"],
        "conv_proj.weight": weights["patch_embed.proj.weight"],
        "conv_proj.bias": weights["patch_embed.proj.bias"],
        "encoder.pos_embedding": torch.cat([weights["pos_embed"][:, :1], grid[None]], dim=1),
        "encoder.ln.weight": weights["norm.weight"],
        "encoder.ln.bias": weights["norm.bias"],
    }
    for index in range(depth):
        ours, layer = f"blocks.{index}", f"encoder.layers.encoder_layer_{index}"
        for kind in ("weight", "bias"):
            theirs[f"{layer}.ln_1.{kind}"] = weights[f"{ours}.norm1.{kind}"]
            theirs[f"{layer}.ln_2.{kind}"] = weights[f"{ours}.norm2.{kind}"]
            theirs[f"{layer}.self_attention.in_proj_{kind}"] = weights[f"{ours}.attn.qkv.{kind}"]
            theirs[f"{layer}.mlp.0.{kind}"] = weights[f"{ours}.mlp.fc1.{kind}"]
            for scale, inner, outer in (
                ("ls1", "attn.proj", "self_attention.out_proj"),
                ("ls2", "mlp.fc2", "mlp.3"),
            ):
                gamma, value = weights[f"{ours}.{scale}.gamma"], weights[f"{ours}.{inner}.{kind}"]
                theirs[f"{layer}.{outer}.{kind}"] = value * (gamma[:, None] if kind == "weight" else gamma)
    network.load_state_dict(theirs)
    return network.eval()


def test_dinov2_is_torch_fidelitys_around_an_independent_network(dinov2_path, images, monkeypatch):
    images[1] //= 4
    weights = torch.load(dinov2_path)
    with torch.random.fork_rng():
        reference = as_torchvision(weights)
    monkeypatch.setattr(torch.hub, "load", lambda *_: reference)
    theirs = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])(images)[0]
    extractor = prepared(DinoV2(weights_path=dinov2_path))
    features, logits = extractor.extract(images)
    assert logits is None
    assert features.shape == (2, 384)
    assert relative(features[0], features[1]) > 0.003
    assert relative(features, theirs) < 3e-6
    assert relative(features[0] - features[1], theirs[0] - theirs[1]) < 1e-4
    assert extractor.stamp() == {"model": "dinov2-vit-s-14"}


def test_dinov2_downloads_nothing_but_weights(dinov2_path, images, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(dinov2, "URL", Path(dinov2_path).as_uri())
    downloaded = prepared(DinoV2())
    local = prepared(DinoV2(weights_path=dinov2_path))
    assert downloaded.weights_hash() == local.weights_hash()
    assert torch.equal(downloaded.extract(images)[0], local.extract(images)[0])


def test_dinov2_at_its_training_size_keeps_its_positions():
    network = VisionTransformer(64, 1)
    nn.init.normal_(network.pos_embed)
    assert torch.equal(network.positions(GRID), network.pos_embed)
    assert network.positions(16).shape == (1, 257, 64)


# As published: 21, 86, 300 and 1,100 million.
@pytest.mark.parametrize(
    ("model", "millions"), list(zip(MODELS, (22.06, 86.58, 304.37, 1136.48), strict=True))
)
def test_dinov2_has_as_many_parameters_as_published(model, millions):
    _, width, depth, gated = MODELS[model]
    with torch.device("meta"):
        network = VisionTransformer(width, depth, gated=gated)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(1e6 * millions, rel=1e-3)


def test_dinov2s_gated_part_follows_its_formula(generator):
    part = VisionTransformer(64, 1, gated=True).blocks[0].mlp.double()
    x = torch.randn(3, 5, 64, generator=generator, dtype=torch.float64)
    w1, w2 = part.w12.weight.chunk(2)
    b1, b2 = part.w12.bias.chunk(2)
    gate = x @ w1.T + b1
    expected = (gate * torch.sigmoid(gate) * (x @ w2.T + b2)) @ part.w3.weight.T + part.w3.bias
    torch.testing.assert_close(part(x), expected)
    assert part.w3.in_features == 176  # 2/3 of 256, up to the next multiple of 8


# What holds for all of them


@pytest.fixture
def make(request, tmp_path):
    kinds = {"inception": Inception, "vgg16": Vgg16, "clip": Clip, "dinov2": DinoV2}
    return lambda path, **options: kinds[request.param](
        weights_path=None if path is None else str(path), **options
    )


ALL = pytest.mark.parametrize("make", ["inception", "vgg16", "clip", "dinov2"], indirect=True)


@ALL
def test_offline_names_the_ways_out(make, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    extractor = make(None)
    expected = (
        rf"(?s)no route to host.*metrics={extractor.name} .*weights_path=FILE.*metrics=digits.*metrics=domain"
    )
    with pytest.raises(ValueError, match=expected):
        extractor.prepare(None, "cpu", Cache())


class Attack:
    """What a pickle runs when it is read without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@ALL
def test_unreadable_files_are_refused_in_one_message(make, tmp_path, clip_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no weights\n")
    (tmp_path / "truncated").write_bytes(Path(clip_path).read_bytes()[:100_000])
    (tmp_path / "junk.safetensors").write_text("no weights")
    torch.save({"weight": Attack(tmp_path / "made")}, tmp_path / "attack")
    torch.save([torch.zeros(1)], tmp_path / "list")
    for name in ("absent", "empty", "text", "truncated", "junk.safetensors", "attack", "list", "."):
        with pytest.raises(
            ValueError, match=r"(?s)is not a readable|holds a list.*weights_path=FILE"
        ) as caught:
            make(tmp_path / name).prepare(None, "cpu", Cache())
        assert str(tmp_path / name) in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert not (tmp_path / "made").exists()


@ALL
def test_weights_of_another_network_are_refused(make, tmp_path, vgg16_path):
    other = {name: torch.zeros(1) for name in torch.load(vgg16_path)}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"cannot be had from|not a TorchScript archive") as caught:
        make(tmp_path / "other.pth").prepare(None, "cpu", Cache())
    assert "weights_path=FILE" in str(caught.value)
    assert len(str(caught.value)) < 1000


@ALL
def test_protocols_differ_in_their_words(make):
    words = {make(None, resize=resize).resize for resize in ("tensorflow", "clean")}
    assert len(words) == 2
    assert make(None).resize == make(None, resize="tensorflow").resize
    assert make(None).comparable_with_papers
    assert make(None).dtype == "float32"


@pytest.mark.parametrize(
    ("kind", "entry", "mean", "std"),
    [
        ("vgg16", "model", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("clip", "model.visual", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("dinov2", "", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_clean_images_enter_the_network_unrounded(kind, entry, mean, std, images, random_images, request):
    make = {"vgg16": Vgg16, "clip": Clip, "dinov2": DinoV2}[kind]
    path = request.getfixturevalue(f"{kind}_path")
    usual = make(weights_path=path)
    usual.network = request.getfixturevalue("vgg16_network") if kind == "vgg16" else prepared(usual).network
    extractor = make(weights_path=path, resize="clean")
    extractor.network = usual.network
    seen = []
    layer = extractor.network.get_submodule(entry)
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features, _ = extractor.extract(images)
    handle.remove()
    assert not layer._forward_pre_hooks
    pixels = clean(images, 224).double() / 255
    expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(seen[0].double(), expected, atol=1e-5, rtol=0)
    assert features.isfinite().all()
    # Where nothing is left to resize both protocols are one.
    ready = random_images(1, 3, 224, 224)
    assert torch.equal(usual.extract(ready)[0], extractor.extract(ready)[0])


@pytest.mark.parametrize("make", ["clip", "dinov2"], indirect=True)
@pytest.mark.parametrize("resize", ["tensorflow", "clean"])
def test_grey_is_repeated_to_three_channels(make, resize, clip_path, dinov2_path, random_images):
    path = clip_path if make(None).name == "clip" else dinov2_path
    grey = random_images(2, 1, 9, 9)
    extractor = prepared(make(path, resize=resize))
    assert torch.equal(extractor.extract(grey)[0], extractor.extract(grey.repeat(1, 3, 1, 1))[0])


# A user's own module


class Small(nn.Module):
    def __init__(self, outputs="features", channels=3):
        super().__init__()
        self.convolution = nn.Conv2d(channels, 8, 3, stride=2)
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Linear(8, 4)
        self.outputs = outputs

    def forward(self, images):
        maps = self.dropout(self.convolution(images))
        features = maps.mean(dim=(2, 3))
        return {
            "features": features,
            "maps": maps,
            "pair": (features, self.classify(features)),
            "maps and logits": [maps, self.classify(features)],
            "three": (features, features, features),
            "dictionary": {"features": features},
            "one row": features[:1],
            "whole numbers": features.long(),
            "one number": features.mean(),
            "infinite": features / 0,
        }[self.outputs]


@pytest.mark.parametrize("outputs", ["features", "maps", "pair", "maps and logits"])
def test_module_gives_its_features(outputs, images):
    network = Small(outputs)
    extractor = prepared(Module(network, "small", image_size=15, mean=(0.1, 0.2, 0.3), std=0.5))
    features, logits = extractor.extract(images)
    pixels = clean(images, 15) / 255
    x = (pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    expected = F.conv2d(x, network.convolution.weight, network.convolution.bias, stride=2).mean(dim=(2, 3))
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    if "features" in outputs or outputs == "maps":
        assert logits is None
    else:
        torch.testing.assert_close(logits, network.classify(expected), atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not extractor.comparable_with_papers


def test_module_takes_images_as_they_are_and_grey_ones(images):
    extractor = prepared(Module(Small(channels=1), "small", image_size=None, channels=1))
    features, _ = extractor.extract(images)
    grey = (images.float().mean(dim=1, keepdim=True) / 255 - 0.5) / 0.5
    torch.testing.assert_close(features, extractor.network(grey))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("three", "small gives a tuple of 3, not features or a pair"),
        ("dictionary", "small gives a dict, not features or a pair"),
        ("one row", r"small gives torch.float32 \(1, 8\) for 2 images"),
        ("whole numbers", r"small gives torch.int64 \(2, 8\) for 2 images"),
        ("one number", r"small gives torch.float32 \(\) for 2 images"),
        ("infinite", "small gives NaN or infinity"),
    ],
)
def test_module_with_other_outputs_is_refused(outputs, message, images):
    extractor = prepared(Module(Small(outputs), "small", image_size=15))
    with pytest.raises(ValueError, match=message):
        extractor.extract(images)


@pytest.mark.parametrize("name", ["small.safetensors", "small.pth"])
def test_module_loads_its_weights(name, tmp_path, images):
    trained = Small()
    save = save_file if name.endswith("safetensors") else torch.save
    save(trained.state_dict(), tmp_path / name)
    loaded = prepared(Module(Small(), "small", 15, weights_path=str(tmp_path / name)))
    original = prepared(Module(trained, "small", 15))
    assert loaded.weights_hash() == original.weights_hash()
    assert torch.equal(loaded.extract(images)[0], original.extract(images)[0])


def test_module_refuses_weights_that_do_not_fit(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors does not fit small: .*Missing key"):
        Module(Small(), "small", 15, weights_path=str(tmp_path / "other.safetensors")).prepare(
            None, "cpu", Cache()
        )
    with pytest.raises(ValueError, match="absent is not a readable file of weights"):
        Module(Small(), "small", 15, weights_path=str(tmp_path / "absent")).prepare(None, "cpu", Cache())


def hash_of(network):
    return prepared(Module(network, "small", 15)).weights_hash()


def test_module_hash_covers_weights_and_structure():
    with torch.random.fork_rng():
        networks = {}
        for stride, seed in ((1, 0), (2, 0), (1, 1), (1, 0)):
            torch.manual_seed(seed)
            networks.setdefault((stride, seed), []).append(nn.Conv2d(3, 8, 3, stride=stride))
    first, again = (hash_of(network) for network in networks[1, 0])
    assert first == again
    assert len({first, hash_of(networks[2, 0][0]), hash_of(networks[1, 1][0])}) == 3


def test_module_hash_covers_the_code(tmp_path, monkeypatch):
    def network(code):
        path = tmp_path / "users_network.py"
        path.write_text(
            f"from torch import nn\n\n\nclass Net(nn.Identity):\n    def forward(self, x):\n        {code}\n"
        )
        spec = importlib.util.spec_from_file_location("users_network", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "users_network", module)
        linecache.clearcache()
        exec(path.read_text(), module.__dict__)
        return nn.Sequential(module.Net())

    first, again = hash_of(network("return x")), hash_of(network("return x"))
    assert first == again != hash_of(network("return x ** 2"))


def test_module_hash_holds_no_addresses_and_needs_no_code():
    namespace = {"nn": nn}
    exec(
        "class Net(nn.Identity):\n    def extra_repr(self):\n        return object.__repr__(self)", namespace
    )
    first, second = namespace["Net"](), namespace["Net"]()
    assert repr(first) != repr(second)
    assert hash_of(first) == hash_of(second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": "resnet"}, "module is a str, not a torch.nn.Module"),
        ({"name": ""}, "name is empty"),
        ({"channels": 2}, "channels is 2"),
        ({"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\], but there are 3 channels"),
        ({"std": 0.0}, "std is"),
        ({"image_size": 0}, "image_size is 0"),
        ({"resize": "nearest"}, "resize is nearest"),
    ],
)
def test_module_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Module(**({"module": Small(), "name": "small", "image_size": 15} | arguments))


def test_module_words_cover_all_that_changes_features():
    options = [
        {},
        {"image_size": 16},
        {"resize": "bilinear"},
        {"mean": 0.4},
        {"std": (0.5, 0.5, 0.4)},
        {"channels": 1},
        {"image_size": None},
    ]
    words = {Module(Small(), "small", **({"image_size": 15} | option)).resize for option in options}
    assert len(words) == len(options)
