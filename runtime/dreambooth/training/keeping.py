"""What the first worker keeps: checkpoints on the way, the tuned model at the end."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dreambooth.models.family import ModelFamily
from dreambooth.models.safety import keep_checker
from dreambooth.spans import Activity, span
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.plan import TrainingPlan
from dreambooth.training.selection import Selection
from dreambooth.training.trainer import Trainer
from dreambooth.training.writer import BackgroundWriter, worth_writing
from dreambooth.workspace.atomic import publish_dir, settle, temporary_sibling, write_json
from dreambooth.workspace.digest import tree_digest


class Keeper:
    """Keeps the state of one training so that little is lost and nothing waits.

    After the last step there is no checkpoint: the model itself is saved, and until that is
    visible as a whole, the training goes on from the checkpoint before.
    """

    def __init__(self, plan: TrainingPlan, store: CheckpointStore, selection: Selection) -> None:
        self._plan = plan
        self._store = store
        self._selection = selection
        self._writer = BackgroundWriter(store)
        self._since = time.monotonic()

    def check(self) -> None:
        """Raises what a checkpoint's writing has failed with, if it has."""
        self._writer.check()

    def is_due(self, trainer: Trainer) -> bool:
        """Measures where that is due; whether the state should be kept.

        Raises:
            DreamBoothError: If the checkpoint before was not written.
        """
        measured = self._selection.consider(trainer.step, self._plan.steps)
        work = time.monotonic() - self._since
        # What was measured may be chosen at the end.
        if measured or worth_writing(trainer.state_bytes(), work):
            return True
        self._writer.check()
        return False

    def keep(self, trainer: Trainer) -> None:
        """Saves the state, which all workers have collected.

        Raises:
            DreamBoothError: If this checkpoint cannot be begun, or the one before was not written.
        """
        best = self._selection.best(trainer.step)
        with span(Activity.CHECKPOINT):
            state = trainer.checkpoint({"selection": self._selection.to_json()})
            self._writer.submit(state, {best})
        self._since = time.monotonic()

    def end(self, model: ModelFamily, trainer: Trainer) -> None:
        """Saves the tuned model, and the state too if steps are left; all is collected.

        Raises:
            DreamBoothError: If something cannot be written.
        """
        step = trainer.step
        if step == self._plan.steps:
            self._selection.consider(step, step)
        else:
            # Stopped between two checkpoints. Nothing is measured, or a job that goes on from
            # here would choose among others than one that was never stopped.
            self._writer.wait()
            if step not in self._store.steps():
                self.keep(trainer)
            self._writer.wait()
        chosen = self._selection.best(step)
        if chosen != step:
            self._writer.wait()
            trainer.load_weights(self._store.load_weights(chosen))
        engine = trainer.engine.describe()
        trainer.finish()
        self._store.check_owner()
        with span(Activity.SAVE_MODEL):
            digest = self._save_model(model)
        write_json(
            Path(self._plan.summary),
            {
                "key": self._plan.key,
                "steps": step,
                "digest": digest,
                "losses": trainer.losses,
                "keptStep": chosen,
                "selection": self._selection.to_json(),
                "trainedParameters": sum(p.numel() for p in trainer.parameters.values()),
                "engine": engine,
            },
        )

    def close(self) -> None:
        """Leaves no write behind; what it comes to no longer matters."""
        self._writer.close()

    def _save_model(self, model: ModelFamily) -> str:
        """Publishes the tuned model; its digest."""
        final = Path(self._plan.output)
        temporary = temporary_sibling(final)
        try:
            model.save(temporary, lora=self._plan.lora is not None)
            if self._plan.checker is not None:
                keep_checker(Path(self._plan.checker), temporary)
            with ThreadPoolExecutor(1) as beside:
                # Digested while the disk takes it in: both go through gigabytes.
                digest = beside.submit(tree_digest, temporary)
                settle(temporary)
            publish_dir(temporary, final)
            return digest.result()
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
