"""The recipe's commands. What they need is imported when they run: help answers at once."""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.model.errors import RecipeError
from tools.model.pace import Endless, Minutes, Pace, Steps

if TYPE_CHECKING:
    from tools.model.device import Wrap
    from tools.model.recipe import Recipe

LOG = logging.getLogger(__name__)

SAMPLES = 400_000
_PACKAGES = Path(".cache/model/packages")
# Of the time for training, what the autoencoder gets.
_AUTOENCODER_SHARE = 0.2
# Samples for each minute of training: 400,000 for the full 20. More would only take time to encode.
_SAMPLES_A_MINUTE = 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 and a message where a person can mend what is wrong."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except RecipeError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def make_pictures(options: argparse.Namespace) -> None:
    """Draws all pictures and learns the vocabulary."""
    from tools.model.dataset import build
    from tools.model.drawings import collect
    from tools.model.robots import draw_robots
    from tools.model.tokenizer import train_tokenizer

    dataset = build([*collect(options.packages), *draw_robots()])
    dataset.write(options.data)
    train_tokenizer(dataset.records, options.data / "tokenizer")
    for style, count in dataset.counts().items():
        print(f"{style:6} {count:5}")
    print(f"{'all':6} {len(dataset.records):5}  digest {dataset.digest()[:12]}")


def make_samples(options: argparse.Namespace) -> None:
    """Chooses how pictures are shown and called."""
    _recipe(options).make_samples(options.count)


def train_autoencoder(options: argparse.Namespace) -> None:
    """Trains the autoencoder, or goes on with it."""
    done = _recipe(options).train_autoencoder(
        _pace(options), _pause(options), _wrap(options), options.batch
    )
    _say_if_paused(done)


def encode(options: argparse.Namespace) -> None:
    """Makes latents."""
    _recipe(options).encode()


def train_denoiser(options: argparse.Namespace) -> None:
    """Trains UNet and text encoder, or goes on with them."""
    done = _recipe(options).train_denoiser(
        _pace(options), _pause(options), _wrap(options), options.batch
    )
    _say_if_paused(done)


def export(options: argparse.Namespace) -> None:
    """Writes the model for diffusers."""
    _recipe(options).export(options.model, options.batch)


def draw_grid(options: argparse.Namespace) -> None:
    """Draws the sample grid."""
    from tools.model.device import choose_device
    from tools.model.sampling import PROMPTS, Painter, write_grid

    painter = Painter(options.model, choose_device())
    pictures = painter.draw(PROMPTS, options.guidance, options.sampling_steps, options.seed)
    write_grid(pictures, options.file)


def score(options: argparse.Namespace) -> None:
    """Measures a model."""
    from tools.model.dataset import Dataset
    from tools.model.device import choose_device
    from tools.model.scoring import load_encoder, score

    result = score(
        options.model, Dataset.read(options.data), load_encoder(), choose_device(), options.each
    )
    result.write(options.file)
    print(options.file.read_text(), end="")


def run_all(options: argparse.Namespace) -> None:
    """Everything from the data set to the score, in the given time of training."""
    recipe = _recipe(options)
    first, second = _paces(options)
    minutes = options.minutes or SAMPLES / _SAMPLES_A_MINUTE
    recipe.make_samples(options.count or int(minutes * _SAMPLES_A_MINUTE))
    recipe.train_autoencoder(first, wrap=_wrap(options), batch=options.autoencoder_batch)
    recipe.encode()
    recipe.train_denoiser(second, wrap=_wrap(options), batch=options.batch)
    options.model = options.state / "model"
    # Of an earlier, perhaps shorter run.
    shutil.rmtree(options.model, ignore_errors=True)
    recipe.export(options.model, options.batch)
    options.file = options.out / "grid.webp"
    draw_grid(options)
    options.file = options.out / "score.json"
    try:
        score(options)
    except RecipeError as error:
        # The model is there all the same, and can be measured elsewhere.
        LOG.warning("%s", error)


def _paces(options: argparse.Namespace) -> tuple[Pace, Pace]:
    if options.steps is not None:
        return Steps(options.steps), Steps(options.steps)
    total = options.minutes
    return Minutes(total * _AUTOENCODER_SHARE), Minutes(total * (1 - _AUTOENCODER_SHARE))


def _recipe(options: argparse.Namespace) -> "Recipe":
    from tools.model.device import choose_device
    from tools.model.recipe import Recipe

    return Recipe(options.data, options.state, choose_device(), options.seed)


def _pace(options: argparse.Namespace) -> Pace:
    return Minutes(options.minutes) if options.steps is None else Steps(options.steps)


def _pause(options: argparse.Namespace) -> Pace:
    return Endless() if options.pause_after is None else Minutes(options.pause_after)


def _wrap(options: argparse.Namespace) -> "Wrap":
    from tools.model.device import as_it_is, compiled

    return compiled if options.compile else as_it_is


def _say_if_paused(done: bool) -> None:
    print("Done." if done else "Not done yet: the same command goes on from here.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.model", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = partial(_add, commands)

    pictures = add("pictures", make_pictures, "data")
    pictures.add_argument("--packages", type=Path, default=_PACKAGES, help="where they are kept")
    samples = add("samples", make_samples, "data", "state")
    samples.add_argument("--count", type=_positive, default=SAMPLES)
    _add_training(add("train-vae", train_autoencoder, "data", "state"), batch=96)
    add("encode", encode, "data", "state")
    _add_training(add("train-unet", train_denoiser, "data", "state"), batch=512)
    exported = add("export", export, "data", "state", "model")
    exported.add_argument("--batch", type=_positive, default=512, help="as in train-unet")
    _add_drawing(add("grid", draw_grid, "model", "file"))
    scored = add("score", score, "model", "data", "file")
    scored.add_argument("--each", type=_positive, default=4, help="pictures a noun (default 4)")
    everything = add("all", run_all, "data", "state", "out")
    _add_length(everything)
    _add_drawing(everything)
    everything.add_argument("--count", type=_positive, help="samples; default by minutes")
    everything.add_argument("--autoencoder-batch", type=_positive, default=96)
    everything.add_argument("--batch", type=_positive, default=512)
    everything.add_argument("--each", type=_positive, default=4, help="scored pictures a noun")
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    *folders: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(run=run)
    for folder in folders:
        parser.add_argument(folder, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _add_training(parser: argparse.ArgumentParser, batch: int) -> None:
    _add_length(parser)
    parser.add_argument("--batch", type=_positive, default=batch, help=f"default {batch}")
    parser.add_argument(
        "--pause-after", type=float, metavar="MINUTES", help="stop then; a later call goes on"
    )


def _add_length(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of training, by the clock")
    length.add_argument("--steps", type=_positive, help="of training")
    parser.add_argument(
        "--compile", action="store_true", help="with torch.compile: pays from 5 minutes on"
    )


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--sampling-steps", type=_positive, default=25)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
