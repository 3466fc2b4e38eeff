"""The files of ``cluster/``, read."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
RAYCLUSTER = CLUSTER / "kuberay" / "raycluster.yaml"
BOOT_MINUTES = 10


def read(file: Path):
    return yaml.safe_load(file.read_text())


def pod_templates():
    spec = read(RAYCLUSTER)["spec"]
    return [spec["headGroupSpec"]["template"]] + [
        group["template"] for group in spec["workerGroupSpecs"]
    ]
