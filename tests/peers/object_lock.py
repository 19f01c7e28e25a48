#!/usr/bin/env python3
"""The archive in a store that enforces Object Lock: what the lock prevents, what verify says of what
it does not, and which buckets the preflight refuses. Needs boto3 and tests/servers/seaweedfs.sh
running; AWS_ENDPOINT_URL names another store.

usage: object_lock.py KUBEWITNESS"""

import os
import subprocess
import sys
import tempfile
import uuid
from datetime import datetime, timedelta, timezone

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:27833")
ADMIN = (os.environ.get("ADMIN_KEY", "admin"), os.environ.get("ADMIN_SECRET", "adminsecret"))
WRITER = (os.environ.get("WRITER_KEY", "writer"), os.environ.get("WRITER_SECRET", "writersecret"))
LOCKER = (os.environ.get("LOCKER_KEY", "locker"), os.environ.get("LOCKER_SECRET", "lockersecret"))
RUN = uuid.uuid4().hex[:8]
DIR = tempfile.mkdtemp()
failures = 0

s3 = boto3.client(
    "s3", endpoint_url=ENDPOINT, region_name="us-east-1", aws_access_key_id=ADMIN[0],
    aws_secret_access_key=ADMIN[1], config=Config(s3={"addressing_style": "path"}))


def kubewitness(*arguments, expect=0, has="", who=WRITER):
    global failures
    env = dict(os.environ, AWS_ENDPOINT=ENDPOINT, AWS_ALLOW_HTTP="true", AWS_REGION="us-east-1",
               AWS_ACCESS_KEY_ID=who[0], AWS_SECRET_ACCESS_KEY=who[1], XDG_STATE_HOME=DIR)
    env.pop("AWS_ENDPOINT_URL", None)
    done = subprocess.run([sys.argv[1], *arguments], env=env, text=True, capture_output=True)
    said = done.stdout + done.stderr
    is_right = done.returncode == expect and has in said
    failures += not is_right
    print("ok  " if is_right else "FAIL", done.returncode, " ".join(arguments)[:100])
    if not is_right:
        print(f"     expected {expect} {has!r}:\n{said}")
    return said


def denied(what, call, **arguments):
    global failures
    try:
        call(**arguments)
    except ClientError as error:
        print("ok   denied:", what, error.response["Error"]["Code"])
    else:
        failures += 1
        print("FAIL allowed:", what)


def bucket(name, mode=None, days=1, lock=True, versions=True):
    name = f"{name}-{RUN}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    if versions and not lock:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if mode:
        rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
        s3.put_object_lock_configuration(
            Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule})
    return name


def url(name):
    return f"s3://{name}/prod/cp-1"


def main():
    key, lines = f"{DIR}/key", f"{DIR}/audit.log"
    public = kubewitness("archive", "keygen", "audit.example.com/prod/cp-1", "-o", key).strip()
    with open(lines, "w") as out:
        for number in range(100):
            out.write('{"auditID":"%d","stageTimestamp":"2026-11-22T00:00:00.000000Z"}\n' % number)

    plain = bucket("plain", lock=False, versions=False)
    versioned = bucket("versioned", lock=False)
    no_rule = bucket("norule")
    governance = bucket("governance", "GOVERNANCE")
    locked = bucket("locked", "COMPLIANCE", days=2)
    for name, text in [(plain, "keeps no versions"), (versioned, "has no Object Lock"),
                       (no_rule, "locks nothing by default"), (governance, "governance mode")]:
        kubewitness("archive", "check", url(name), expect=2, has=text)
    kubewitness("archive", "check", url(governance), "--worm", "governance")
    kubewitness("archive", "check", url(locked), "--retention-days", "3", expect=2,
                has="for 2 days, not for 3")
    kubewitness("archive", "check", url(locked), "--retention-days", "2", has="2 days")
    kubewitness("archive", "check", f"s3://nowhere-{RUN}/x", expect=2)

    def append(name, state, *more, **expected):
        kubewitness("archive", "append", url(name), lines, "--key-file", key, "--state-dir",
                    f"{DIR}/{state}", "--lines-max", "20", *more, **expected)

    append(plain, "s0", expect=2, has="keeps no versions")
    append(locked, "s1")
    verify = ["verify", "--no-state", "--key", public]
    kubewitness(*verify, url(locked), has="OK")
    kubewitness(*verify, "--level", "quick", url(locked), has="OK")

    listed = s3.list_object_versions(Bucket=locked, Prefix="prod/cp-1/data/")["Versions"]
    segment, version = listed[0]["Key"], listed[0]["VersionId"]
    held = s3.head_object(Bucket=locked, Key=segment)
    global failures
    is_held = held.get("ObjectLockMode") == "COMPLIANCE"
    failures += not is_held
    print("ok   inherited" if is_held else "FAIL not inherited", held.get("ObjectLockMode"))
    one = {"Bucket": locked, "Key": segment, "VersionId": version}
    denied("delete a version", s3.delete_object, **one)
    denied("delete with bypass", s3.delete_object, BypassGovernanceRetention=True, **one)
    denied("shorten", s3.put_object_retention, **one, Retention={
        "Mode": "COMPLIANCE", "RetainUntilDate": "2026-11-23T00:00:00Z"})
    denied("create again", s3.put_object, Bucket=locked, Key=segment, Body=b"x", IfNoneMatch="*")

    s3.put_object(Bucket=locked, Key=segment, Body=b"forged", ChecksumAlgorithm="SHA256")
    kubewitness(*verify, url(locked), expect=11, has=f"SHADOWED {segment[len('prod/cp-1/'):]}")
    commit = "prod/cp-1/commit/000000000005.tlog-proof"
    s3.delete_object(Bucket=locked, Key=commit)
    kubewitness(*verify, url(locked), expect=11, has="SHADOWED commit/000000000005")
    append(locked, "s1", expect=1, has="ROLLBACK")
    s3.delete_object(Bucket=locked, Key="prod/cp-1/checkpoint")
    append(locked, "s2", expect=1, has="ROLLBACK")

    # A lock with each object, where the bucket's default locks nothing.
    by_object = ["--lock", "object", "--retention-days", "3"]
    kubewitness("archive", "check", url(no_rule), *by_object, has="3 days")
    kubewitness("archive", "check", url(versioned), *by_object, expect=2, has="has no Object Lock")
    append(no_rule, "s5", "--lock", "object", expect=2, has="needs `retention_days`")
    append(no_rule, "s5", *by_object, "--worm", "off", expect=2, has="say no `worm: off`")
    append(no_rule, "s5", *by_object, expect=1, has="check the credentials and what they may do")
    append(no_rule, "s6", *by_object, who=LOCKER)
    kubewitness(*verify, url(no_rule), has="OK")
    soon = datetime.now(timezone.utc) + timedelta(days=3)
    for prefix in ["data/", "commit/"]:
        listed = s3.list_object_versions(Bucket=no_rule, Prefix=f"prod/cp-1/{prefix}")["Versions"]
        one = {"Bucket": no_rule, "Key": listed[0]["Key"], "VersionId": listed[0]["VersionId"]}
        held = s3.head_object(**one)
        until = held.get("ObjectLockRetainUntilDate")
        is_held = held.get("ObjectLockMode") == "COMPLIANCE" and until > soon
        failures += not is_held
        print("ok   locked" if is_held else "FAIL not locked", prefix, until)
        denied("delete a version with a lock of its own", s3.delete_object, **one)

    append(versioned, "s3", "--worm", "off")
    listed = s3.list_objects_v2(Bucket=versioned, Prefix="prod/cp-1/data/")["Contents"]
    found = s3.list_object_versions(Bucket=versioned, Prefix=listed[0]["Key"])["Versions"][0]
    s3.delete_object(Bucket=versioned, Key=found["Key"], VersionId=found["VersionId"])
    kubewitness(*verify, url(versioned), expect=15, has="MISSING data/")
    # A record says for how long it was meant to be kept; a store that does not is told of.
    loose = bucket("loose", lock=False)
    append(loose, "s8", "--worm", "off", "--retention-days", "5")
    kubewitness(*verify, url(loose), expect=14, has="UNLOCKED data/")
    kubewitness(*verify, "--level", "records", url(loose), expect=14, has="UNLOCKED data/")

    append(plain, "s4", "--worm", "off")
    s3.put_object(Bucket=plain, Key=commit, Body=b"forged")
    kubewitness(*verify, url(plain), expect=16, has="ALTERED commit/000000000005")
    print(f"{failures} failures")
    sys.exit(failures > 0)


main()
