"""The callback watches a real `keras.Model.fit` on the torch backend."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import harness
from harness.errors import HarnessError

pytestmark = [
    pytest.mark.service,  # the import of the library takes many seconds
    pytest.mark.skipif(find_spec("keras") is None, reason="the extra `keras` is not installed"),
]


@pytest.fixture
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")  # read once, by the first import
    import keras

    if keras.backend.backend() != "torch":
        pytest.skip("keras runs on another backend than torch")
    return keras


ROWS = np.random.default_rng(0).normal(size=(640, 6)).astype("float32")


def built(keras):
    """Unit 1 of `code` is dead, and unit 2 of `inside`, a layer of a nested model."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="inside")], name="nested")
    inputs = keras.Input((6,))
    code = keras.layers.Dense(4, activation="relu", name="code")(keras.layers.Dropout(0.1)(inputs))
    hidden = keras.layers.ReLU()(inner(code))
    outputs = keras.layers.Dense(6, name="decoder")(keras.layers.BatchNormalization()(hidden))
    model = keras.Model(inputs, outputs)
    for layer, unit in ((model.get_layer("code"), 1), (inner.get_layer("inside"), 2)):
        kernel, bias = layer.get_weights()
        bias[unit] = -1000.0
        layer.set_weights([kernel, bias])
    model.compile("adam", "mse")
    return model


def fit(model, callbacks=()):
    options = {"epochs": 4, "batch_size": 64, "verbose": 0, "validation_data": (ROWS, ROWS)}
    return model.fit(ROWS, ROWS, callbacks=list(callbacks), **options).history


def dead(diagnosis):
    return [unit.index for unit in diagnosis.units if unit.verdict == "dead"]


def test_a_fit_is_watched_and_stays_the_same_bit_for_bit(keras):
    from harness.integrations.keras import LayerModule, WatchLayers

    plain, lines = built(keras), []
    history = fit(plain)
    model = built(keras)
    callback = WatchLayers(["code", "nested/inside"], callback=lines.append)
    assert fit(model, [callback]) == history
    pairs = zip(plain.get_weights(), model.get_weights(), strict=True)
    assert all(np.array_equal(first, second) for first, second in pairs)
    assert callback.monitor.step == 40
    assert [dead(callback.monitor.diagnosis(layer)) for layer in ("code", "nested/inside")] == [[1], [2]]
    assert lines == [
        "step 30: unit 1 of code has not fired for 3 epochs",
        "step 30: unit 2 of nested/inside has not fired for 3 epochs",
    ]
    assert "forward" not in vars(model.get_layer("code"))
    rows = torch.tensor(ROWS)
    assert dead(harness.diagnose_model(LayerModule(model), rows, "code")) == [1]
    activations = {layer.name: layer.activation for layer in harness.layers(LayerModule(model), rows)}
    assert activations | {"code": "relu", "nested/inside": "relu", "decoder": "none"} == activations
    with pytest.raises(HarnessError, match="no module is called 'coda'; did you mean 'code'"):
        fit(model, [WatchLayers("coda")])


def test_a_fit_that_raises_leaves_nothing_behind_once_it_is_closed(keras):
    from harness.integrations.keras import WatchLayers

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise ZeroDivisionError("inside")

    model, callback = built(keras), WatchLayers("code")
    with pytest.raises(ZeroDivisionError):
        fit(model, [callback, Stop()])
    callback.close()
    assert "forward" not in vars(model.get_layer("code"))


def test_another_backend_is_refused(keras, monkeypatch):
    from harness.integrations.keras import LayerModule

    model = built(keras)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(HarnessError, match="expected the torch backend, got jax"):
        LayerModule(model)
