"""The chart: it renders, its own tests pass, its README is up to date, the operator takes it."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dreambooth_operator.config_file import load_config
from localcluster import binaries
from tests.contract.chart import CHART, rendered

ROOT = CHART.parents[1]


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    binaries.ensure(["helm", "helm-unittest", "helm-docs"])


def run(program: str, *arguments: str, folder: Path = ROOT) -> str:
    command = [str(binaries.path(program)), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def settings(*values: str) -> str:
    """The operator's settings file, as the chart makes it."""
    maps = [each for each in rendered(*values) if each["kind"] == "ConfigMap"]
    (found,) = [each["data"]["config.yaml"] for each in maps if "config.yaml" in each["data"]]
    return str(found)


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    assert "0 chart(s) failed" in run("helm", "lint", "--strict", str(CHART))


def test_the_charts_own_tests_pass() -> None:
    output = run("helm-unittest", str(CHART))
    passed = re.search(r"Tests:\s+(\d+) passed, (\d+) total", output)
    assert passed and passed[1] == passed[2] and int(passed[1]) > 15


def test_the_charts_readme_is_up_to_date() -> None:
    found = (CHART / "README.md").read_text(encoding="utf-8")
    made = run(
        "helm-docs",
        "--chart-search-root=charts",
        "--sort-values-order=file",
        "--dry-run",
        "--log-level=error",
    )
    assert made.strip() == found.strip(), "run `make generate-chart`"


def test_the_operator_accepts_the_settings_that_the_chart_makes(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(settings())
    config = load_config(file)
    assert list(config.pools) == ["gpu"]
    assert config.default_pool == "gpu"
    assert config.runtime.image == "dreambooth-runtime:0.1.0"
    assert not config.lease.enabled


def test_every_setting_of_the_operator_can_be_given_to_the_chart(tmp_path: Path) -> None:
    example = yaml.safe_load((ROOT / "operator" / "config.example.yaml").read_text())
    image = example.pop("runtime")["image"]
    repository, _, tag = image.rpartition(":")
    # Where they run and how many there are is the Deployment's.
    del example["lease"], example["port"]
    example["jobNetworkPolicy"] = example.pop("networkPolicy")
    example["pools"]["gpu"] = None
    example["runtime"] = {"image": {"repository": repository, "tag": tag}}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(example))
    version = "--kube-version=1.34.0"
    output = run("helm", "template", "x", str(CHART), version, "--values", str(values))
    maps = [each for each in yaml.safe_load_all(output) if each and each["kind"] == "ConfigMap"]
    file = tmp_path / "config.yaml"
    file.write_text(maps[0]["data"]["config.yaml"])
    assert load_config(file).pools == load_config(ROOT / "operator/config.example.yaml").pools
    assert load_config(file).limits == load_config(ROOT / "operator/config.example.yaml").limits


def test_no_permission_of_the_operator_is_a_wildcard_or_reads_secrets() -> None:
    roles = [each for each in rendered("replicas=2") if each["kind"] in ("ClusterRole", "Role")]
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(rules) > 10
    for rule in rules:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "*" not in words
        assert "secrets" not in words
        assert not words & {"escalate", "bind", "impersonate"}


def test_the_metrics_of_alerts_and_dashboard_exist() -> None:
    from dreambooth_operator.metrics import Metrics

    known = set()
    for family in Metrics().registry.collect():
        known |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    texts = [(CHART / "files" / name).read_text() for name in ("alerts.yaml", "dashboard.json")]
    used = {name for text in texts for name in re.findall(r"\bdreambooth_\w+", text)}
    assert used and used <= known
