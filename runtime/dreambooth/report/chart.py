"""The loss curve as inline SVG, drawn with the page's colours."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
# The smooth line is a mean over this share of the steps; single losses jump with the noise level.
WINDOW = 0.1
# More points than a screen has pixels help nobody.
MAX_POINTS = 600


def loss_chart(losses: Sequence[float], kept_step: int | None) -> str:
    """SVG of the loss by step: each step faint, their moving mean strong, the kept step marked."""
    finite = [value for value in losses if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    smooth = moving_mean(finite, max(1, round(WINDOW * len(finite))))
    # One outlier must not flatten the rest; it leaves the frame.
    top = max(sorted(finite)[int(0.98 * (len(finite) - 1))], max(smooth)) * 1.05 or 1.0
    steps = len(finite)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 1) / (steps - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value, 0.0), top) / top)

    def line(values: Sequence[float], name: str) -> str:
        stride = -(-len(values) // MAX_POINTS)
        points = " ".join(
            f"{x(i + 1):.1f},{y(values[i]):.1f}" for i in range(0, len(values), stride)
        )
        return f'<polyline class="{name}" points="{points}"/>'

    label = f"Loss over {steps} steps: {smooth[0]:.3g} at the start, {smooth[-1]:.3g} at the end"
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">',
        *(_level(share * top, y(share * top)) for share in (0.0, 0.5, 1.0)),
        line(finite, "each"),
        line(smooth, "mean"),
    ]
    if kept_step is not None and 1 <= kept_step <= steps:
        parts.append(_mark(x(kept_step), kept_step))
    foot = HEIGHT - 10
    parts += [
        f'<text x="{LEFT}" y="{foot}">step 1</text>',
        f'<text x="{WIDTH - RIGHT}" y="{foot}" text-anchor="end">{steps}</text>',
        "</svg>",
    ]
    return "".join(parts)


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place, of fewer at the start."""
    means = []
    total = 0.0
    for index, value in enumerate(values):
        total += value
        if index >= window:
            total -= values[index - window]
        means.append(total / min(index + 1, window))
    return means


def _level(value: float, y: float) -> str:
    return (
        f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>'
    )


def _mark(x: float, step: int) -> str:
    side, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    return (
        f'<line class="kept" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x + shift:.1f}" y="{TOP + 12}" text-anchor="{side}">kept: step {step}</text>'
    )
