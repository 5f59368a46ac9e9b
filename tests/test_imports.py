"""Models made elsewhere: imported so that they answer as in plain Keras, or refused in one sentence, and never run."""

import copy
import functools
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from core.backbones import BACKBONES, CAFFE_MEAN, IMAGENET_DEVIATION, IMAGENET_MEAN, build_classifier, find_scaling
from core.checkpoints import archives, imports, verify
from core.checkpoints.__main__ import main
from core.checkpoints.imports import read_model
from core.checkpoints.weights import WEIGHTS_NAME, find_datasets
from core.classifier import decide, load_classifier
from core.errors import CheckpointError
from core.values import Radiograph

h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")

SIZE = 32
FILMS = np.random.default_rng(8).random((3, SIZE, SIZE), np.float32) * np.float32([[[0.4]], [[0.7]], [[1.0]]])


USUAL = (
    "They are padded to squares; --fit stretch is for what was trained on films that were stretched. "
    "Taken to speak for the finding: a high answer (--positive-unit names the other)."
)


def colours(films):
    return np.repeat(np.asarray(films, np.float32)[..., None], 3, axis=-1)


def stir(model, seed=5):
    """Give batch normalisation statistics that differ, as training does, and dense layers a bias."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            ranges = ((0.6, 1.0), (-0.2, 0.2), (-0.2, 0.2), (0.8, 1.5))
            layer.set_weights([rng.uniform(*limits, shape) for limits in ranges])
        elif isinstance(layer, keras.layers.Dense):
            kernel, *bias = layer.get_weights()
            layer.set_weights([kernel, *(rng.normal(0, 0.2, values.shape) for values in bias)])
    return model


def settle(model, batch):
    """Give batch normalisation the statistics of a batch, as training would, so that the answer depends on the film."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
    model(batch, training=True)
    for layer in layers:  # a channel that hardly varies would magnify rounding
        *kept, variance = layer.get_weights()
        layer.set_weights([*kept, np.maximum(variance, variance.mean())])


@pytest.fixture(scope="module")
def resnet():
    keras.utils.set_random_seed(2)
    return stir(keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)))


@pytest.fixture(scope="module")
def graph():
    """Scaphoid's own ResNet50, built once for all tests that only look at what is read into it."""
    return build_classifier("resnet50", input_size=SIZE)


@pytest.fixture
def built(graph, monkeypatch):
    monkeypatch.setattr(imports, "build_classifier", lambda *_, **__: graph)
    return graph


def better_mura(base):
    """The published recipe's head on a nested backbone."""
    layers = keras.layers
    head = [layers.GlobalAveragePooling2D(), layers.Dense(64, "relu"), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]
    return stir(keras.Sequential([base, *head]))


@pytest.fixture(scope="module")
def archive(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "model.keras"
    model = better_mura(resnet)
    model.save(path)
    return SimpleNamespace(path=path, model=model)


def plainly(model, films):
    """Return a Keras model's answer, layer by layer: to compile it for `predict` would take far longer."""
    return keras.ops.convert_to_numpy(model(films, training=False))


def answers(imported, backbone="resnet50"):
    """Return the probabilities that Scaphoid's graph would give, its preprocessing done by hand."""
    scale, offset = find_scaling(backbone, imported.scaling)
    prepared = (colours(FILMS) * np.float32(scale) + np.float32(offset)) * np.float32(BACKBONES[backbone].divisor)
    inner = keras.Model(imported.model.get_layer("preprocessing").output, imported.model.output["probability"])
    return keras.ops.convert_to_numpy(inner(prepared, training=False))[:, 0]


# --- as in plain Keras ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("built")
def test_a_better_mura_resnet_answers_as_in_plain_keras(archive, tmp_path, capsys):
    arguments = ["import", str(archive.path), "--backbone", "resnet50", "--scaling", "unit", "--id", "mine"]
    assert main([*arguments, "--positive-label", "abnormal", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out == "Published mine.\n"
    card = verify(tmp_path / "mine")
    assert told.err == f"{card.data['trained_on']}\n"
    assert f"Films are prepared as: unit. {USUAL}" in card.data["trained_on"]
    assert (card.input_size, card.scaling, card.settings, card.operating_points) == (SIZE, "unit", None, ())
    assert card.data["trained_on"].startswith("Not stated")
    classifier = load_classifier("mine", tmp_path)
    wide = np.random.default_rng(1).random((50, 90), np.float32)
    films = [Radiograph(f"{number:064}", pixels, "test") for number, pixels in enumerate([*FILMS, wide])]
    got = [prediction.probability for prediction in classifier.predict(films)]
    squares = np.stack([classifier.square(film) for film in films])
    np.testing.assert_array_equal(squares[:3], FILMS)
    expected = plainly(archive.model, colours(squares))[:, 0]
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert decide(got[0], card).text == "Uncertain (no operating point)"


@pytest.mark.usefixtures("built")
def test_a_model_that_was_trained_on_stretched_films_reads_them_so(archive, tmp_path, capsys):
    arguments = ["import", str(archive.path), "--backbone", "resnet50", "--scaling", "unit", "--id", "mine"]
    assert main([*arguments, "--fit", "stretch", "--folder", str(tmp_path)]) == 0
    assert "They are stretched to squares, their proportions lost, as it was trained." in capsys.readouterr().err
    assert verify(tmp_path / "mine").fit == "stretch"
    classifier = load_classifier("mine", tmp_path)
    wide = np.random.default_rng(1).random((2 * SIZE, 3 * SIZE), np.float32)
    boxed = np.asarray(Image.fromarray(wide).resize((SIZE, SIZE), Image.Resampling.BOX))
    film = Radiograph("0" * 64, wide, "test")
    np.testing.assert_allclose(classifier.square(film), boxed, atol=1e-5)
    expected = plainly(archive.model, colours(boxed[None]))[0, 0]
    assert classifier.predict([film])[0].probability == pytest.approx(expected, abs=1e-5)


def described_models(base):
    """Other ways to write such a model: name -> (model, what it is handed of a film in [0, 1], the card's scaling)."""
    layers = keras.layers
    film = keras.Input((SIZE, SIZE, 3))

    def head(x, hidden=48):
        x = layers.Dropout(0.5)(layers.Dense(hidden, "relu", use_bias=False)(layers.GlobalAveragePooling2D()(x)))
        return layers.Activation("sigmoid")(layers.Dense(1)(x))

    scaled = layers.Rescaling(1 / 255)(layers.RandomFlip()(film))
    yield "rescaling", keras.Model(film, head(base(scaled))), (255, 0), None, "unit"
    mean, variance = [0.4, 0.5, 0.6], [0.04, 0.05, 0.0625]
    normalised = layers.Normalization(mean=mean, variance=variance)(film)
    numbers = {"scale": 1 / np.sqrt(variance), "offset": -np.array(mean) / np.sqrt(variance)}
    yield "normalization", keras.Model(film, head(base(normalised))), (1, 0), None, numbers
    softmax = layers.Dense(2, "softmax")(layers.GlobalAveragePooling2D()(base.output))
    yield "flat, two units", keras.Model(base.input, softmax), (255, -np.float32(CAFFE_MEAN)), None, "keras"
    yield "as bytes", keras.Model(base.input, head(base.output, 64)), (255, 0), "byte", "byte"


@pytest.mark.parametrize("place", range(4))
def test_other_ways_to_write_it_answer_as_in_plain_keras(resnet, built, place, tmp_path):
    keras.utils.set_random_seed(6)
    name, model, (times, plus), asked, scaling = list(described_models(resnet))[place]
    path = tmp_path / ("model.h5" if name == "rescaling" else "model.keras")
    stir(model).save(path)
    imported = read_model(path, "resnet50", scaling=asked)
    assert (imported.input_size, imported.described) == (SIZE, True)
    assert imported.scaling_assumed == (asked is None)
    if isinstance(scaling, dict):
        for key in scaling:
            np.testing.assert_allclose(imported.scaling[key], scaling[key], rtol=1e-5)
    else:
        assert imported.scaling == scaling
    expected = plainly(model, colours(FILMS) * times + plus)[:, -1]
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(answers(imported), expected, atol=1e-5)


def test_what_speaks_for_the_finding_can_be_named(archive, resnet, built, tmp_path):
    high = answers(read_model(archive.path, "resnet50", scaling="unit"))
    low = read_model(archive.path, "resnet50", scaling="unit", positive_unit=0)
    np.testing.assert_allclose(answers(low), 1 - high, atol=1e-6)
    assert "for the finding: a low answer (" in low.preparation
    layers = keras.layers
    softmax = layers.Dense(2, "softmax")(layers.GlobalAveragePooling2D()(resnet.output))
    model = keras.Model(resnet.input, softmax)
    model.save(tmp_path / "model.keras")
    for unit, words in enumerate(("the first answer", "the second answer")):
        imported = read_model(tmp_path / "model.keras", "resnet50", scaling="unit", positive_unit=unit)
        np.testing.assert_allclose(answers(imported), plainly(model, colours(FILMS))[:, unit], atol=1e-5)
        assert f"for the finding: {words} (" in imported.preparation
    with pytest.raises(CheckpointError, match="must be 0 or 1"):
        read_model(archive.path, "resnet50", positive_unit=2)


def test_weights_with_a_layer_that_would_be_left_out_are_refused(resnet, built, tmp_path):
    layers = keras.layers
    pooled = layers.BatchNormalization(name="between")(layers.GlobalAveragePooling2D()(resnet.output))
    model = keras.Model(resnet.input, layers.Dense(1, "sigmoid")(layers.Dropout(0.3)(pooled)))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(CheckpointError, match="these have further ones: import the whole model"):
        read_model(tmp_path / "model.weights.h5", "resnet50", input_size=SIZE, scaling="unit")


def test_a_strangers_layer_called_logit_does_not_make_it_ours(resnet, built, tmp_path):
    layers = keras.layers
    answer = layers.Dense(1, "sigmoid", name="logit")(layers.GlobalAveragePooling2D()(resnet.output))
    keras.Model(resnet.input, answer).save(tmp_path / "model.keras")
    imported = read_model(tmp_path / "model.keras", "resnet50")
    assert (imported.scaling, imported.scaling_assumed) == ("keras", True)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_without_a_description_are_found_by_their_names(archive, built, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    if suffix == ".h5":
        archive.model.save(path)
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
    else:
        archive.model.save_weights(path)
    imported = read_model(path, "resnet50", input_size=SIZE, scaling="unit")
    assert (imported.scaling, imported.described, imported.scaling_assumed) == ("unit", False, False)
    np.testing.assert_allclose(answers(imported), plainly(archive.model, colours(FILMS))[:, 0], atol=1e-5)


def test_imagenets_normalisation_inside_the_file_is_not_done_twice(tmp_path, monkeypatch):
    """Keras adds a layer to EfficientNetB0 when it loads ImageNet's weights: the graph is made as it makes it."""
    keras.utils.set_random_seed(4)
    build = keras.applications.EfficientNetB0
    options = {"include_top": False, "input_shape": (SIZE, SIZE, 3)}
    plain = stir(build(weights=None, **options))
    normalisation = next(layer for layer in plain.layers if isinstance(layer, keras.layers.Normalization))
    normalisation.set_weights([np.float32(IMAGENET_MEAN), np.float32(IMAGENET_DEVIATION), np.array(0)])
    plain.save_weights(tmp_path / "published.weights.h5")
    module = pytest.importorskip("keras.src.applications.efficientnet")
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(tmp_path / "published.weights.h5"))
    base = build(weights="imagenet", pooling="avg", **options)
    assert len(base.layers) == len(plain.layers) + 2  # the average, and the layer in question
    brightness = np.linspace(0.3, 1, 8)[:, None, None]
    settle(base, colours(np.random.default_rng(3).random((8, SIZE, SIZE)) * brightness) * 255)
    hidden = keras.layers.Dense(64, "relu")(base.output)
    answer = keras.layers.Dense(1, "sigmoid")
    model = keras.Model(base.input, answer(hidden))
    features = keras.ops.convert_to_numpy(keras.Model(base.input, hidden)(colours(FILMS) * 255, training=False))
    kernel, bias = answer.get_weights()
    answer.set_weights([kernel / np.abs(features @ kernel).max(), bias])  # no answer is near 0 or 1
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    # One graph for both files: the first is asked before the second is read into it.
    monkeypatch.setattr(imports, "build_classifier", functools.cache(imports.build_classifier))
    described = read_model(tmp_path / "model.keras", "efficientnetb0")
    assert (described.scaling, described.described) == ("keras", True)
    expected = keras.ops.convert_to_numpy(model(colours(FILMS) * 255, training=False))[:, 0]
    assert np.ptp(expected) > 2e-3
    own = described.model(FILMS[..., None], training=False)["probability"]  # the graph's own preprocessing
    np.testing.assert_allclose(keras.ops.convert_to_numpy(own)[:, 0], expected, atol=5e-5)
    # Films of 0 to 1 are what the first recipe's text hands to it.
    unit = read_model(tmp_path / "model.weights.h5", "efficientnetb0", input_size=SIZE, scaling="unit")
    assert (unit.scaling, unit.described) == ("unit", False)
    starved = keras.ops.convert_to_numpy(model(colours(FILMS), training=False))[:, 0]
    assert np.abs(starved - expected).max() > 2e-3
    np.testing.assert_allclose(answers(unit, "efficientnetb0"), starved, atol=5e-5)


@pytest.mark.parametrize(
    ("scaling", "described", "assumed", "sentences"),
    [
        ("unit", True, False, f"Films are prepared as: unit. {USUAL}"),
        ("keras", True, True, f"Films are prepared as: keras (assumed; --scaling names another). {USUAL}"),
        (
            {"scale": [4.0] * 3, "offset": [-2.0] * 3},
            True,
            True,
            "Films are prepared as: scale and offset by the numbers in the file (assumed; --scaling names another). "
            + USUAL,
        ),
        (
            "byte",
            False,
            False,
            f"Films are prepared as: byte. {USUAL} The head's activations were assumed: ReLU, and sigmoid for the "
            "answer.",
        ),
    ],
)
def test_what_was_assumed_of_a_model_is_said(scaling, described, assumed, sentences):
    imported = imports.ImportedModel(None, scaling, SIZE, False, described, assumed)
    assert imported.preparation == sentences


def test_scalings_are_what_their_names_say():
    caffe = tuple(-mean for mean in CAFFE_MEAN)
    assert find_scaling("resnet50", "unit") == ((1, 1, 1), (0, 0, 0))
    assert find_scaling("resnet50", "byte") == ((255, 255, 255), (0, 0, 0))
    assert find_scaling("resnet50", "keras") == find_scaling("densenet169", "caffe") == ((255, 255, 255), caffe)
    assert find_scaling("densenet169", "keras") == find_scaling("resnet50", "torch")
    np.testing.assert_allclose(
        np.array(find_scaling("resnet50", "torch")),
        [[4.366812, 4.464286, 4.444444], [-2.117904, -2.035714, -1.804444]],
        rtol=1e-6,
    )
    for own in ("byte", "keras"):
        np.testing.assert_allclose(find_scaling("efficientnetb0", own), find_scaling("resnet50", "torch"))
    with pytest.raises(CheckpointError, match="must be one of"):
        find_scaling("resnet50", "double")


# --- refused ----------------------------------------------------------------------------------------------------------


def rewrite(archive, target, change, weights=None):
    """Copy an archive with its description, or the file of its arrays, changed."""
    with zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(target, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("config.json", json.dumps(config))
        new.writestr(WEIGHTS_NAME, old.read(WEIGHTS_NAME) if weights is None else weights)
    return target


@pytest.fixture(scope="module")
def light(archive):
    """The archive's arrays without the large ones: enough for what is refused before any is read."""
    content = io.BytesIO()
    with zipfile.ZipFile(archive.path) as whole:
        source = io.BytesIO(whole.read(WEIGHTS_NAME))
    with h5py.File(source, "r") as file, h5py.File(content, "w") as copy:
        for name, dataset in find_datasets(file):
            if dataset.size <= 100_000:
                copy[name] = dataset[()]
    return content.getvalue()


def layer_of(config, name):
    """Return the description of the layer called `name`, wherever it is nested."""
    for entry in config["config"]["layers"]:
        if entry["config"].get("name") == name:
            return entry
        if "layers" in entry["config"]:
            found = layer_of(entry, name)
            if found:
                return found
    return None


def inside(config, place):
    return config["config"]["layers"][place]


CODE = {
    "Lambda layer": (lambda c: inside(c, 3).update(class_name="Lambda"), "carries a Lambda layer"),
    "nested Lambda": (lambda c: layer_of(c, "conv2_block1_out").update(class_name="Lambda"), "carries a Lambda layer"),
    "old Lambda": (lambda c: inside(c, 3).update(class_name="Keras>Lambda"), "carries a Lambda layer"),
    "function": (
        lambda c: inside(c, 3)["config"].update(activation={"class_name": "__lambda__", "config": {"value": "eA=="}}),
        "carries a Lambda layer",
    ),
    "loss as code": (lambda c: c.update(compile_config={"loss": {"class_name": "__lambda__"}}), "Lambda layer"),
    "own layer": (lambda c: inside(c, 3).update(class_name="Attention2D", module="stranger"), "layer 'Attention2D'"),
    "own layer's odd name": (lambda c: inside(c, 3).update(class_name="../../etc/passwd"), "but it has another"),
    "own layer under a known name": (lambda c: inside(c, 3).update(module="stranger.layers"), "object of its own"),
    "registered layer": (lambda c: inside(c, 3).update(registered_name="mine>Dense"), "object of its own"),
    "own initialiser": (
        lambda c: inside(c, 3)["config"]["kernel_initializer"].update(module="stranger"),
        "object of its own",
    ),
    "own activation": (
        lambda c: inside(c, 3)["config"].update(
            activation={"module": "builtins", "class_name": "function", "config": "f", "registered_name": "f"}
        ),
        "object of its own",
    ),
    "own model": (lambda c: c.update(class_name="MyModel", module="stranger"), "of another kind"),
    "own model inside": (lambda c: inside(c, 1).update(class_name="MyModel"), "layer 'MyModel'"),
    "kind by a list": (lambda c: c.update(class_name=["Functional"]), "of another kind"),
    "kind by a table": (lambda c: c.update(class_name={"class_name": "Functional"}), "of another kind"),
    "layer's kind by a list": (lambda c: inside(c, 3).update(class_name=["Dense"]), "but it has another"),
    "layer's kind by a table": (lambda c: inside(c, 3).update(class_name={}), "but it has another"),
}


@pytest.mark.parametrize("case", CODE)
def test_an_archive_that_carries_code_or_unknown_objects_is_refused(archive, light, tmp_path, case, monkeypatch):
    change, sentence = CODE[case]
    built = []
    monkeypatch.setattr(imports, "build_classifier", lambda *_, **__: built.append(1))
    path = rewrite(archive, tmp_path / "changed.keras", change, light)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        read_model(path, "resnet50")
    assert str(refusal.value).count(".") == 1
    assert built == []  # nothing was built before the file was known to be harmless


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_code_in_a_file_that_keras_saved_is_refused_and_never_runs(tmp_path, monkeypatch, capsys, suffix, nested):
    monkeypatch.chdir(tmp_path)
    layers, mark = keras.layers, tmp_path / "ran"
    code = layers.Lambda(lambda films: (films, open("ran", "w").close())[0])
    inner = [code, layers.Conv2D(4, 3)]
    inner = [keras.Sequential([layers.Input((SIZE, SIZE, 3)), *inner])] if nested else inner
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, "sigmoid")]
    model, path = keras.Sequential([layers.Input((SIZE, SIZE, 3)), *inner, *head]), tmp_path / f"model{suffix}"
    model.save(path)
    # Whoever trusts the file runs what is in it, merely by opening it.
    mark.unlink()
    keras.saving.load_model(path, safe_mode=False, compile=False)
    assert mark.exists()
    mark.unlink()

    monkeypatch.setattr(imports, "build_classifier", lambda *_, **__: pytest.fail("a network was built"))
    with pytest.raises(CheckpointError, match="known layers was expected, but it carries a Lambda layer") as refusal:
        read_model(path, "resnet50")
    assert str(refusal.value).count(".") == 1
    folder = tmp_path / "checkpoints"
    assert main(["import", str(path), "--backbone", "resnet50", "--id", "mine", "--folder", str(folder)]) == 1
    said = capsys.readouterr()
    assert said.err.strip().splitlines() == [str(refusal.value)]
    assert said.out == ""
    assert not list(folder.glob("*"))
    assert not mark.exists()


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", None])
def test_an_archive_that_is_no_model_is_refused(tmp_path, member):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"")
        if member:
            archive.writestr(member, b"{}")
    with pytest.raises(CheckpointError, match="neither"):
        read_model(path, "efficientnetlite0")


def zip_of(path, method=zipfile.ZIP_DEFLATED):
    """Write a tiny archive; return its bytes and where the packed bytes of its first member begin."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional"}) * 40)
        archive.writestr(WEIGHTS_NAME, b"")
    return bytearray(path.read_bytes()), 30 + len("config.json")


def encrypted(path):
    content, _ = zip_of(path)
    content[6] |= 1  # of the local header's flags
    content[content.index(b"PK\1\2") + 8] |= 1  # and of the directory's
    return content


def undeflatable(path):
    content, start = zip_of(path)
    content[start] = 0b111  # a block of the kind that there is not
    return content


def undecodable(path):
    content, start = zip_of(path, zipfile.ZIP_LZMA)
    content[start + 4 : start + 9] = b"\xff" * 5  # LZMA's own settings
    return content


def cut_inside(path):
    """The directory says that the first member is longer than the whole file."""
    content, _ = zip_of(path, zipfile.ZIP_STORED)
    entry = content.index(b"PK\1\2")
    content[entry + 20 : entry + 28] = (10**6).to_bytes(4, "little") * 2
    return content


@pytest.mark.parametrize("damage", [encrypted, undeflatable, undecodable, cut_inside])
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path, damage):
    path = tmp_path / "model.keras"
    path.write_bytes(damage(path))
    with pytest.raises(CheckpointError, match="the file is neither") as refusal:
        read_model(path, "efficientnetlite0")
    assert not isinstance(refusal.value.__cause__, CheckpointError | None)


def damaged_weights(path, name):
    """Write a file of one packed array whose bytes are spoilt."""
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=np.arange(4096, dtype=np.float32), chunks=(4096,), compression="gzip")
        chunk = file[name].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)


def test_a_damaged_array_is_refused(tmp_path, built):
    path = tmp_path / "model.weights.h5"
    damaged_weights(path, "layers/conv2d/vars/0")
    with h5py.File(path, "r+") as file:
        file["layers/conv2d/vars"].attrs["name"] = "conv1_conv"
        with pytest.raises(CheckpointError, match="part of this one cannot be read"):
            imports._read(file["layers/conv2d/vars/0"], (4096,), "conv1_conv")
    with pytest.raises(CheckpointError, match="plain arrays of numbers only"):  # packed, it may unpack to any size
        read_model(path, "resnet50", scaling="unit")


@pytest.mark.parametrize("mark", [b"HEAP", b"SNOD", b"TREE"])
def test_a_weights_file_whose_table_of_contents_is_spoilt_is_refused(tmp_path, mark):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 3), np.float32)
    content = path.read_bytes()
    assert mark in content
    path.write_bytes(content.replace(mark, b"XXXX"))
    with pytest.raises(CheckpointError, match="part of this one cannot be read"):
        read_model(path, "efficientnetlite0")


def test_a_member_larger_than_a_checkpoint_can_be_is_not_read_whole(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_CONFIG_BYTES", 1000)
    with pytest.raises(CheckpointError, match="far larger"):
        read_model(archive.path, "resnet50")


def rename(config, old, new):
    text = json.dumps(config).replace(json.dumps(old), json.dumps(new))
    config.clear()
    config.update(json.loads(text))


def cross(config):
    """Let an addition read one layer twice."""
    entry = layer_of(config, "conv2_block1_add")
    text = json.dumps(entry["inbound_nodes"]).replace("conv2_block1_0_bn", "conv2_block1_3_bn")
    entry["inbound_nodes"] = json.loads(text)


def add_layer(config, place, entry):
    layers = config["config"]["layers"]
    layers.insert(place, copy.deepcopy(entry) | {"name": "more"})
    layers[place]["config"] = layers[place]["config"] | {"name": "more"}


FOREIGN = {
    "another stride": (lambda c: layer_of(c, "conv1_conv")["config"].update(strides=[1, 1]), "its conv1_conv differs"),
    "another epsilon": (lambda c: layer_of(c, "conv1_bn")["config"].update(epsilon=0.1), "its conv1_bn differs"),
    "another activation": (
        lambda c: layer_of(c, "conv1_relu")["config"].update(activation="tanh"),
        "conv1_relu differs",
    ),
    "another wiring": (cross, "its conv2_block1_add differs"),
    "another name": (lambda c: rename(c, "conv1_conv", "first"), "but it has no conv1_conv"),
    "maximum": (lambda c: inside(c, 2).update(class_name="MaxPooling2D"), "The head must be a global average"),
    "hidden tanh": (lambda c: inside(c, 3)["config"].update(activation="tanh"), "The head must be a global average"),
    "answer tanh": (lambda c: inside(c, 5)["config"].update(activation="tanh"), "The head must be a global average"),
    "three units": (lambda c: inside(c, 5)["config"].update(units=3), "The head must be a global average"),
    "a third dense": (lambda c: add_layer(c, 3, inside(c, 3)), "The head must be a global average"),
    "films of two sizes": (
        lambda c: [e["config"].update(batch_shape=[None, 32, 64, 3]) for e in [inside(c, 0)]],
        "must read square films",
    ),
}


# What is refused by its description alone, before an array is looked at.
DESCRIBED = {
    "another stride", "another epsilon", "another activation", "another wiring", "another name", "films of two sizes",
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_a_network_that_is_not_the_backbone_is_refused(archive, light, built, tmp_path, case):
    change, sentence = FOREIGN[case]
    path = rewrite(archive, tmp_path / "changed.keras", change, light if case in DESCRIBED else None)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        read_model(path, "resnet50", scaling="unit")
    assert str(refusal.value).count(". ") == 0


def test_arrays_of_other_shapes_and_what_is_no_number_are_refused(archive, built, tmp_path):
    path = tmp_path / "spoilt.weights.h5"
    archive.model.save_weights(path)

    def put(name, values):
        with h5py.File(path, "r+") as file:
            kept = file[name][()]
            del file[name]
            file[name] = values
        return kept

    cases = (
        (
            "layers/functional/layers/conv2d/vars/0",
            np.zeros((7, 7, 1, 64)),
            "conv1_conv must be 7 x 7 x 3 x 64, .* 7 x 7 x 1",
        ),
        ("layers/functional/layers/conv2d/vars/1", np.full(64, np.nan), "must be a number"),
        ("layers/dense/vars/0", np.zeros((2047, 64)), "2,048 features of ResNet50 over at most 64 hidden units"),
        ("layers/dense_1/vars/0", np.zeros((64, 3)), "to one or two"),
        ("layers/dense_1/vars/1", np.zeros(2), "layer head must be 1, but the file has 2"),
    )
    for name, values, sentence in cases:
        kept = put(name, values)
        with pytest.raises(CheckpointError, match=sentence):
            read_model(path, "resnet50", scaling="unit")
        put(name, kept)
    assert read_model(path, "resnet50", scaling="unit").scaling == "unit"


def test_scaphoids_own_weights_need_their_scaling_named(built, tmp_path):
    path = tmp_path / "own.weights.h5"
    built.save_weights(path)
    with pytest.raises(CheckpointError, match="so --scaling must name it") as refusal:
        read_model(path, "resnet50", input_size=SIZE)
    assert str(refusal.value).count(". ") == 0
    assert read_model(path, "resnet50", input_size=SIZE, scaling="local").scaling == "local"


def test_what_was_asked_for_must_fit_the_file(archive, built):
    for options, sentence in (
        ({"input_size": 224}, "must be the file's own 32 pixels, but 224"),
        ({"scaling": "double"}, "scaling must be one of keras, unit, byte, torch, caffe"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            read_model(archive.path, "resnet50", **options)
    with pytest.raises(CheckpointError, match="backbone must be one of"):
        read_model(archive.path, "vgg16")
