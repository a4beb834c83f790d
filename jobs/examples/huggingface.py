"""Purified shards as a Hugging Face dataset, streamed: those that have a record, and no others.

Install: pip install datasets pillow
"""

import json
import sys
from collections import Counter
from pathlib import Path

import datasets

output = Path(sys.argv[1])
records = [json.loads(path.read_text()) for path in sorted((output / "records").rglob("*.json"))]
shards = [str(output / "shards" / record["shard"]) for record in records]

dataset = datasets.load_dataset("webdataset", data_files={"train": shards}, split="train", streaming=True)
labels: Counter[int] = Counter()
for sample in dataset:
    image = next(sample[suffix] for suffix in ("png", "webp", "jpg") if suffix in sample)  # a PIL image
    labels[sample["cls"]] += image.mode in ("RGB", "RGBA")
print(f"{labels.total()} images of {len(shards)} shards")
for label, images in sorted(labels.items()):
    print(f"class {label}: {images} images")
