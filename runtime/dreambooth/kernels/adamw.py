"""AdamW with fp32 masters for low-precision working weights, in two passes over memory.

A step as separate torch operations (gradients to fp32, norm, clip, AdamW, masters to bf16) moves
about 54 bytes a parameter. `FusedAdamW` reads the gradients once for their norm and then does all
the rest in one kernel: 2 + 28 bytes a parameter (bf16 gradient 2, fp32 master, exp_avg and
exp_avg_sq read and written 24, bf16 weight written 2).

**Gradients are stolen, not accumulated.** With `p.grad = None` before `backward()`, autograd hands
over the very tensor in which a gradient was computed: no pass over memory. So gradients are no
slices of a buffer of ours; the kernels find them by a table of addresses on the device. Under a
CUDA graph these addresses are fixed once the graph is captured, but known only then, and a kernel
reads the table when it runs. Hence the order:

    for _ in range(3):                       # warm-up on a side stream, as torch asks for
        optimizer.zero_grad(); loss().backward(); optimizer.step()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        loss().backward(); optimizer.step()  # notes the gradients' addresses
    optimizer.bind()                         # writes them into the table: before the first replay
    graph.replay()

After the capture the parameters' `.grad` must stay as they are (they keep the graph's memory
alive), so call `zero_grad()` no more. Gradient accumulation works the same way: a later backward
adds to the first one's tensors. All inputs that change between steps (learning rate, step) are on
the device.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.flat import FlatLayout

GRADIENT_TYPES = (torch.bfloat16, torch.float16, torch.float32)


class MasterOptimizer(Protocol):
    """What the training step needs of an optimizer that holds fp32 masters."""

    learning_rate: Tensor
    step_count: Tensor
    norm: Tensor
    masters: list[Tensor]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]

    def step(
        self,
        gradients: Sequence[Tensor | None] | None = None,
        written: Callable[[int], None] | None = None,
    ) -> None:
        """Updates masters, moments and working weights."""

    def bind(self) -> None:
        """Makes captured steps ready for replay."""

    def zero_grad(self) -> None:
        """Drops the parameters' gradients."""

    def write_working(self) -> None:
        """Copies the masters to the working weights."""

    def set_step(self, step: int) -> None:
        """Says how many steps have been done."""

    def state_dict(self) -> dict[str, Any]:
        """All that a later `load_state_dict` needs to go on exactly here."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was called."""


def make_adamw(parameters: Sequence[Tensor], **options: Any) -> MasterOptimizer:
    """The fastest AdamW for the parameters' device: `FusedAdamW` where its kernels run.

    Args:
        parameters: Working weights, all of one type and on one device.
        options: Those of `TorchAdamW`.
    """
    parameters = list(parameters)
    if parameters and check_available(parameters[0].device) is None:
        return FusedAdamW(parameters, **options)
    return TorchAdamW(parameters, **options)


class TorchAdamW:
    """AdamW of torch's own operations over flat fp32 masters; the reference and the fallback.

    The formulas are those of `torch.optim.AdamW` after `torch.nn.utils.clip_grad_norm_`. A
    parameter without gradient is left alone, as there. Where the parameters are fp32 themselves,
    they become views of the masters, and nothing is copied.

    Args:
        parameters: Working weights, dense in memory, all of one type and on one device.
        lr: Learning rate; `learning_rate` holds it on the device from then on.
        betas: Decay rates of the two moments.
        eps: Added to the denominator.
        weight_decay: Decoupled weight decay.
        max_norm: Gradients are scaled down to this norm over all parameters; None: as they are,
            and `norm` is not computed.
        gradient_scale: What gradients are multiplied with before all else, e.g. one over the
            number of accumulated backward passes.
        masters: fp32 values to start with, in the parameters' order, on any device; by default
            the parameters' own.
        over_workers: Adds a sum of squares up over workers that update other parameters, for the
            norm of all; by default there are no others.
        portions: Ends of runs of parameters, of which `step` tells when it has updated them.

    Attributes:
        learning_rate: `[]`, fp32, on the device: fill it before a step.
        step_count: `[]`, int64, on the device: steps done.
        norm: `[]`, fp32, on the device: the gradients' norm in the last step, before clipping.
        masters: fp32 views of the flat buffer, each with its parameter's shape and strides.
        exp_avg: The same of the first moment.
        exp_avg_sq: The same of the second moment.

    Raises:
        ValueError: Parameters of different types or devices, not dense, or masters that don't fit.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_norm: float | None = None,
        gradient_scale: float = 1.0,
        masters: Sequence[Tensor] | None = None,
        over_workers: Callable[[Tensor], Any] | None = None,
        portions: Sequence[int] | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.portions = list(portions) if portions else [len(self.parameters)]
        self.over_workers = over_workers
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.max_norm, self.gradient_scale = max_norm, gradient_scale
        self.layout = FlatLayout.of(self.parameters)
        self.dtype, self.device = _common(self.parameters)

        def scalar(value: float, dtype: torch.dtype) -> Tensor:
            return torch.tensor(value, dtype=dtype, device=self.device)

        self.learning_rate = scalar(lr, torch.float32)
        self.step_count = scalar(0, torch.int64)
        self.norm = scalar(math.nan, torch.float32)
        self._flat_masters, self._flat_avg, self._flat_avg_sq = (
            torch.zeros(self.layout.size, device=self.device) for _ in range(3)
        )
        self.masters = self.layout.views(self._flat_masters)
        self.exp_avg = self.layout.views(self._flat_avg)
        self.exp_avg_sq = self.layout.views(self._flat_avg_sq)
        self._fill(self.masters, self.parameters if masters is None else masters, "masters")
        if self.dtype == torch.float32:
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.data = master
        else:
            self.write_working()

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor | None] | None = None,
        written: Callable[[int], None] | None = None,
    ) -> None:
        """Updates masters, moments and working weights.

        Args:
            gradients: In the parameters' order; by default their `.grad`.
            written: Called with the number of each portion once its weights are there.
        """
        given = self._gradients(gradients)
        active = [index for index, gradient in enumerate(given) if gradient is not None]
        if not active and self.over_workers is None:
            return
        grads = {
            index: gradient.float() * self.gradient_scale
            for index, gradient in enumerate(given)
            if gradient is not None
        }
        if self.max_norm is not None:
            self._clip(list(grads.values()), self.max_norm)
        self.step_count += 1
        for number, (first, last) in enumerate(itertools.pairwise([0, *self.portions])):
            self._update([index for index in active if first <= index < last], grads)
            if written is not None:
                written(number)

    def _clip(self, grads: list[Tensor], max_norm: float) -> None:
        norms: Any = torch._foreach_norm(grads) if grads else [torch.zeros_like(self.norm)]
        self.norm.copy_(torch.linalg.vector_norm(torch.stack(norms)))
        if self.over_workers is not None:
            squares = self.norm.square()
            self.over_workers(squares)
            self.norm.copy_(squares.sqrt())
        if grads:
            torch._foreach_mul_(grads, (max_norm / (self.norm + 1e-6)).clamp(max=1.0))

    def _update(self, active: list[int], grads: dict[int, Tensor]) -> None:
        if not active:
            return
        masters = [self.masters[index] for index in active]
        torch._fused_adamw_(
            masters,
            [grads[index] for index in active],
            [self.exp_avg[index] for index in active],
            [self.exp_avg_sq[index] for index in active],
            [],
            [self.step_count.float()] * len(active),
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        if self.dtype != torch.float32:
            torch._foreach_copy_([self.parameters[index] for index in active], masters)

    def bind(self) -> None:
        """Nothing to do: torch's operations know their tensors."""

    def zero_grad(self) -> None:
        """Drops the parameters' gradients, so that the next backward hands over its own."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def write_working(self) -> None:
        """Copies the masters to the working weights, e.g. after masters were loaded."""
        if self.dtype != torch.float32:
            torch._foreach_copy_(self.parameters, self.masters)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, with the tensors themselves, not copies."""
        return {
            "step": int(self.step_count),
            "learning_rate": float(self.learning_rate),
            "masters": self.masters,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was called; tensors may be on any device.

        Raises:
            ValueError: A tensor is missing or of another shape than its parameter.
        """
        for name in ("masters", "exp_avg", "exp_avg_sq"):
            self._check(state[name], name)
        for name in ("masters", "exp_avg", "exp_avg_sq"):
            self._fill(getattr(self, name), state[name], name)
        self.learning_rate.fill_(state["learning_rate"])
        self.set_step(state["step"])
        self.write_working()

    def set_step(self, step: int) -> None:
        """Says how many steps have been done: the bias corrections follow from it."""
        self.step_count.fill_(step)

    def _gradients(self, given: Sequence[Tensor | None] | None) -> list[Tensor | None]:
        if given is None:
            return [parameter.grad for parameter in self.parameters]
        if len(given) != len(self.parameters):
            raise ValueError(f"{len(given)} gradients for {len(self.parameters)} parameters")
        return list(given)

    @torch.no_grad()
    def _fill(self, ours: list[Tensor], given: Sequence[Tensor], name: str) -> None:
        self._check(given, name)
        for to, value in zip(ours, given, strict=True):
            to.copy_(value)

    def _check(self, given: Sequence[Tensor], name: str) -> None:
        if len(given) != len(self.parameters):
            raise ValueError(f"{len(given)} {name} for {len(self.parameters)} parameters")
        for index, (value, shape) in enumerate(zip(given, self.layout.shapes, strict=True)):
            if value.shape != shape:
                raise ValueError(
                    f"{name}[{index}] has shape {tuple(value.shape)}, its parameter {tuple(shape)}"
                )


class FusedAdamW(TorchAdamW):
    """The same in two kernels; see the module's text for use in a CUDA graph.

    Args:
        parameters: As of `TorchAdamW`, on a device for which `check_available` gives no reason.
        options: As of `TorchAdamW`.

    Raises:
        ValueError: As `TorchAdamW`.
        RuntimeError: The kernels can't run on the parameters' device.
    """

    def __init__(self, parameters: Sequence[Tensor], **options: Any) -> None:
        super().__init__(parameters, **options)
        reason = check_available(self.device)
        if reason is not None:
            raise RuntimeError(f"FusedAdamW can't run: {reason}. Use TorchAdamW.")
        from dreambooth.kernels.device.adamw import Launcher

        self._launcher = Launcher(self.layout, self.device, portions=self.portions)
        self._table = self._new_table()
        self._addresses: list[list[int]] = []
        # The table of the next captured step is made before the capture: memory taken during one is
        # used by several of the graph's operations in turn. Then those of captured steps, in use
        # for as long as their graphs may be replayed, and what is to be written into the last.
        self._next = self._new_table()
        self._bound: list[Tensor] = []
        self._captured: list[list[int]] = []
        infinite = math.inf if self.max_norm is None else self.max_norm
        settings = [*self.betas, self.weight_decay, infinite, self.gradient_scale]
        self._settings = torch.tensor(settings, dtype=torch.float64, device=self.device)
        # beta ** step for both moments.
        self._powers = torch.ones(2, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor | None] | None = None,
        written: Callable[[int], None] | None = None,
    ) -> None:
        """Updates masters, moments and working weights.

        Args:
            gradients: In the parameters' order; by default their `.grad`.
            written: Called with the number of each portion once its weights' kernels are launched.

        Raises:
            ValueError: Gradients of several types, or in another memory order than their
                parameters.
            RuntimeError: Captured steps wait for `bind`.
        """
        given = self._gradients(gradients)
        capturing = _is_capturing(self.device)
        if self._captured and not capturing:
            raise RuntimeError("a captured step has no addresses yet: call bind() first")
        addresses = [
            [0 if gradient is None else gradient.data_ptr() for gradient in given],
            [parameter.data_ptr() for parameter in self.parameters],
        ]
        dtype = self._check_gradients(given)
        if capturing:
            if self._captured not in ([], addresses):
                raise RuntimeError("other gradients were captured before: call bind() between")
            table, self._captured = self._next, addresses
        else:
            table = self._table
            if addresses != self._addresses:
                table.copy_(torch.tensor(addresses, dtype=torch.int64))
                self._addresses = addresses
        self._launcher.launch(
            table=table,
            masters=self._flat_masters,
            exp_avg=self._flat_avg,
            exp_avg_sq=self._flat_avg_sq,
            step_count=self.step_count,
            powers=self._powers,
            learning_rate=self.learning_rate,
            norm=self.norm,
            settings=self._settings,
            betas=self.betas,
            eps=self.eps,
            clips=self.max_norm is not None,
            gradient_type=dtype,
            working_type=self.dtype,
            aligned=all(address % 16 == 0 for row in addresses for address in row),
            over_workers=self.over_workers,
            written=written,
        )

    def bind(self) -> None:
        """Writes the addresses that captured steps will read; call it after the capture."""
        if not self._captured:
            return
        self._next.copy_(torch.tensor(self._captured, dtype=torch.int64))
        self._bound.append(self._next)
        self._next, self._captured = self._new_table(), []

    def set_step(self, step: int) -> None:
        """Says how many steps have been done: the bias corrections follow from it."""
        super().set_step(step)
        powers = [beta**step for beta in self.betas]
        self._powers.copy_(torch.tensor(powers, dtype=torch.float64))

    def _new_table(self) -> Tensor:
        return torch.empty((2, len(self.parameters)), dtype=torch.int64, device=self.device)

    def _check_gradients(self, given: Sequence[Tensor | None]) -> torch.dtype:
        types = {gradient.dtype for gradient in given if gradient is not None}
        if len(types) > 1 or not types <= set(GRADIENT_TYPES):
            raise ValueError(
                f"gradients must be of one floating type, not {sorted(map(str, types))}"
            )
        for index, gradient in enumerate(given):
            if gradient is not None and not self.layout.fits(index, gradient):
                raise ValueError(
                    f"gradient {index} has shape {tuple(gradient.shape)} and strides "
                    f"{gradient.stride()}, its parameter {tuple(self.layout.shapes[index])} and "
                    f"{self.layout.strides[index]}"
                )
        return types.pop() if types else self.dtype


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _common(parameters: Sequence[Tensor]) -> tuple[torch.dtype, torch.device]:
    if not parameters:
        raise ValueError("there are no parameters to optimize")
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"parameters must be of one type and on one device, not {found}")
    dtype, device = kinds.pop()
    if dtype not in GRADIENT_TYPES:
        raise ValueError(f"parameters of type {dtype} can't be trained here")
    return dtype, device
