"Published weights: what a file may name, both layouts of PyTorch, and the numbers of torchvision's networks."
import hashlib
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest

from emoart.core import checkpoints
from emoart.core.checkpoints import load_pth, published_file, read_pth
from emoart.core.files import InputError, NotRun
from emoart.models import backbones
from emoart.models.backbones import TORCHVISION, Torchvision, lite_file, torchvision_network


class Call:
    "A pickle of this calls a function when it is read."
    def __init__(self, function, *arguments): self.call = function, arguments
    def __reduce__(self): return self.call


def in_zip(path, pickled, storages={}, compression=zipfile.ZIP_STORED, order=b"little"):
    "An archive as PyTorch writes it since version 1.6."
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        for key, array in storages.items(): archive.writestr(f"archive/data/{key}", array.tobytes())


@pytest.fixture
def torch(monkeypatch):
    "Just enough of the names of PyTorch to write a pickle that asks for them."
    def named(module, name):
        made = type(name, (), {"__module__": module}) if name.endswith("Storage") else (lambda *arguments: arguments)
        made.__module__, made.__qualname__, made.__name__ = module, name, name
        return made
    for module, names in {"torch": ("FloatStorage", "LongStorage"), "torch._utils": ("_rebuild_tensor_v2",)}.items():
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: named(module, name) for name in names}))
    return sys.modules


class _Saved:
    "A tensor that is pickled as PyTorch does."
    def __init__(self, key, array, torch): self.key, self.array, self.torch = key, array, torch

    def __reduce__(self):
        kind = self.torch["torch"].LongStorage if self.array.dtype == np.int64 else self.torch["torch"].FloatStorage
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        storage = _Storage(("storage", kind, self.key, "cpu", self.array.size))
        tensor = storage, 0, self.array.shape, strides, False, OrderedDict()
        return self.torch["torch._utils"]._rebuild_tensor_v2, tensor


class _Storage(tuple):
    def __new__(cls, content): return super().__new__(cls, (content,))


class _Pickler(pickle.Pickler):
    def persistent_id(self, each): return each[0] if isinstance(each, _Storage) else None


def saved_as_torch(tensors, path, torch):
    "A checkpoint of arrays, as torch.save writes it."
    saved = [_Saved(str(i), array, torch) for i, array in enumerate(tensors.values())]
    table, content = OrderedDict(zip(tensors, saved)), io.BytesIO()
    table._metadata = OrderedDict(version=1) # as a state_dict has it
    _Pickler(content, 2).dump(table)
    in_zip(path, content.getvalue(), {str(i): array for i, array in enumerate(tensors.values())})


@pytest.mark.parametrize("hostile", [
    lambda p: Call(os.system, f"touch {p}"),
    lambda p: Call(eval, f"open({str(p)!r}, 'w')"),
    lambda p: Call(open, str(p), "w"),
    lambda p: {"a": Call(os.mkdir, str(p))}])
def test_a_hostile_pickle_runs_nothing(hostile, tmp_path):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(hostile(trace), 2))
    in_zip(tmp_path / "zipped.pth", path.read_bytes())
    for name in ("w.pth", "zipped.pth"):
        with pytest.raises(InputError, match="asks for"): read_pth(tmp_path / name)
    assert not trace.exists()
    pickle.loads(path.read_bytes()) # plain pickle does run it
    assert trace.exists()


def test_a_hostile_table_after_an_honest_beginning_runs_nothing(tmp_path):
    content, trace = io.BytesIO(lite_file().read_bytes()), tmp_path / "trace"
    for _ in range(3): pickle.load(content)
    beginning = content.getvalue()[:content.tell()]
    (tmp_path / "w.pth").write_bytes(beginning + pickle.dumps(Call(os.mkdir, str(trace)), 2))
    with pytest.raises(InputError, match="asks for"): read_pth(tmp_path / "w.pth")
    assert not trace.exists()


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path, monkeypatch, torch):
    saved_as_torch({"a": np.ones(3, "float32")}, tmp_path / "w.pth", torch)
    def beyond(storage, offset, *rest): return checkpoints._tensor(storage, offset + 10**9, *rest)
    monkeypatch.setitem(checkpoints._ADMITTED, ("torch._utils", "_rebuild_tensor_v2"), beyond)
    for path in (lite_file(), tmp_path / "w.pth"):
        with pytest.raises(InputError, match="not a table of PyTorch tensors"): read_pth(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"\x80\x02K\x01." * 5])
def test_what_is_no_weights_file(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match="w.pth is not a table"): read_pth(tmp_path / "w.pth")


def test_what_is_no_archive_of_tensors(tmp_path):
    table = pickle.dumps(OrderedDict(), 2)
    cases = ((dict(compression=zipfile.ZIP_DEFLATED), "compressed"), (dict(order=b"big"), "highest byte"))
    for options, sentence in cases:
        in_zip(tmp_path / "w.pth", table, **options)
        with pytest.raises(InputError, match=sentence): read_pth(tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive: archive.writestr("note.txt", "nothing")
    with pytest.raises(InputError, match="w.pth is not a table"): read_pth(tmp_path / "w.pth")


def test_what_was_saved_is_read(tmp_path, torch):
    random = np.random.default_rng(0)
    tensors = {"a.weight": random.normal(size=(3, 4)).astype("float32"), "a.num_batches_tracked": np.array(7)}
    saved_as_torch(tensors, tmp_path / "w.pth", torch)
    found = read_pth(tmp_path / "w.pth")
    assert list(found) == list(tensors)
    for name, array in tensors.items(): np.testing.assert_array_equal(found[name], array)


# The networks once more, in plain NumPy, one picture, channels first.

def conv(x, w, b=None, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    k = w.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    found = np.einsum("chwij,ocij->ohw", windows, w)
    return found if b is None else found + b[:, None, None]


def pool(x, k, stride, padding=0):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride].max((-1, -2))


def relu(x): return np.maximum(x, 0)


def bn(x, t, name):
    kinds = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (t[f"{name}.{kind}"][:, None, None] for kind in kinds)
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def fc(x, t, name): return t[f"{name}.weight"] @ x + t[f"{name}.bias"]


def numpy_alexnet(x, t):
    for number, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        x = relu(conv(x, t[f"features.{number}.weight"], t[f"features.{number}.bias"], stride, padding))
        if number in (0, 3, 10): x = pool(x, 3, 2)
    return relu(fc(relu(fc(x.ravel(), t, "classifier.1")), t, "classifier.4"))


def numpy_vgg(x, t):
    number = 0
    for n in (1, 2, 1, 1, 1):
        for _ in range(n):
            x = conv(x, t[f"features.{number}.weight"], t[f"features.{number}.bias"], 1, 1)
            x = relu(bn(x, t, f"features.{number + 1}"))
            number += 3
        x, number = pool(x, 2, 2), number + 1
    return relu(fc(relu(fc(x.ravel(), t, "classifier.0")), t, "classifier.3"))


def numpy_resnet(x, t):
    x = pool(relu(bn(conv(x, t["conv1.weight"], None, 2, 3), t, "bn1")), 3, 2, 1)
    for stage, n in enumerate((1, 2, 1, 1)):
        for i in range(n):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            y = relu(bn(conv(x, t[f"{name}.conv1.weight"]), t, f"{name}.bn1"))
            y = relu(bn(conv(y, t[f"{name}.conv2.weight"], None, stride, 1), t, f"{name}.bn2"))
            y = bn(conv(y, t[f"{name}.conv3.weight"]), t, f"{name}.bn3")
            if i == 0: x = bn(conv(x, t[f"{name}.downsample.0.weight"], None, stride), t, f"{name}.downsample.1")
            x = relu(x + y)
    return x.mean((1, 2))


SMALL = { # name -> (the same network at a small size, how it is reckoned in NumPy, pixels)
    "alexnet": (partial(backbones._alexnet_maps, filters=(4, 6, 8, 6, 5)), partial(backbones._alexnet_hidden, units=9),
                numpy_alexnet, 95),
    "vgg19_bn": (partial(backbones._vgg19_bn_maps, filters=(3, 4, 5, 6, 5), repeats=(1, 2, 1, 1, 1)),
                 partial(backbones._vgg19_bn_hidden, units=7), numpy_vgg, 64),
    "resnet101": (partial(backbones._resnet_maps, blocks=(1, 2, 1, 1), width=4), TORCHVISION["resnet101"].hidden,
                  numpy_resnet, 49)}


def as_torch(model):
    "Random tensors for every layer of a network, named and laid out as PyTorch has them."
    random, tensors = np.random.default_rng(0), {}
    kinds = {"BatchNormalization": ("weight", "bias", "running_mean", "running_var")}
    axes = {"Conv2D": (3, 2, 0, 1), "Dense": (1, 0)}
    for layer in (layer for layer in model.layers if layer.weights):
        name = layer.name.replace("_conv", ".conv").replace("_bn", ".bn")
        for part in ("features", "classifier", "downsample", "layer1", "layer2", "layer3", "layer4"):
            name = name.replace(f"{part}_", f"{part}.").replace(f"_{part}", f".{part}")
        for kind, w in zip(kinds.get(type(layer).__name__, ("weight", "bias")), layer.weights):
            shape = [w.shape[i] for i in axes[type(layer).__name__]] if len(w.shape) > 1 else w.shape
            values = random.normal(0, 1 / np.sqrt(np.prod(shape[1:]) or 1), shape)
            tensors[f"{name}.{kind}"] = (np.abs(values) + 0.5 if kind == "running_var" else values).astype("float32")
        if layer.name.startswith("bn"): tensors[f"{name}.num_batches_tracked"] = np.array(3)
    return tensors


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_give_the_numbers_of_their_checkpoints(name, tmp_path, monkeypatch, torch):
    maps, hidden, reckoned, size = SMALL[name]
    monkeypatch.setitem(TORCHVISION, name, Torchvision("small-00000000.pth", "last", maps, hidden))
    tensors = as_torch(torchvision_network(name, size, "random"))
    saved_as_torch(tensors, tmp_path / "small.pth", torch)
    network = torchvision_network(name, size, tmp_path / "small.pth")
    picture = np.random.default_rng(1).integers(0, 256, (1, size, size, 3)).astype("float32")
    normalized = (picture[0] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = reckoned(normalized.transpose(2, 0, 1), tensors)
    np.testing.assert_allclose(network(picture)[0], expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 1e-3
    del tensors[next(iter(tensors))]
    saved_as_torch(tensors, tmp_path / "less.pth", torch)
    with pytest.raises(InputError, match=f"has no weights for .* of {name}"):
        torchvision_network(name, size, tmp_path / "less.pth")


def test_a_published_network_is_fetched_once_and_checked(server, tmp_path, monkeypatch, torch):
    folder, address = server
    maps, hidden, _, size = SMALL["resnet101"]
    monkeypatch.setattr(backbones, "WORK", tmp_path)
    monkeypatch.setattr(backbones, "TORCHVISION_ADDRESS", address)
    def published(file): monkeypatch.setitem(TORCHVISION, "resnet101", Torchvision(file, "fc", maps, hidden))
    published("small-00000000.pth")
    tensors = as_torch(torchvision_network("resnet101", size, "random"))
    saved_as_torch(tensors, folder / "small-00000000.pth", torch)
    with pytest.raises(NotRun, match="what came is not that file"): torchvision_network("resnet101", size)
    assert not list((tmp_path / "data" / "cache" / "weights").iterdir())
    content = (folder / "small-00000000.pth").read_bytes()
    right = f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published(right)
    with pytest.raises(NotRun, match="404.*put that file into"): torchvision_network("resnet101", size)
    (folder / right).write_bytes(content)
    first = torchvision_network("resnet101", size).get_weights()
    (folder / right).unlink()
    for a, b in zip(first, torchvision_network("resnet101", size).get_weights()): np.testing.assert_array_equal(a, b)
    (tmp_path / "data" / "cache" / "weights" / right).write_bytes(b"another")
    with pytest.raises(InputError, match="is not the file that is published"): torchvision_network("resnet101", size)


def test_nobody_answers(tmp_path):
    with pytest.raises(NotRun, match="w-1.pth cannot be had from http://127.0.0.1:9.*put that file into"):
        published_file("http://127.0.0.1:9", "w-1.pth", tmp_path / "new")


@pytest.mark.parametrize("name", ["torchvision-AlexNet", "torchvision-vgg19_bn", "torchvision-resnet101"])
def test_they_are_backbones(name):
    assert backbones.extractor(name, 64, "random").output_shape[1] in (256, 512, 2048)
