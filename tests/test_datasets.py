"Streams: every version once, labels with their pictures, and flat memory over forty thousand pictures."
import os
import subprocess
import sys

import numpy as np
import pytest
from museum import picture
from PIL import Image

from emoart.data.datasets import N_VERSIONS, dataset
from emoart.data.images import load_image

STREAM = """
import re, sys, time
import numpy as np
from pathlib import Path
from emoart.core.backend import keras
from emoart.data.datasets import dataset

paths = [path for path in sorted(Path(sys.argv[1]).iterdir())] * 200
class Clock(keras.callbacks.Callback):
    ends = []
    def on_train_batch_end(self, batch, logs=None): self.ends.append(time.process_time()) # other work does not count
model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(40), keras.layers.Flatten(),
                          keras.layers.Dense(4, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
clock = Clock()
batches = dataset(paths, np.arange(len(paths)) % 4, 160, 100, seed=0)
model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[clock])
quarters = np.diff(np.array(clock.ends)[[0, 99, 199, 299, 399]])
status = Path("/proc/self/status").read_text() # ru_maxrss would count the process that started this one
peak = re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]
print(len(paths), int(peak) / 2**20, *quarters)
"""


def test_forty_thousand_pictures_stream_in_little_memory(tmp_path):
    "As one array they would take 3 GB."
    for i in range(200): Image.new("RGB", (160, 160), (i, 255 - i, 99)).save(tmp_path / f"{i}.jpg") # quickly read
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", STREAM, tmp_path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    n, gigabytes, *quarters = map(float, done.stdout.split())
    print(f"{n:.0f} pictures, {gigabytes:.2f} GB at most, quarters in {quarters} s of the processor")
    assert n == 40_000 and gigabytes < 1.5
    assert max(quarters[1:]) < 1.5 * quarters[0], f"the pace falls: quarters of the epoch in {quarters} s"


@pytest.fixture
def paths(tmp_path):
    for i in range(7): (tmp_path / f"{i}.png").write_bytes(picture(format="PNG", seed=i))
    return [tmp_path / f"{i}.png" for i in range(7)]


def test_labels_stay_with_their_pictures_in_every_version(paths):
    originals = [load_image(path, 16) for path in paths]
    seen = {}
    for images, labels in dataset(paths, np.arange(7), 16, 4, seed=3, versions=N_VERSIONS):
        for image, label in zip(images.numpy(), labels.numpy()): seen.setdefault(int(label), []).append(image)
    turns = [lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1], lambda a: a[::-1, ::-1]]
    assert sorted(seen) == list(range(7))
    for label, images in seen.items():
        assert sorted(image.tobytes() for image in images) == sorted(turn(originals[label]).tobytes() for turn in turns)


def test_what_is_too_much_to_keep_is_read_again(paths, monkeypatch):
    from emoart.data import datasets
    reads = []
    monkeypatch.setattr(datasets, "load_image", lambda path, *args: reads.append(path) or load_image(path, *args))
    for budget, expected in ((2**20, 7), (0, 14)):
        monkeypatch.setattr(datasets, "IN_MEMORY", budget)
        reads.clear()
        batches = dataset(paths, np.zeros(7), 16, 4)
        first, second = ([image.numpy() for image, _ in batches] for _ in range(2))
        assert all((a == b).all() for a, b in zip(first, second)) and len(reads) == expected
