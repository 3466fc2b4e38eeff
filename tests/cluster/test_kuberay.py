"""The manifests of KubeRay against the schemas of Kubernetes and KubeRay."""

import gzip
import subprocess
import sys
from copy import deepcopy

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster_files import BOOT_MINUTES, CLUSTER, RAYCLUSTER, ROOT, pod_templates, read

CRDS = ROOT.parent / "shared" / "data" / "kuberay"
KUBERNETES = "1.32"


def closed(schema):
    """The schema with unknown fields refused where it lists the known ones."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    preserves = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and "additionalProperties" not in schema and not preserves:
        schema["additionalProperties"] = False
    return schema


def spec_schema(kind: str):
    file = CRDS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not beside the project: {CRDS}")
    # A megabyte of YAML takes the loader written in Python half a minute.
    definition = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    return closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


@pytest.mark.parametrize(("file", "kind"), [("raycluster", "RayCluster"), ("rayjob", "RayJob")])
def test_kuberay_knows_every_field(file, kind):
    manifest = read(CLUSTER / "kuberay" / f"{file}.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    schema = spec_schema(kind)
    jsonschema.validate(manifest["spec"], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest["spec"], "rayVerison": "2"}, schema)


def test_pods_and_account_are_valid_for_kubernetes():
    documents = list(yaml.safe_load_all((CLUSTER / "kuberay" / "account.yaml").read_text()))
    assert {d["kind"] for d in documents} == {
        "Namespace", "ServiceAccount", "PersistentVolumeClaim", "NetworkPolicy",
    }  # fmt: skip
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        for template in pod_templates()
    ]
    for document in (*documents, *pods):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    misspelt = deepcopy(pods[0])
    misspelt["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, KUBERNETES, strict=True)


def test_pods_refer_to_what_the_account_makes_and_hold_no_secret():
    documents = {
        d["kind"]: d for d in yaml.safe_load_all((CLUSTER / "kuberay/account.yaml").read_text())
    }
    names = {kind: document["metadata"]["name"] for kind, document in documents.items()}
    for template in pod_templates():
        spec = template["spec"]
        assert spec["serviceAccountName"] == names["ServiceAccount"]
        claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if len(v) == 2 and
                  "persistentVolumeClaim" in v]  # fmt: skip
        assert [claim["claimName"] for claim in claims] == [names["PersistentVolumeClaim"]]
        (container,) = spec["containers"]
        assert all("TOKEN" not in variable["name"] for variable in container["env"])
        assert container["envFrom"] == [
            {"secretRef": {"name": "weakteach-secrets", "optional": True}}
        ]
    cluster = read(RAYCLUSTER)
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "weakteach-ray-token"}
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert all("ipBlock" not in peer for rule in policy["ingress"] for peer in rule["from"])


def test_pods_scale_from_nothing_on_spot_nodes():
    spec = read(RAYCLUSTER)["spec"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] > BOOT_MINUTES * 60
    assert len(spec["workerGroupSpecs"]) >= 2
    for template in pod_templates():
        assert template["spec"]["restartPolicy"] == "Never"  # what autoscaler v2 asks for
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        keys = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= keys


def test_the_job_runs_on_that_cluster_within_what_the_script_knows():
    job = read(CLUSTER / "kuberay" / "rayjob.yaml")["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": read(RAYCLUSTER)["metadata"]["name"]}
    # Of a cluster that outlives the job, KubeRay takes neither tries in new clusters nor an end.
    assert not job.keys() & {"backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    words = job["entrypoint"].split()
    script = ROOT / words[1].removeprefix("/home/ray/weakteach/")
    options = words[2:]
    assert script.is_file()
    helped = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert options
    for option in (word for word in options if word.startswith("--")):
        assert option in helped
