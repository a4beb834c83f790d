"""Purified shards as a Ray dataset, and their tables as another: images by class, and samples by status.

Install: pip install "ray[data]" pillow
"""

import json
import sys
from collections import Counter
from pathlib import Path

import ray

output = Path(sys.argv[1])
records = [json.loads(path.read_text()) for path in sorted((output / "records").rglob("*.json"))]
shards = [str(output / "shards" / record["shard"]) for record in records]
tables = [str(output / "tables" / f"{record['shard']}.parquet") for record in records]

ray.init(logging_level="ERROR", log_to_driver=False)
labels: Counter[int] = Counter()
for batch in ray.data.read_webdataset(shards, suffixes=["png", "webp", "jpg", "cls"]).iter_batches():
    labels.update(batch["cls"].tolist())  # decoded: a number, and beside it the image as an array
statuses: Counter[str] = Counter()
for batch in ray.data.read_parquet(tables, columns=["status"]).iter_batches():
    statuses.update(batch["status"].tolist())
for label, images in sorted(labels.items()):
    print(f"class {label}: {images} images")
for status, samples in sorted(statuses.items()):
    print(f"{status}: {samples} samples")
