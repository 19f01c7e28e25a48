#!/usr/bin/env python3
"""Makes an archive, and has it verified by programs that others wrote: Go's checksum database
libraries (tests/peers/go), and of PyPI those that are installed: aics-tlog, tlog-scales, pymerkle,
zstandard, duckdb. Says which were left out.

usage: verify.py KUBEWITNESS LINES...    (LINES: files of audit events, a line each)
AICS_TLOG and TLOG_TILES name the two commands where they are not on the path."""

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KUBEWITNESS, LINES = sys.argv[1], sys.argv[2:]
DIR = Path(tempfile.mkdtemp())
ARCHIVE = DIR / "archive"
failures = left_out = 0


def run(*command, **options):
    return subprocess.run(command, text=True, capture_output=True, **options)


def kubewitness(*arguments):
    done = run(KUBEWITNESS, *map(str, arguments), env=dict(os.environ, XDG_STATE_HOME=str(DIR)))
    if done.returncode:
        sys.exit(f"kubewitness {arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def told(peer, is_right, said=""):
    global failures
    failures += not is_right
    print("ok  " if is_right else "FAIL", peer, said.strip()[-2000:] if not is_right else "")


def without(peer):
    global left_out
    left_out += 1
    print("--   left out:", peer)


def command(name, variable):
    return os.environ.get(variable) or shutil.which(name)


def commit(seq):
    text = (ARCHIVE / f"commit/{seq:012}.tlog-proof").read_text()
    extra = next(line for line in text.split("\n") if line.startswith("extra "))
    return json.loads(base64.b64decode(extra[6:])), text


def go(key, old):
    if not shutil.which("go"):
        return without("Go sumdb/tlog and note")
    here = Path(__file__).parent / "go"
    done = run("go", "run", ".", str(ARCHIVE), key, str(old), cwd=here)
    told("Go sumdb/tlog and note", done.returncode == 0, done.stdout + done.stderr)


def aics(key, old, size):
    aics = command("aics-tlog", "AICS_TLOG")
    if not aics:
        return without("aics-tlog")
    (DIR / "pub").write_text(key + "\n")
    common = ["--tiles", str(ARCHIVE), "--vkey-file", str(DIR / "pub")]
    record = base64.b64decode(
        next(line for line in commit(size // 2)[1].split("\n") if line.startswith("extra "))[6:])
    (DIR / "leaf").write_bytes(record)
    for what in [["verify-checkpoint"],
                 ["verify-inclusion", "--leaf", str(DIR / "leaf"), "--index", str(size // 2)],
                 ["verify-consistency", "--old-checkpoint", str(old)]]:
        done = run(aics, *what, *common)
        told(f"aics-tlog {what[0]}", done.returncode == 0, done.stdout + done.stderr)


def scales(seq):
    tiles = command("tlog-tiles", "TLOG_TILES")
    if not tiles:
        return without("tlog-scales")
    theirs = run(tiles, "gen-proof", f"file://{ARCHIVE}", str(seq)).stdout
    kubewitness("prove", ARCHIVE, "--record", seq, "--event", 0, "-o", DIR / "event")
    ours = (DIR / "event.tlog-proof").read_text().split("\n")
    ours = "\n".join(line for line in ours if not line.startswith("extra "))
    told("tlog-scales: the same proof", theirs.strip() == ours.strip(), theirs + "\n" + ours)


def trees(seqs):
    if not all(map(importlib.util.find_spec, ["pymerkle", "zstandard"])):
        return without("pymerkle, zstandard")
    import pymerkle
    import zstandard
    for seq in seqs:
        record, _ = commit(seq)
        segment = record["segment"]
        data = (ARCHIVE / segment["object"]).read_bytes()
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        lines = reader.read().split(b"\n")[:-1]
        tree = pymerkle.InmemoryTree(algorithm="sha256")
        for line in lines:
            tree.append_entry(line)
        root = base64.b64encode(tree.get_root()).decode()
        is_right = (root == segment["event_root"] and len(lines) == segment["count"]
                    and hashlib.sha256(data).hexdigest() == segment["sha256"])
        told(f"pymerkle and zstandard: record {seq}", is_right, f"{root} {segment}")


def query(lines):
    if not importlib.util.find_spec("duckdb"):
        return without("duckdb")
    import duckdb
    rows = duckdb.sql(f"""
        SELECT date, count(*), count(DISTINCT auditID)
        FROM read_json('{ARCHIVE}/data/kind=events/**/*.ndjson.zst', format = 'newline_delimited',
                       hive_partitioning = true, columns = {{auditID: 'VARCHAR', verb: 'VARCHAR'}})
        GROUP BY date""").fetchall()
    told("duckdb reads it in place", sum(row[1] for row in rows) == lines, str(rows))


def main():
    origin = "audit.example.com/prod-eu1/cp-1"
    key = kubewitness("archive", "keygen", origin, "-o", DIR / "key").strip()
    kubewitness("archive", "append", ARCHIVE, *LINES, "--key-file", DIR / "key", "--state-dir",
                DIR / "state", "--lines-max", 3)
    old = DIR / "old.checkpoint"
    shutil.copy(ARCHIVE / "checkpoint", old)
    kubewitness("archive", "append", ARCHIVE, *LINES, "--key-file", DIR / "key", "--state-dir",
                DIR / "state", "--lines-max", 5)
    report = json.loads(kubewitness("verify", "--json", "--key", key, ARCHIVE))
    size, lines = report["head"]["size"], report["lines"]
    told(f"kubewitness: {size} records, {lines} lines", report["result"] == "OK")
    go(key, old)
    aics(key, old, size)
    scales(size // 3)
    trees([1, 2, size // 2, size - 1])
    query(lines)
    print(f"{failures} failures, {left_out} left out")
    sys.exit(failures > 0)


main()
