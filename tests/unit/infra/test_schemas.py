"""The manifests against Kubernetes' and KubeRay's own schemas (schemas/README.md), and against the code they start.

The schemas refuse unknown fields. A cluster may drop a misspelt one, and the job then runs without it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.config_loading import load_config
from pipeline.errors import TRY_AGAIN
from zipstage import __version__

ROOT = Path(__file__).parents[3]
SCHEMA_BY_KIND = {
    schema["properties"]["kind"]["enum"][0]: Draft202012Validator(schema)
    for schema in (json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json"))
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    f"{path.name} {document['kind']}": document
    for path in sorted((ROOT / "infra/kuberay").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
SPEC = DOCUMENTS["rayjob.yaml RayJob"]["spec"]
CLUSTER = SPEC["rayClusterSpec"]
LASTING = DOCUMENTS["cluster.yaml RayCluster"]["spec"]
NIGHTLY = DOCUMENTS["nightly.yaml CronJob"]["spec"]
NIGHT = NIGHTLY["jobTemplate"]["spec"]


def _groups(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


GROUPS = _groups(CLUSTER)
PODS = {
    "submitter": SPEC["submitterPodTemplate"]["spec"],
    **{name: group["template"]["spec"] for name, group in GROUPS.items()},
    **{f"lasting {name}": group["template"]["spec"] for name, group in _groups(LASTING).items()},
    "night": NIGHT["template"]["spec"],
}


def _mappings(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, dict):
        yield path
        for key, value in node.items():
            yield from _mappings(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _mappings(value, (*path, i))


def _with_misspelt_field(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    node = changed
    for key in path:
        node = node[key]
    field = next(iter(node))
    node[field + "x"] = node.pop(field)
    return changed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_manifest_is_what_its_schema_says(name: str) -> None:
    document = DOCUMENTS[name]
    errors = [f"{error.json_path}: {error.message}" for error in SCHEMA_BY_KIND[document["kind"]].iter_errors(document)]
    assert errors == []


# Maps whose keys are the user's own words: no schema can know them.
FREE = {"data", "annotations", "labels", "rayStartParams", "requests", "limits"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_misspelt_field_anywhere_in_a_manifest_is_refused(name: str) -> None:
    document = DOCUMENTS[name]
    schema = SCHEMA_BY_KIND[document["kind"]]
    paths = [path for path in _mappings(document) if not FREE & set(path) and path != ("metadata",)]
    passed = [path for path in paths if schema.is_valid(_with_misspelt_field(document, path))]
    assert paths
    assert passed == []


def test_the_mounted_config_is_a_job_that_loads(tmp_path: Path) -> None:
    ((name, text),) = DOCUMENTS["rayjob.yaml ConfigMap"]["data"].items()
    (tmp_path / name).write_text(text)
    job = load_config(tmp_path / name)
    assert job.input == ("s3://incoming/2026-11-20/",)
    assert job.cluster.actors == GROUPS["gpu"]["maxReplicas"]


def test_the_entrypoint_reads_the_config_where_the_head_mounts_it() -> None:
    (mount,) = PODS["head"]["containers"][0]["volumeMounts"]
    (volume,) = PODS["head"]["volumes"]
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == DOCUMENTS["rayjob.yaml ConfigMap"]["metadata"]["name"]
    (file,) = DOCUMENTS["rayjob.yaml ConfigMap"]["data"]
    assert SPEC["entrypoint"] == f"zipstage purify {mount['mountPath']}/{file}"


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_no_pod_runs_as_root_or_can_become_it(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_the_head_holds_a_kubernetes_token() -> None:
    assert [name for name, pod in PODS.items() if pod["automountServiceAccountToken"]] == [
        "head",
        "lasting head",
    ]
    accounts = {pod.get("serviceAccountName", "zipstage") for pod in PODS.values()}
    assert accounts == {DOCUMENTS["cluster.yaml ServiceAccount"]["metadata"]["name"]}


@pytest.mark.parametrize("name", GROUPS)
def test_the_object_store_takes_at_most_half_of_a_pods_memory(name: str) -> None:
    limits = PODS[name]["containers"][0]["resources"]["limits"]
    assert limits["memory"].endswith("Gi")
    assert int(GROUPS[name]["rayStartParams"]["object-store-memory"]) <= int(limits["memory"][:-2]) * 2**30 / 2


def test_a_stopped_driver_has_its_time_before_the_pod_is_killed() -> None:
    for head in (PODS["head"], PODS["lasting head"]):
        _has_its_time(head)


def _has_its_time(head: dict[str, Any]) -> None:
    env = {variable["name"]: variable.get("value") for variable in head["containers"][0]["env"]}
    assert head["terminationGracePeriodSeconds"] > int(env["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


def test_no_task_runs_beside_the_driver_and_no_failed_job_is_run_again_blindly() -> None:
    assert GROUPS["head"]["rayStartParams"]["num-cpus"] == "0"
    assert SPEC["backoffLimit"] == 0
    assert CLUSTER["authOptions"]["mode"] == LASTING["authOptions"]["mode"] == "token"


def test_ray_and_the_images_have_the_versions_of_this_tree() -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={CLUSTER['rayVersion']}" in constraints
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert images == {f"zipstage:{__version__}", f"zipstage:{__version__}-cuda"}


def test_the_cluster_that_stays_is_that_of_one_run_but_for_its_tokens_name_and_the_mounted_config() -> None:
    one, lasting = copy.deepcopy(CLUSTER), copy.deepcopy(LASTING)
    assert lasting["authOptions"].pop("secretName")
    pod = one["headGroupSpec"]["template"]["spec"]
    del pod["volumes"], pod["containers"][0]["volumeMounts"]
    assert lasting == one


def test_the_nights_config_is_the_one_that_is_shipped_for_a_cluster_with_gpus(tmp_path: Path) -> None:
    ((name, text),) = DOCUMENTS["nightly.yaml ConfigMap"]["data"].items()
    (tmp_path / name).write_text(text)
    date = {"ZIPSTAGE_DATE": "2026-11-20"}
    mounted = load_config(tmp_path / name, {}, date)
    shipped = load_config(ROOT / "jobs/configs/nightly.yaml", {}, date).model_dump()
    shipped["purifier"] |= {"device": "cuda"}
    shipped["cluster"] |= {"actors": GROUPS["gpu"]["maxReplicas"]}
    assert mounted.model_dump() == shipped


def test_the_night_submits_that_config_to_that_cluster_with_its_token() -> None:
    (container,) = PODS["night"]["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = PODS["night"]["volumes"]
    assert volume["configMap"]["name"] == DOCUMENTS["nightly.yaml ConfigMap"]["metadata"]["name"]
    (file,) = DOCUMENTS["nightly.yaml ConfigMap"]["data"]
    name = DOCUMENTS["cluster.yaml RayCluster"]["metadata"]["name"]
    address = f"--address=http://{name}-head-svc:8265"
    assert container["args"] == ["submit", f"{mount['mountPath']}/{file}", address, "--date=yesterday"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == "token"
    token = {"name": LASTING["authOptions"]["secretName"], "key": "auth_token"}
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == token


def test_a_night_is_tried_again_after_75_alone_and_never_runs_beside_itself() -> None:
    rules = {rule["action"]: rule for rule in NIGHT["podFailurePolicy"]["rules"]}
    (container,) = PODS["night"]["containers"]
    assert rules["FailJob"]["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "NotIn",
        "values": [TRY_AGAIN],
    }
    assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert PODS["night"]["restartPolicy"] == "Never"  # else Kubernetes takes no podFailurePolicy
    assert (NIGHTLY["concurrencyPolicy"], NIGHTLY["timeZone"]) == ("Forbid", "Etc/UTC")
    hour = int(NIGHTLY["schedule"].split()[1])
    assert hour * 3600 + NIGHT["activeDeadlineSeconds"] < 24 * 3600  # `yesterday` stays the same day for each try


def test_a_cancelled_submitter_has_the_time_to_stop_its_job() -> None:
    env = {variable["name"]: variable.get("value") for variable in PODS["lasting head"]["containers"][0]["env"]}
    assert PODS["night"]["terminationGracePeriodSeconds"] > int(env["RAY_JOB_STOP_WAIT_TIME_S"])
