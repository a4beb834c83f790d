"""The demo's classifier behind KServe's model server, in four dresses; run by the python of `environment.sh kserve`.

Knows nothing of the project but the file that it serves. JSON is what these models are asked in; the server
takes binary tensors as well.
"""

import argparse
import base64
import io
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput
from PIL import Image


class Loopback(uvicorn.Config):
    """KServe listens on every address of the machine, and takes no other."""

    def __init__(self, app, host, **settings):
        super().__init__(app, host="127.0.0.1", **settings)


uvicorn.Config = Loopback

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--labels", required=True, help="a file, a name a line")
arguments = parser.parse_args()

session = onnxruntime.InferenceSession(arguments.file, providers=["CPUExecutionProvider"])
names = Path(arguments.labels).read_text().splitlines()

LOGITS = {"name": "logits", "datatype": "FP32", "shape": [-1, 10]}
LABEL = {"name": "label", "datatype": "BYTES", "shape": [-1]}


def logits(pixels):
    """Of uint8 [n, 32, 32, 3]."""
    image = ((pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5).astype(np.float32)
    return session.run(["logits"], {"image": image})[0]


class Signs(Model):
    """Floats in, logits out; says of itself what a user declares, or nothing, as KServe's default is."""

    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        self.inputs, self.outputs = inputs, outputs
        self.ready = True

    def get_input_types(self):
        return self.inputs

    def get_output_types(self):
        return self.outputs

    def answer(self, tensor):
        image = np.asarray(tensor.as_numpy())
        if image.dtype != np.float32 or image.shape[1:] != (3, 32, 32):
            raise InvalidInput(f"expected float32 [n, 3, 32, 32], got {image.dtype} {list(image.shape)}")
        return {"logits": session.run(["logits"], {"image": image})[0]}

    def predict(self, payload, headers=None, response_headers=None):
        answers = self.answer(payload.inputs[0])
        outputs = []
        for name, array in answers.items():
            output = InferOutput(name, list(array.shape), "BYTES" if array.dtype.kind == "O" else "FP32")
            output.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)


class SignsOfPixels(Signs):
    def answer(self, tensor):
        return {"logits": logits(np.asarray(tensor.as_numpy()))}


class SignsOfFiles(Signs):
    def answer(self, tensor):
        files = [one if isinstance(one, bytes) else base64.b64decode(one) for one in tensor.as_numpy().ravel()]
        found = logits(np.stack([np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in files]))
        return {"label": np.array([names[index].encode() for index in found.argmax(1)], dtype=object)}


FLOATS = {"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}
PIXELS = {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
FILES = {"name": "file", "datatype": "BYTES", "shape": [-1]}

ModelServer(http_port=arguments.port, workers=1, enable_grpc=False, enable_docs_url=False).start(
    [
        Signs("signs", [FLOATS], [LOGITS]),
        Signs("signs-silent", [], []),
        SignsOfPixels("signs-pixels", [PIXELS], [LOGITS]),
        SignsOfFiles("signs-files", [FILES], [LABEL]),
    ]
)
