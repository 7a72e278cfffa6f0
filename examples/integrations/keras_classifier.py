"""A classifier of clothes trained by Keras on torch, offline; ``--lr 0.3`` makes it sick.

python examples/integrations/keras_classifier.py --lr 0.3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

import nndoctor
from nndoctor.integrations.keras import DoctorCallback
from nndoctor.zoo.data import classification


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    data = classification().first(2000)
    images, held_out = (part.permute(0, 2, 3, 1).numpy() for part in (data.train_inputs, data.val_inputs[:500]))
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10),
    ])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(options.lr), loss=loss, metrics=["accuracy"])
    callback = DoctorCallback(name="keras-classifier")
    model.fit(
        images, data.train_targets.numpy(), batch_size=32, epochs=options.epochs, verbose=0,
        validation_data=(held_out, data.val_targets[:500].numpy()), callbacks=[callback],
    )
    assert callback.doctor is not None
    return callback.doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
