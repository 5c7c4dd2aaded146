"""Finding the fastest way to launch a step that works here."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dreambooth.training.capture import (
    Launch,
    capture,
    first_line,
    is_out_of_memory,
    warming_up,
)
from dreambooth.training.engine import EngineParts
from dreambooth.training.program import StepProgram
from dreambooth.training.reduction import BucketReduction, NoReduction

_logger = logging.getLogger(__name__)

# Whole steps before a capture: kernels are compiled, algorithms chosen, workspaces made.
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class LaunchedStep:
    """A step that is ready.

    Attributes:
        run: Queues it.
        launch: How.
        refused: Faster ways and why there are none here.
    """

    run: Callable[[], None]
    launch: Launch
    refused: dict[str, str]


def default_launches(parts: EngineParts) -> tuple[Launch, ...]:
    """All ways that device and number of workers allow, fast ones first."""
    if parts.device.type != "cuda":
        return (Launch.EAGER,)
    if parts.world.size > 1:
        return (Launch.GRAPH, Launch.SPLIT, Launch.EAGER)
    return (Launch.GRAPH, Launch.EAGER)


def launch_step(program: StepProgram, launches: Sequence[Launch]) -> LaunchedStep | None:
    """The first of `launches` that works on all workers; weights and moments are as before.

    Returns:
        None if memory is too small under the program's plan.
    """
    world = program.parts.world
    # With a rate of zero and from moments of zero a step changes nothing but moments.
    with warming_up(program.parts.device):
        for _ in range(WARM_UP_STEPS):
            program.whole()
    refused: dict[str, str] = {}
    for launch in launches:
        failure: tuple[bool, str] | None = None
        run = program.whole
        try:
            run = _launched(program, launch)
        except Exception as error:
            # Whatever driver or libraries refuse: the step itself has just worked.
            failure = (is_out_of_memory(error), first_line(error))
        if not world.agree(failure is not None):
            program.forget_steps()
            return LaunchedStep(run, launch, refused)
        program.drop_gradients()
        program.optimizer.bind()
        if world.agree(failure is not None and failure[0]):
            return None
        refused[launch.value] = failure[1] if failure else "another worker could not"
        _logger.warning("no %s for training steps: %s", launch.value, refused[launch.value])
    raise AssertionError("a step can always be launched operation by operation")


def _launched(program: StepProgram, launch: Launch) -> Callable[[], None]:
    if launch is Launch.EAGER:
        return program.whole
    program.drop_gradients()
    if launch is Launch.GRAPH:
        whole = capture(program.whole)
        program.optimizer.bind()
        return whole.replay
    assert isinstance(program.reduction, BucketReduction)
    return _split(program, program.reduction)


def _split(program: StepProgram, reduction: BucketReduction) -> Callable[[], None]:
    """Forward and backward, then the workers' sums outside of any graph, then the update."""
    first = capture(lambda: program.backward(NoReduction()))
    update = program.update
    # An update during which workers send weights cannot be captured where sums cannot.
    if reduction.written is None:
        update = capture(update).replay
        program.optimizer.bind()

    def run() -> None:
        first.replay()
        reduction.reduce(program.loss)
        update()

    return run
