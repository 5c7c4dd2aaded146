"""A kubectl of a cluster that is a folder: jobs and pods are files, exec runs on this machine.

Run as `python fake_kubectl.py CLUSTER WORDS…`. `script.json` says what shall go wrong:
`{"fail": {"get pod": "message"}, "cut": 100}` makes a verb fail with a message on its standard
error, or the first exec of tar end after so many bytes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main(cluster: Path, words: list[str]) -> int:
    with (cluster / "calls.txt").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    plain, rest = _split(words)
    verb = plain[0]
    failures = _script(cluster).get("fail", {})
    if verb in failures:
        print(failures[verb], file=sys.stderr)
        return 1
    if verb == "get":
        return _get(cluster, plain)
    if verb == "patch":
        return _patch(cluster, plain)
    if verb == "create":
        pod = json.load(sys.stdin)
        (cluster / "pods" / pod["metadata"]["name"]).write_text(json.dumps(pod))
        return 0
    if verb == "wait":
        return 0
    if verb == "delete":
        (cluster / "pods" / plain[2]).unlink(missing_ok=True)
        return 0
    if verb == "exec":
        return _exec(cluster, plain[1], rest)
    print(f"error: unknown command {verb}", file=sys.stderr)
    return 1


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _script(cluster: Path) -> dict[str, Any]:
    file = cluster / "script.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _get(cluster: Path, words: list[str]) -> int:
    kind, name = words[1], words[2] if not words[2].startswith("-") else None
    if kind == "pods":
        print(json.dumps({"items": _head_pods(cluster)}))
        return 0
    if kind == "pod":
        pod = json.loads((cluster / "pods" / str(name)).read_text())
        print(json.dumps(pod | {"status": _script(cluster).get("podStatus", {})}))
        return 0
    if name is None:
        jobs = [json.loads(file.read_text()) for file in sorted((cluster / "jobs").iterdir())]
        print(json.dumps({"items": jobs}))
        return 0
    file = cluster / "jobs" / name
    if "--watch" in words:
        # One watch tells one event, as if the server had ended it then; pretty, as kubectl prints.
        events = sorted((cluster / "events").iterdir())
        if events:
            event = json.loads(events[0].read_text())
            events[0].unlink()
            if event["type"] != "DELETED":
                file.write_text(json.dumps(event["object"]))
            print(json.dumps(event, indent=4))
        return 0
    if not file.exists():
        print(
            f'Error from server (NotFound): dreamboothjobs.dreambooth.dev "{name}" not found',
            file=sys.stderr,
        )
        return 1
    print(file.read_text())
    return 0


def _head_pods(cluster: Path) -> list[dict[str, Any]]:
    pods = [json.loads(file.read_text()) for file in sorted((cluster / "pods").iterdir())]
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get("ray.io/node-type")]


def _patch(cluster: Path, words: list[str]) -> int:
    file = cluster / "jobs" / words[2]
    job = json.loads(file.read_text())
    patch = json.loads(words[words.index("--patch") + 1])
    job["spec"] |= patch["spec"]
    file.write_text(json.dumps(job))
    return 0


def _exec(cluster: Path, pod: str, command: list[str]) -> int:
    if not (cluster / "pods" / pod).exists():
        print(f'Error from server (NotFound): pods "{pod}" not found', file=sys.stderr)
        return 1
    here = [word.replace("/workspace", str(cluster / "workspace"), 1) for word in command]
    cut = _script(cluster).get("cut")
    if cut is not None and here[0] == "tar":
        (cluster / "script.json").write_text("{}")
        done = subprocess.run(here, stdout=subprocess.PIPE, check=False)
        sys.stdout.buffer.write(done.stdout[:cut])
        print("error: unable to upgrade connection", file=sys.stderr)
        return 1
    if here[0] == "tail" and "-F" in here:
        # The pod ends once it has told what there is.
        here.remove("-F")
        (cluster / "pods" / pod).unlink()
    return subprocess.run(here, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
