"""The stage: Ray Data, storage, classifiers.

What Ray Data reads from the environment at its own import is set here, before anything imports it. By
default its limits shrink to what it measured to be enough: a purifier and one reader. Where two readers ran
by then, nothing was left for staging; and they waited for parts to be staged, for ever.
"""

import os

os.environ.setdefault("RAY_DATA_CLUSTER_AUTOSCALER", "V2")  # its limits are those of the cluster
os.environ.setdefault("RAY_DATA_CLUSTER_SCALING_UP_UTIL_THRESHOLD", "2")  # never: the pool asks for its own nodes
