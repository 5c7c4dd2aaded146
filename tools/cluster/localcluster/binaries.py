"""Programs built from pinned Go modules, cached by what determines them."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from localcluster.commands import run, run_logged
from localcluster.console import say, timed
from localcluster.errors import ClusterError
from localcluster.layout import CACHE, MODULES
from localcluster.locking import BINARIES, exclusive

GO_MINIMUM = (1, 26)
_KUBERNETES = "k8s.io/component-base/version"


@dataclass(frozen=True, eq=False)
class Module:
    """One folder of modules/: what is built from it, and the versions stamped into it."""

    name: str
    programs: dict[str, str]  # program → Go package
    pinned: str | None = None  # the module whose version is stamped
    stamp: dict[str, str] = field(default_factory=dict)  # variable → template over the version
    files: dict[str, str] = field(default_factory=dict)  # cached name → folder of the module
    runs_here: bool = True  # whether the cluster needs it; the others are for tests

    @property
    def folder(self) -> Path:
        """The module's go.mod, go.sum and sources."""
        return MODULES / self.name

    def version(self) -> str:
        """Return the pinned module's version, for example v1.34.4."""
        text = (self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^\s*(?:require )?{re.escape(self.pinned or '')} (v\S+)", text, re.M)
        if not found:
            raise ClusterError(f"{self.folder}/go.mod does not pin {self.pinned}")
        return found[1]

    def flags(self) -> str:
        """Return the linker's flags: no symbol tables, and the version that is reported."""
        words = ["-s", "-w"]
        if self.stamp:
            version = self.version()
            major, minor, _ = version.removeprefix("v").split(".", 2)
            for variable, template in self.stamp.items():
                value = template.format(version=version, major=major, minor=minor)
                words += ["-X", f"{variable}={value}"]
        return " ".join(words)


# The largest first: the others are built beside it.
ALL = (
    Module(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            )
        },
        pinned="k8s.io/kubernetes",
        stamp={
            f"{_KUBERNETES}.gitVersion": "{version}",
            f"{_KUBERNETES}.gitMajor": "{major}",
            f"{_KUBERNETES}.gitMinor": "{minor}",
        },
    ),
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module("coredns", {"coredns": "."}),
    Module(
        "kuberay",
        {"kuberay-operator": "github.com/ray-project/kuberay/ray-operator"},
        pinned="github.com/ray-project/kuberay/ray-operator",
        files={"crds": "config/crd/bases", "rbac": "config/rbac"},
    ),
    Module("addons", {name: f"./{name}" for name in ("pause", "shared-provisioner", "fake-gpus")}),
    Module(
        "kuberouter",
        {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
        pinned="github.com/cloudnativelabs/kube-router/v2",
        stamp={"github.com/cloudnativelabs/kube-router/v2/pkg/version.Version": "{version}"},
    ),
    Module(
        "helm",
        {"helm": "helm.sh/helm/v3/cmd/helm"},
        pinned="helm.sh/helm/v3",
        stamp={"helm.sh/helm/v3/internal/version.version": "{version}"},
    ),
    Module(
        "kwok",
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        pinned="sigs.k8s.io/kwok",
        stamp={"sigs.k8s.io/kwok/pkg/consts.Version": "{version}"},
    ),
    Module(
        "charts",
        {
            "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
            "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
        },
        runs_here=False,
    ),
)
PROGRAMS = {program: module for module in ALL for program in module.programs}
_CLUSTER = tuple(program for program, module in PROGRAMS.items() if module.runs_here)


@cache
def _go_version() -> str:
    if not shutil.which("go"):
        raise ClusterError(
            f"Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or newer is needed to build the binaries: "
            "install it and put it on PATH"
        )
    version = run(["go", "env", "GOVERSION"]).strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < GO_MINIMUM:
        raise ClusterError(f"Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or newer is needed, not {version}")
    return version


@cache
def output_folder(module: Module) -> Path:
    """Return the cache folder for what this module builds now."""
    digest = hashlib.sha256()
    for part in (_go_version(), module.flags(), repr(sorted(module.programs.items()))):
        digest.update(part.encode() + b"\0")
    for path in sorted(module.folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(module.folder)).encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return CACHE / "binaries" / f"{module.name}-{digest.hexdigest()[:16]}"


def path(program: str) -> Path:
    """Return where a program lies once it is built."""
    return output_folder(PROGRAMS[program]) / program


def crds() -> Path:
    """Return the folder with KubeRay's custom resource definitions."""
    return output_folder(PROGRAMS["kuberay-operator"]) / "crds"


def ensure(programs: Iterable[str] = _CLUSTER) -> bool:
    """Build the modules of these programs that are not cached; tell whether any was.

    Raises:
        ClusterError: no Go, or a build failed; the others are finished first.
    """
    wanted = {PROGRAMS[program].name for program in programs}
    if not _lacking(wanted):
        return False
    with exclusive(BINARIES):
        # Another run may have built them while this one waited.
        if not (todo := _lacking(wanted)):
            return False
        names = ", ".join(module.name for module in todo)
        say(f"building {names} (all of them: about 12 minutes on 2 cores)")
        for unfinished in (CACHE / "binaries").glob(".*"):
            shutil.rmtree(unfinished)
        # Two at a time: one's long single-threaded link is another's time to compile.
        with ThreadPoolExecutor(max_workers=2) as pool:
            builds = [pool.submit(_build, module) for module in todo]
        for build in builds:
            build.result()
    return True


def _lacking(wanted: set[str]) -> list[Module]:
    return [m for m in ALL if m.name in wanted and not output_folder(m).is_dir()]


def _build(module: Module) -> None:
    destination = output_folder(module)
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Static: most of these run in images that hold nothing else.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    with (
        timed(f"building {module.name}"),
        tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{module.name}-") as scratch,
    ):
        # One program gets its name from here, several get their packages' names.
        target = scratch + "/" + (next(iter(module.programs)) if len(module.programs) == 1 else "")
        run_logged(
            ["go", "build", "-trimpath", "-ldflags", module.flags(), "-o", target]
            + [*module.programs.values()],
            CACHE / "logs" / f"build-{module.name}.log",
            environment=environment,
            folder=module.folder,
            timeout=1800,
        )
        if module.files:
            source = run(
                ["go", "list", "-m", "-f", "{{.Dir}}", str(module.pinned)],
                folder=module.folder,
                environment=environment,
                timeout=300,
            )
            for name, part in module.files.items():
                shutil.copytree(
                    Path(source.strip()) / part,
                    Path(scratch) / name,
                    copy_function=shutil.copyfile,
                )
        # Only a whole folder ever has the final name. The module cache's folders are read-only.
        for folder in [Path(scratch), *Path(scratch).rglob("*")]:
            folder.chmod(0o755)
        Path(scratch).rename(destination)
        Path(scratch).mkdir()
