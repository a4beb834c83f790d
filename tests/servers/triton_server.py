"""The demo's classifier behind Triton, in three dresses; run by the python of `environment.sh triton`.

Knows nothing of the project but the file that it serves: what it expects of a request is NVIDIA's reading
of the protocol, and what it makes of an image is written here once more.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SIDE = 32

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--grpc-port", type=int, required=True)
parser.add_argument("--workspace", required=True, help="a folder of its own")
parser.add_argument("--labels", required=True, help="a file, a name a line")
arguments = parser.parse_args()

session = onnxruntime.InferenceSession(arguments.file, providers=["CPUExecutionProvider"])
names = Path(arguments.labels).read_text().splitlines()


def logits(pixels):
    """Of uint8 [n, 32, 32, 3]."""
    image = ((pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5).astype(np.float32)
    return session.run(["logits"], {"image": image})[0]


@batch
def floats(image):
    return {"logits": session.run(["logits"], {"image": image})[0]}


@batch
def pixels(image):
    found = logits(image)
    return {"class": found.argmax(1).astype(np.int64)[:, None], "logits": found}


@batch
def files(file):
    opened = np.stack([np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in file[:, 0]])
    found = logits(opened)
    label = np.array([[names[index].encode()] for index in found.argmax(1)], dtype=object)
    return {"label": label, "logits": found}


IMAGE = Tensor(name="image", dtype=np.float32, shape=(3, SIDE, SIDE))
LOGITS = Tensor(name="logits", dtype=np.float32, shape=(10,))
MODELS = {
    "signs": (floats, [IMAGE], [LOGITS]),
    "signs-pixels": (
        pixels,
        [Tensor(name="image", dtype=np.uint8, shape=(SIDE, SIDE, 3))],
        [Tensor(name="class", dtype=np.int64, shape=(1,)), LOGITS],
    ),
    "signs-files": (
        files,
        [Tensor(name="file", dtype=bytes, shape=(1,))],
        [Tensor(name="label", dtype=bytes, shape=(1,)), LOGITS],
    ),
}

config = TritonConfig(
    http_address="127.0.0.1",
    http_port=arguments.port,
    grpc_address="127.0.0.1",
    grpc_port=arguments.grpc_port,
    allow_metrics=False,
    log_verbose=0,
)
with Triton(config=config, workspace=arguments.workspace) as triton:
    for name, (function, inputs, outputs) in MODELS.items():
        triton.bind(name, function, inputs, outputs, config=ModelConfig(max_batch_size=16))
    triton.serve()
