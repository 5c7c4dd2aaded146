"""Where things are on a workspace: the one place that knows the paths."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class JobFolder:
    """Everything that belongs to one job."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The job as it was run, defaults filled in."""
        return self.root / "job.json"

    @property
    def lock(self) -> Path:
        """Held by the run that works on this job."""
        return self.root / ".lock"

    @property
    def stages(self) -> Path:
        """One done-record a finished stage."""
        return self.root / "stages"

    @property
    def photos(self) -> Path:
        """The photos as accepted: RGB, upright, lossless."""
        return self.root / "photos"

    @property
    def checkpoints(self) -> Path:
        """Training state by step."""
        return self.root / "checkpoints"

    @property
    def ray_train(self) -> Path:
        """Ray Train's own bookkeeping."""
        return self.root / "ray-train"

    @property
    def model(self) -> Path:
        """The tuned model: a diffusers folder, or LoRA weights."""
        return self.root / "model"

    @property
    def images(self) -> Path:
        """Pictures of the subject."""
        return self.root / "images"

    @property
    def evaluation(self) -> Path:
        """Pictures that were made to measure."""
        return self.root / "evaluation"

    @property
    def contact_sheet(self) -> Path:
        """Base against tuned, prompt by prompt."""
        return self.root / "contact-sheet.png"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def result(self) -> Path:
        """The report for programs."""
        return self.root / "result.json"

    @property
    def timeline(self) -> Path:
        """What each process did, and when."""
        return self.root / "timeline.json"

    @property
    def progress(self) -> Path:
        """How far the job is."""
        return self.root / "progress.json"

    @property
    def usage(self) -> Path:
        """GPU-seconds by stage and by try."""
        return self.root / "gpu-seconds.json"

    @property
    def log(self) -> Path:
        """What happened, line by line, over all runs."""
        return self.root / "log.txt"


@dataclass(frozen=True)
class Workspace:
    """A folder that all machines of a job see; caches are shared between jobs."""

    root: Path

    @property
    def models(self) -> Path:
        """Base models and encoders by repository and revision."""
        return self.root / "cache" / "models"

    @property
    def pictures(self) -> Path:
        """Pictures of base models by the digest of everything that determines them."""
        return self.root / "cache" / "class-images"

    @property
    def compile(self) -> Path:
        """Compiler caches."""
        return self.root / "cache" / "compile"

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.root / "jobs"

    def job(self, job_id: str) -> JobFolder:
        """The folder of one job; it need not exist yet."""
        return JobFolder(self.jobs / job_id)
