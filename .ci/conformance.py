#!/usr/bin/env python3
"""Runs cases of Sigma's meaning through `kubewitness rules eval`.

usage: conformance.py KUBEWITNESS DIRECTORY

DIRECTORY holds cases.json (a detection, an event, whether it matches or must be refused) and
corr_cases.json (a correlation with its rules, events, whether it fires). Prints what differs.
Exit status: 0 when nothing does, else 1.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

RULE = """title: case
id: 11111111-1111-4111-8111-111111111111
logsource: {product: kubernetes, service: audit}
level: low
detection:
"""


def evaluate(binary, directory, rules, events):
    """The exit code, the ids of the rules that alerted, and what was said on standard error."""
    rule_file, event_file = directory / "case.yml", directory / "case.jsonl"
    rule_file.write_text(rules, encoding="utf-8")
    event_file.write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")
    command = [binary, "rules", "eval", str(rule_file), str(event_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ids = [json.loads(line)["rule_id"] for line in done.stdout.splitlines()]
    return done.returncode, ids, done.stderr.strip()


def holds_detection(expected, code, ids):
    if expected == "reject":
        return code == 2
    return code == 0 and bool(ids) == expected


def holds_correlation(expected, code, ids):
    """0 and 1: the correlation (ids 9999…); base and no base: the rules below it (ids 1111…)."""
    if expected == "reject":
        return code == 2
    if expected in (0, 1):
        return code == 0 and any(i.startswith("9999") for i in ids) == bool(expected)
    return code == 0 and any(i.startswith("1111") for i in ids) == (expected == "base")


def main():
    binary, cases = sys.argv[1], pathlib.Path(sys.argv[2])
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)

        def judge(case, holds, rules, events):
            nonlocal passed, failed
            code, ids, said = evaluate(binary, directory, rules, events)
            if holds(case["expected"], code, ids):
                passed += 1
                return
            failed += 1
            print(f"{case['id']}: expected {case['expected']}, got {code} {ids} {said[:200]}")

        for case in json.loads((cases / "cases.json").read_text(encoding="utf-8")):
            block = "".join(f"    {line}\n" for line in case["detection"].split("\n"))
            judge(case, holds_detection, RULE + block, [case["event"]])
        for case in json.loads((cases / "corr_cases.json").read_text(encoding="utf-8")):
            judge(case, holds_correlation, case["rules"], case["events"])
    print(f"{passed} cases as expected, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
