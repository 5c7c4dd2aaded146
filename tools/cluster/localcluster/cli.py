"""The tool's commands."""

import argparse
import time
from collections.abc import Callable, Sequence

from localcluster import binaries, cluster, images, kubernetes
from localcluster.console import say
from localcluster.errors import ClusterError
from localcluster.layout import ADMIN_KUBECONFIG, NODES, node


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ClusterError as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/cluster", description="A real Kubernetes with KubeRay on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        return sub

    add("up", _up, "start the cluster, or repair what does not run")
    add("down", _down, "end and remove everything but caches and logs")
    add("status", _status, "say what runs and where the logs are")
    add("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    sub = add("binaries", _binaries, "build programs if needed; print name and path of each")
    sub.add_argument("names", nargs="*", metavar="NAME", help="all of them when left out")
    add("images", _images, "build the images and load them into the running nodes")
    sub = add("node", _node, "take a node away as a power failure would, or bring it back")
    sub.add_argument("action", choices=("stop", "start"))
    sub.add_argument("name", choices=[machine.name for machine in NODES])
    sub = add("kubectl", _kubectl, "run kubectl as the administrator")
    sub.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    return parser


def _up(_: argparse.Namespace) -> int:
    start = time.monotonic()
    changed = cluster.up()
    seconds = time.monotonic() - start
    if changed:
        say(f"up in {seconds:.0f} s; kubeconfig: {ADMIN_KUBECONFIG}")
    else:
        say(f"everything runs, nothing to do (looked for {seconds:.0f} s)")
    return 0


def _down(_: argparse.Namespace) -> int:
    say("down" if cluster.down() else "not running, nothing to do")
    return 0


def _status(_: argparse.Namespace) -> int:
    text, healthy = cluster.report()
    print(text)
    return 0 if healthy else 1


def _kubeconfig(_: argparse.Namespace) -> int:
    print(ADMIN_KUBECONFIG)
    return 0


def _binaries(arguments: argparse.Namespace) -> int:
    names = arguments.names or list(binaries.PROGRAMS)
    if unknown := sorted(set(names) - set(binaries.PROGRAMS)):
        raise ClusterError(
            f"no such program: {', '.join(unknown)}; there are {', '.join(binaries.PROGRAMS)}"
        )
    binaries.ensure(names)
    for name in names:
        print(name, binaries.path(name))
    return 0


def _images(_: argparse.Namespace) -> int:
    start = time.monotonic()
    changed = images.ensure()
    say(f"images {'updated' if changed else 'unchanged'} in {time.monotonic() - start:.0f} s")
    return 0


def _node(arguments: argparse.Namespace) -> int:
    machine = node(arguments.name)
    if arguments.action == "stop":
        cluster.stop_node(machine)
        say(f"{machine.name} is off; the API server notices within half a minute")
    else:
        cluster.start_node(machine)
        say(f"{machine.name} is ready")
    return 0


def _kubectl(arguments: argparse.Namespace) -> int:
    return kubernetes.interactive_kubectl(arguments.words)
