"""Purified shards in a torch DataLoader with two workers: those that have a record, and no others.

Install: pip install webdataset torch pillow
"""

import json
import sys
from pathlib import Path

import torch
import webdataset

output = Path(sys.argv[1])
records = [json.loads(path.read_text()) for path in sorted((output / "records").rglob("*.json"))]
shards = [str(output / "shards" / record["shard"]) for record in records]

dataset = (
    webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)  # a worker may have no shard
    .decode("torchrgb")  # images as float [3, h, w] in [0, 1]
    .to_tuple("png;webp;jpg", "cls")
    .map_tuple(lambda image: torch.nn.functional.interpolate(image[None], (32, 32))[0])  # a batch has one size
)
images, brightness = 0, 0.0
for batch, _labels in torch.utils.data.DataLoader(dataset, batch_size=64, num_workers=2):
    images += len(batch)
    brightness += float(batch.mean((1, 2, 3)).sum())
print(f"{images} images of {len(shards)} shards, mean {brightness / images:.4f}")
