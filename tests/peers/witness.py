#!/usr/bin/env python3
"""Has an archive's checkpoints cosigned by a witness that others wrote: aics-witness of PyPI. It must
cosign what grows, and refuse a copy of the log that was rolled back and went on differently.

usage: witness.py KUBEWITNESS LINES    (LINES: a file of audit events, a line each)
AICS_WITNESS names the command where it is not on the path. Exits with 77 where it is not to be had."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KUBEWITNESS, LINES = sys.argv[1], Path(sys.argv[2])
DIR = Path(tempfile.mkdtemp())
ORIGIN = "audit.example.com/prod-eu1/cp-1"
AICS = os.environ.get("AICS_WITNESS") or shutil.which("aics-witness")
if not AICS:
    print("--   left out: aics-witness")
    sys.exit(77)


def run(*command, **options):
    environment = dict(os.environ, XDG_STATE_HOME=str(DIR / "home"))
    return subprocess.run(list(map(str, command)), text=True, capture_output=True, cwd=DIR,
                          env=environment, **options)


def good(*command):
    done = run(*command)
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    sys.exit(f"never: {what}")


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def checkpoint(archive):
    path = DIR / archive / "checkpoint"
    return path.read_text() if path.exists() else ""


def size(archive):
    note = checkpoint(archive)
    return int(note.split("\n")[1]) if note else 0


def config(archive, required):
    (DIR / "c.yaml").write_text(json.dumps({
        "cluster": "prod-1",
        "sources": [{"type": "log", "path": f"{DIR}/{archive}.log"}],
        "spool": {"dir": f"{DIR}/{archive}.spool"},
        "sinks": [{"type": "archive", "name": "archive", "records": ["events", "alerts"],
                   "batch": {"wait_max": "100ms"}, "url": f"{DIR}/{archive}", "worm": "off",
                   "key_file": f"{DIR}/key", "state_dir": f"{DIR}/{archive}.state",
                   "publish_seconds": 0,
                   "witness": {"policy_file": f"{DIR}/policy", "required": required}}],
        "admin": {"listen": "127.0.0.1:0"},
    }))


def archived(archive, lines, required, holds):
    """Runs until `holds`, and ends by a signal."""
    with open(DIR / f"{archive}.log", "ab") as log:
        log.write(lines)
    config(archive, required)
    with open(DIR / f"{archive}.err", "ab") as said:
        process = subprocess.Popen([KUBEWITNESS, "run", "--config", "c.yaml"], cwd=DIR, stderr=said)
        until(f"{archive}: {(DIR / f'{archive}.err').read_text()[-2000:]}", holds)
        process.terminate()
        process.wait()
    return (DIR / f"{archive}.err").read_text()


def main():
    key = good(KUBEWITNESS, "archive", "keygen", ORIGIN, "-o", DIR / "key")
    (DIR / "pub").write_text(key)
    port = free_port()
    vkey = good(AICS, "init", "--config", "witness.json", "--name", "witness.example.com/aics",
                "--listen", f"127.0.0.1:{port}")
    vkey = next(word for word in vkey.split() if word.startswith("witness.example.com/aics+"))
    good(AICS, "add-log", "--config", "witness.json", "--origin", ORIGIN, "--vkey", key)
    (DIR / "policy").write_text(f"witness aics {vkey} http://127.0.0.1:{port}\nquorum aics\n")
    server = subprocess.Popen([AICS, "serve", "--config", "witness.json"], cwd=DIR,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("the witness listens", lambda: answers(port))
        lines = LINES.read_bytes().splitlines(keepends=True)
        cosigned = lambda archive: "witness.example.com/aics" in checkpoint(archive)
        half = len(lines) // 2
        archived("archive", b"".join(lines[:half]), True, lambda: cosigned("archive"))
        for name in ["archive", "archive.spool", "archive.state"]:
            shutil.copytree(DIR / name, DIR / name.replace("archive", "copy", 1))
        shutil.copy(DIR / "archive.log", DIR / "copy.log")
        before = size("archive")
        archived("archive", b"".join(lines[half:]), True, lambda: size("archive") > before + 2)
        said = good(KUBEWITNESS, "verify", "--key", "pub", "--policy", "policy", "archive")
        print("ok   aics-witness cosigns a log that grows:", said.split("\n")[-1])
        # A clone of disk and store that goes its own way: the witness knows of more.
        refused = lambda: "ROLLBACK" in (DIR / "copy.err").read_text()
        archived("copy", b"".join(reversed(lines[half:])), True, refused)
        print("ok   aics-witness refuses a log that was rolled back")
    finally:
        server.terminate()
        server.wait()


main()
