"""Purified shards in timm's own loader, which finds names and lengths in `_info.json`: rewritten as a run ends.

Install: pip install timm webdataset
"""

import sys
from collections import Counter

from timm.data import create_dataset, create_loader

dataset = create_dataset("wds/purified", root=sys.argv[1], split="all", batch_size=64)
loader = create_loader(
    dataset, input_size=(3, 32, 32), batch_size=64, use_prefetcher=False, num_workers=0, persistent_workers=False
)
labels: Counter[int] = Counter()
for _images, targets in loader:
    labels.update(targets.tolist())
print(f"{labels.total()} images, {len(dataset)} by _info.json")
for label, images in sorted(labels.items()):
    print(f"class {label}: {images} images")
