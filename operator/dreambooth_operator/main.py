"""The command: `dreambooth-operator --config FILE`."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from dreambooth_operator import __version__
from dreambooth_operator.config_file import load_config
from dreambooth_operator.kube.errors import KubeError
from dreambooth_operator.lease import LeaseLost
from dreambooth_operator.logs import set_up_logs
from dreambooth_operator.service import CannotStart, StartAgain, serve
from dreambooth_operator.settings_file import SettingsError

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the operator; 0 after SIGTERM, 2 for wrong settings, 1 for everything else."""
    parser = argparse.ArgumentParser(prog="dreambooth-operator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the settings, a YAML file")
    parser.add_argument("--check", action="store_true", help="only check the settings")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if options.check:
        return 0
    set_up_logs(config.log_level)
    logger.info("dreambooth-operator %s", __version__)
    code = 0
    try:
        asyncio.run(serve(config))
    except* StartAgain:
        logger.info("starting again, to watch KubeRay's objects")
    except* (CannotStart, KubeError, LeaseLost) as group:
        logger.critical("%s", group.exceptions[0])
        code = 1
    return code
