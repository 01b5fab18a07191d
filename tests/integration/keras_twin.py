"""LATUP-Net built in Keras, apart from ours: saves its weights in every layout of Keras 2.15 and what it computes.

Run by the TensorFlow environment, which has none of this package: python keras_twin.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

WIDTH, SIDE = 8, 16


def conv(x: Any, channels: int, kernel: int) -> Any:
    y = layers.Conv3D(channels, kernel, padding="same", kernel_initializer="he_uniform", bias_initializer="random_normal")(x)
    return layers.LeakyReLU(0.1)(y)


def norm(x: Any) -> Any:
    return layers.GroupNormalization(groups=-1, gamma_initializer="random_uniform", beta_initializer="random_normal")(x)


def attention(x: Any) -> Any:
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling3D()(x)
    gate = layers.Dense(channels // 8, activation="relu", use_bias=False)(gate)
    gate = layers.Dense(channels, activation="sigmoid", use_bias=False)(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, 1, channels))(gate)])


def encoder(x: Any, channels: int) -> Any:
    skip = conv(norm(conv(attention(x), channels, 3)), channels, 3)
    return layers.MaxPooling3D(2)(layers.Dropout(0.2)(skip)), skip


def decoder(x: Any, skip: Any, channels: int) -> Any:
    up = norm(conv(layers.UpSampling3D(2)(x), channels, 2))
    y = attention(conv(layers.Concatenate()([up, skip]), channels, 3))
    return conv(layers.Dropout(0.2)(y), channels, 3)


def network() -> Any:
    image = layers.Input((SIDE, SIDE, SIDE, 3))
    first = conv(image, WIDTH, 3)
    x = layers.Concatenate()([layers.MaxPooling3D(2)(conv(first, WIDTH, kernel)) for kernel in (1, 3, 5)])
    x, second = encoder(x, 2 * WIDTH)
    x, third = encoder(x, 4 * WIDTH)
    x = decoder(attention(x), third, 4 * WIDTH)
    x = decoder(x, second, 2 * WIDTH)
    x = decoder(x, first, WIDTH)
    return keras.Model(image, layers.Conv3D(4, 1, activation="softmax")(x))


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    model = network()
    image = np.random.default_rng(0).random((1, SIDE, SIDE, SIDE, 3), dtype=np.float32)
    model.compile("adam", "categorical_crossentropy")
    model.fit(image, model(image), verbose=0)  # so that the files hold an optimizer's state too
    np.savez(folder / "twin.npz", image=image, probabilities=model(image, training=False).numpy(), parameters=model.count_params())
    model.save(folder / "whole.h5")
    model.save(folder / "whole.keras")
    model.save_weights(folder / "legacy.h5")
    model.save_weights(folder / "numbered.weights.h5")
    (folder / "versions.txt").write_text(f"tensorflow {tf.__version__}, keras {keras.__version__}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
