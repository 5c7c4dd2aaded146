"""Settings: what is right is taken, what is wrong is refused with its line."""

import re
from pathlib import Path

import pytest

from dreambooth_operator.config import Config, Limits
from dreambooth_operator.config_file import load_config
from dreambooth_operator.main import main
from dreambooth_operator.settings_file import SettingsError

EXAMPLE = Path(__file__).resolve().parents[3] / "operator" / "config.example.yaml"
SMALLEST = "runtime: {image: i}\npools:\n  gpu: {cpu: 1, memory: 1Gi}\n"


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return load_config(file)


def refused(tmp_path: Path, text: str) -> str:
    """What is said of settings, without the file's folder."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_the_example_is_valid_and_shows_every_setting() -> None:
    config = load_config(EXAMPLE)
    assert set(config.pools) == {"a100", "l4"}
    text = EXAMPLE.read_text()
    source = EXAMPLE.parent / "dreambooth_operator" / "config_file.py"
    settings = re.findall(
        r"\.(?:text|optional_text|text_or|integer|optional_integer|optional_number|flag|choice"
        r'|texts|labels|objects|section)\(\s*"(\w+)"',
        source.read_text(),
    )
    assert len(settings) > 30
    assert [name for name in settings if name not in text] == []


def test_the_smallest_file_has_defaults_for_the_rest(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    assert config.default_pool == "gpu"
    assert config.runtime.pull_policy == "IfNotPresent"
    assert (config.progress_interval, config.watch_namespaces) == (10, ())
    assert config.pools["gpu"].gpu_resource == "nvidia.com/gpu"
    assert config.pools["gpu"].cpu == "1"


def test_with_several_pools_none_is_the_default_unless_named(tmp_path: Path) -> None:
    two = SMALLEST + "  other: {cpu: 1, memory: 1Gi}\n"
    assert load(tmp_path, two).default_pool is None
    assert load(tmp_path, two + "defaultPool: other\n").default_pool == "other"


def test_a_namespaces_own_limits_come_before_the_general_ones(tmp_path: Path) -> None:
    text = SMALLEST + (
        "limits: {gpuHours: 10, runMinutes: 60}\n"
        "workspace: {claimName: all}\n"
        "namespaces:\n"
        "  team-a: {limits: {gpuHours: 500}, workspace: {size: 10Gi, storageClassName: fast}}\n"
    )
    config = load(tmp_path, text)
    assert config.limits_in("team-a") == Limits(gpu_hours=500, run_minutes=60)
    assert config.limits_in("team-b") == Limits(gpu_hours=10, run_minutes=60)
    assert config.workspace_in("team-a").size == "10Gi"
    assert config.workspace_in("team-b").claim_name == "all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.yaml:1: found no settings. See config.example.yaml for a start."),
        ("- a\n", "config.yaml:1: found no settings. See config.example.yaml for a start."),
        ("a: [\n", "config.yaml:2: not YAML"),
        ("runtime: {image: i}\n", "config.yaml:1: pools has no pool. Name at least one pool"),
        ("pools: {a: {cpu: 1, memory: 1Gi}}\n", "config.yaml:1: runtime is missing. Give"),
        (SMALLEST + "pool: x\n", "config.yaml:4: pool is not a setting. Remove it, or correct it"),
        (
            SMALLEST + "runtime: {image: j}\n",
            "config.yaml:4: runtime is there twice. Remove one of them.",
        ),
        (
            SMALLEST.replace("cpu: 1", "cpu: many"),
            "config.yaml:3: pools.gpu.cpu is 'many'. Give the CPUs of one worker, such as 8",
        ),
        (
            SMALLEST.replace("1Gi", "1G"),
            "config.yaml:3: pools.gpu.memory is '1G'. Give the memory of one worker, such as 64Gi.",
        ),
        (
            SMALLEST.replace("memory: 1Gi", "memory: 1Gi, gpusPerWorker: 0.5"),
            "config.yaml:3: pools.gpu.gpusPerWorker is 0.5. Give a whole number.",
        ),
        (
            SMALLEST.replace("memory: 1Gi", "memory: 1Gi, maxWorkers: 65"),
            "config.yaml:3: pools.gpu.maxWorkers is 65. Give a number from 1 to 64.",
        ),
        (
            SMALLEST.replace("memory: 1Gi", "memory: 1Gi, nodeSelector: {gpu: true}"),
            "config.yaml:3: pools.gpu.nodeSelector is {'gpu': True}. Give texts for texts; quote",
        ),
        (
            SMALLEST.replace("memory: 1Gi", "memory: 1Gi, tolerations: [{kee: a}]"),
            "config.yaml:3: pools.gpu.tolerations has an entry with 'kee'. Its entries can have",
        ),
        (
            SMALLEST.replace("  gpu:", "  GPU:"),
            "config.yaml:3: pools.GPU is no name of a pool. Use lower-case letters",
        ),
        (SMALLEST.replace("{cpu: 1, memory: 1Gi}", ""), "config.yaml:3: pools.gpu is empty."),
        (
            SMALLEST + "defaultPool: h100\n",
            "config.yaml:4: defaultPool is 'h100', which is no pool. Name one of gpu.",
        ),
        (
            SMALLEST + "workspace: {claimName: a, size: 1Gi}\n",
            "config.yaml:4: workspace has claimName and size. Give one of them.",
        ),
        (
            SMALLEST + "workspace: {storageClassName: a}\n",
            "config.yaml:4: workspace has storageClassName without size. Give size too.",
        ),
        (SMALLEST + "head: 3\n", "config.yaml:4: head is not a mapping. Give fields below it"),
        (
            SMALLEST + "retryBackoff: {firstSeconds: 60, maxSeconds: 30}\n",
            "config.yaml:4: retryBackoff.maxSeconds is less than firstSeconds.",
        ),
        (
            SMALLEST + "logLevel: loud\n",
            "config.yaml:4: logLevel is 'loud'. Give one of debug, info, warning, error.",
        ),
        (
            SMALLEST + "lease: {enabled: maybe}\n",
            "config.yaml:4: lease.enabled is 'maybe'. Give true or false.",
        ),
        (
            SMALLEST + "watchNamespaces: team\n",
            "config.yaml:4: watchNamespaces is 'team'. Give a list of namespaces.",
        ),
        (
            SMALLEST + "limits: {gpuHours: lots}\n",
            "config.yaml:4: limits.gpuHours is 'lots'. Give a number.",
        ),
        (
            SMALLEST + "limits: {gpuHours: 0}\n",
            "config.yaml:4: limits.gpuHours is 0. Give a number from 0.001 to 1e+06.",
        ),
        (
            SMALLEST + "networkPolicy: {dashboardPeers: [3]}\n",
            "config.yaml:4: networkPolicy.dashboardPeers is [3]. Give a list of mappings.",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read .+ Name a readable file"):
        load_config(tmp_path / "none.yaml")


def test_the_command_refuses_wrong_settings_before_it_does_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(SMALLEST + "colour: red\n")
    assert main(["--config", str(file)]) == 2
    assert "config.yaml:4: colour is not a setting" in capsys.readouterr().err
    file.write_text(SMALLEST)
    assert main(["--config", str(file), "--check"]) == 0
