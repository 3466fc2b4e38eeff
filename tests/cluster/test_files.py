"""The cluster files against the schemas of Ray, Kubernetes and KubeRay, and against the project."""

import ipaddress
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cfnlint.api
import pytest
from cluster_files import BOOT_MINUTES, CLUSTER, RAYCLUSTER, ROOT, pod_templates, read
from ray.autoscaler._private.util import prepare_config, validate_config

from weakteach.artifacts.step import walk
from weakteach.models.resources import GIB
from weakteach.run.capacity import check_cluster, check_hosts
from weakteach.run.disk import bytes_on_host
from weakteach.run.nodes import nodes_of_file
from weakteach.run.prices import read_prices
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import EXPERIMENTS
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import PAPER, PRESETS

CLOUDS = {name: CLUSTER / f"{name}.yaml" for name in ("aws", "gcp", "azure")}


# The parameters of a node's launch in each cloud's interface that the files may use: Ray hands a
# misspelt one on, and the cloud refuses it, or worse, does not.
NODE_CONFIG_KEYS = {
    "aws": {
        "InstanceType", "ImageId", "IamInstanceProfile", "MetadataOptions", "BlockDeviceMappings",
        "InstanceMarketOptions",
    },
    "gcp": {
        "machineType", "disks", "networkInterfaces", "metadata", "scheduling", "serviceAccounts",
    },
    "azure": {"azure_arm_parameters"},
}  # fmt: skip


def pinned(package: str) -> str:
    return re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]


@pytest.fixture(params=CLOUDS)
def cloud(request):
    return request.param


@pytest.fixture
def config(cloud):
    return read(CLOUDS[cloud])


def workers(config):
    head = config["head_node_type"]
    return {k: v for k, v in config["available_node_types"].items() if k != head}


def test_ray_accepts_the_file(config):
    validate_config(prepare_config(config))


def test_node_parameters_are_those_that_the_cloud_knows(cloud, config):
    provider = config["provider"]
    assert provider["type"] == cloud
    assert provider.get("region") or provider.get("location")
    for name, node in config["available_node_types"].items():
        assert node["node_config"].keys() <= NODE_CONFIG_KEYS[cloud], name
    if cloud == "azure":
        template = json.loads(
            (Path(sys.modules["ray"].__file__).parent
             / "autoscaler/_private/_azure/azure-vm-template.json").read_text()
        )  # fmt: skip
        for node in config["available_node_types"].values():
            parameters = node["node_config"]["azure_arm_parameters"].keys()
            assert parameters <= template["parameters"].keys()


def test_disks_of_google_are_of_a_type_that_all_machines_have():
    """Without a type Google takes pd-standard, which machines of the series G2 do not have."""
    config = read(CLOUDS["gcp"])
    place = "projects/{project_id}/zones/{availability_zone}".format(**config["provider"])
    for node in config["available_node_types"].values():
        (disk,) = node["node_config"]["disks"]
        assert disk["initializeParams"]["diskType"] == f"{place}/diskTypes/pd-balanced"


def test_spot_gpus_of_two_types_grow_from_nothing_and_the_head_is_on_demand(cloud, config):
    def is_spot(node):
        settings = node["node_config"]
        return {
            "aws": settings.get("InstanceMarketOptions", {}).get("MarketType") == "spot",
            "gcp": settings.get("scheduling", {}).get("provisioningModel") == "SPOT",
            "azure": settings.get("azure_arm_parameters", {}).get("priority") == "Spot",
        }[cloud]

    assert not is_spot(config["available_node_types"][config["head_node_type"]])
    assert "GPU" not in config["available_node_types"][config["head_node_type"]]["resources"]
    groups = workers(config)
    assert len({key for node in groups.values() for key in node["resources"] if ":" in key}) >= 2
    for name, node in groups.items():
        assert node["min_workers"] == 0 < node["max_workers"], name
        assert node["resources"]["GPU"] >= 1, name
        assert is_spot(node), name
    assert sum(node["max_workers"] for node in groups.values()) <= config["max_workers"]
    assert config["idle_timeout_minutes"] > BOOT_MINUTES


def test_nodes_refuse_who_has_no_token_and_the_dashboard_is_on_loopback(config):
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    heads = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert heads
    for line in heads:
        assert "--dashboard-host=127.0.0.1" in line
        assert "--ray-client-server-port" not in line


def test_what_runs_is_brought_to_the_nodes_and_nothing_else(config):
    mounts = config["file_mounts"]
    for remote, local in mounts.items():
        if local != "~/.ray/auth_token":
            assert remote == f"/home/ray/weakteach/{local}"
            assert (ROOT / local).exists()
    assert {"pyproject.toml", "constraints.txt", "weakteach", "sweeps"} <= set(mounts.values())
    (setup,) = config["setup_commands"]
    assert setup.endswith("-c /home/ray/weakteach/constraints.txt /home/ray/weakteach")


def test_no_file_opens_a_port_to_the_world():
    files = [p for p in CLUSTER.rglob("*") if p.suffix in (".yaml", ".sh", ".py")]
    assert len(files) >= 10
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "0.0.0.0" in line:  # a pod's own address, behind the network policy
                assert file == RAYCLUSTER, f"{file}:{number}"
                assert "dashboard-host" in line, f"{file}:{number}"
            for block in re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", line):
                assert ipaddress.ip_network(block).is_private, f"{file}:{number}"
    for name in ("gcp", "azure"):
        assert '"$address/32"' in (CLUSTER / f"{name}-account.sh").read_text()


def test_the_aws_account_is_valid_and_what_the_cluster_refers_to():
    text = (CLUSTER / "aws-account.yaml").read_text()
    assert [str(m) for m in cfnlint.api.lint_all(text) if not m.rule.id.startswith("I")] == []
    config = read(CLOUDS["aws"])
    assert f"GroupName: {config['provider']['security_group']['GroupName']}\n" in text
    # The rights of the head end at nodes whose tag is the cluster's name.
    assert f'"aws:ResourceTag/ray-cluster-name": {config["cluster_name"]}}}' in text
    for node in config["available_node_types"].values():
        name = node["node_config"]["IamInstanceProfile"]["Name"]
        assert f"InstanceProfileName: {name}," in text
    # A new account has no role for spot instances until whoever first starts one makes it.
    assert "InstanceMarketOptions" in str(config["available_node_types"])
    rights = cfnlint.decode.decode_str(text)[0]["Resources"]["HeadRole"]["Properties"]["Policies"]
    (spot,) = (
        right
        for right in rights[0]["PolicyDocument"]["Statement"]
        if right["Action"] == "iam:CreateServiceLinkedRole"
    )
    assert spot["Condition"] == {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
    assert spot["Resource"]["Fn::Sub"].endswith(
        ":role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    )
    pattern = re.search(r"AllowedPattern: '(.+)'", text)[1]
    assert re.fullmatch(pattern, "203.0.113.7/32")
    assert not re.fullmatch(pattern, "0.0.0.0/0")


def test_the_other_accounts_make_what_their_clusters_refer_to():
    gcp, azure = ((CLUSTER / f"{name}-account.sh").read_text() for name in ("gcp", "azure"))
    config = read(CLOUDS["gcp"])
    for node in config["available_node_types"].values():
        (interface,) = node["node_config"]["networkInterfaces"]
        assert interface["subnetwork"].endswith("/us-central1/subnetworks/weakteach")
    assert "subnets create weakteach " in gcp
    assert f"region={config['provider']['region']}\n" in gcp
    provider = read(CLOUDS["azure"])["provider"]
    network = f"ray-weakteach-{provider['unique_id']}"
    assert f"--name {network}-vnet" in azure
    assert f"--subnet-name {network}-subnet" in azure
    assert f"--subnet-prefixes {provider['subnet_mask']}" in azure
    assert f"identity create --name {provider['msi_name']}" in azure
    assert f"group={provider['resource_group']} location={provider['location']}\n" in azure
    for script in ("gcp-account.sh", "azure-account.sh"):
        subprocess.run(["bash", "-n", CLUSTER / script], check=True)
        refused = subprocess.run(["bash", CLUSTER / script], capture_output=True, text=True)
        assert refused.returncode != 0
        assert "PROJECT" in refused.stderr or "ACCOUNT" in refused.stderr


def test_every_version_is_the_pinned_one():
    ray = pinned("ray")
    for file in CLOUDS.values():
        docker = read(file)["docker"]
        for image in (docker["head_image"], docker["worker_image"]):
            assert re.fullmatch(rf"rayproject/ray:{re.escape(ray)}-py311-(cpu|gpu)", image)
    spec = read(RAYCLUSTER)["spec"]
    assert spec["rayVersion"] == ray
    for template in pod_templates():
        assert template["spec"]["containers"][0]["image"] == f"REGISTRY/weakteach:ray-{ray}"
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert f"ARG RAY_VERSION={ray}\n" in dockerfile
    everywhere = [*CLUSTER.glob("*.*"), *CLUSTER.glob("kuberay/*"), CLUSTER / "Dockerfile"]
    for file in everywhere:
        for version in re.findall(
            r"(?:rayproject/ray:|ray-|ray==)(\d+\.\d+\.\d+)", file.read_text()
        ):
            assert version == ray, file


def test_the_image_is_made_of_files_that_are_there():
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    let_in = [
        line.removeprefix("!")
        for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert sorted(copied) == sorted(let_in)
    for name in copied:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("file", [*CLOUDS.values(), RAYCLUSTER], ids=lambda file: file.stem)
def test_every_preset_finds_its_nodes(file):
    nodes = nodes_of_file(file)
    for preset in PRESETS.values():
        assert check_cluster(file.name, nodes, preset.resources) == []
        widest = replace(preset.resources, train_workers_max=0)
        if preset.resources.train_workers_max:
            widest = replace(widest, train_workers=preset.resources.train_workers_max)
        assert check_cluster(file.name, nodes, widest) == []


def test_a_preset_that_asks_for_nodes_that_are_not_there_is_an_error():
    nodes = nodes_of_file(CLOUDS["gcp"])
    wanted = replace(PAPER.resources, train_workers_max=0, label_actors_max=0)
    for changed, sentence in [
        ({"gpu_type": "H100"}, "no node has a H100 GPU"),
        ({"cpus": 16}, "no node has 1 GPUs and 16 CPUs for one worker"),
        ({"train_workers": 9}, "9 workers are asked for, and all nodes together hold 8"),
        ({"label_actors": 9}, "9 workers are asked for, and all nodes together hold 8"),
    ]:
        (found,) = check_cluster("gcp.yaml", nodes, replace(wanted, **changed))
        assert sentence in found.what


def test_the_disks_of_workers_hold_what_the_paper_keeps_on_a_host():
    grid = make_grid(PAPER, replace(PAPER.first, seeds=(0,)), Choices(), resolve=False)
    arms = arms_of(experiment(grid) for experiment in EXPERIMENTS)
    needed = bytes_on_host(walk(target for arm in arms for target in arm.targets))
    wanted = replace(PAPER.resources, gpu_type="")
    assert needed > 300 * GIB
    for cloud, file in CLOUDS.items():
        nodes = nodes_of_file(file)
        assert {node.disk for node in nodes} == {600 * GIB}
        assert not check_hosts(cloud, nodes, wanted, needed)
        problems = check_hosts(cloud, nodes, wanted, needed + 100 * GIB)
        assert [problem.where for problem in problems] == [cloud] * (len(nodes) - 1)  # not the head


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_node_of_the_clouds_has_a_price_and_the_devices_it_is_priced_for(cloud):
    nodes = {name: node for name, node in read_prices().nodes.items() if node.cloud == cloud}
    groups = {}
    for node in read(CLOUDS[cloud])["available_node_types"].values():
        config = node["node_config"]
        names = (config.get("InstanceType"), config.get("machineType"))
        instance = next(filter(None, names), None) or config["azure_arm_parameters"]["vmSize"]
        groups[instance] = node["resources"]
    assert groups.keys() == nodes.keys()
    for instance, resources in groups.items():
        if resources.get("GPU"):
            priced = nodes[instance]
            assert resources.get(f"accelerator_type:{priced.device}") == 1
            assert resources["GPU"] == priced.devices
            assert priced.spot is not None


def test_the_dashboard_asks_for_the_metrics_that_there_are():
    board = json.loads((CLUSTER / "grafana.json").read_text())
    asked = " ".join(t["expr"] for panel in board["panels"] for t in panel["targets"])
    own = set(re.findall(r"ray_(weakteach_\w+)", asked))
    code = "".join(file.read_text() for file in (ROOT / "weakteach").rglob("*.py"))
    exported = set(re.findall(r'metrics\.(?:Counter|Gauge)\(\s*"(weakteach_\w+)"', code))
    assert own == exported
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_page_names_files_and_options_that_there_are():
    page = (CLUSTER / "README.md").read_text()
    for name in re.findall(r"cluster/[\w./-]+\w", page):
        assert (ROOT / name).exists(), name
    helped = subprocess.run(
        [sys.executable, "sweeps/size_grid.py", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout  # fmt: skip
    for command in re.findall(r"sweeps/size_grid\.py(.*)", page):
        for option in re.findall(r"--[\w-]+", command):
            assert option in helped, option
