#!/usr/bin/env bash
# Validates OCSF documents against the schema that OCSF publishes (the Python package
# ocsf-json-schema embeds it): the golden ones, and what a binary makes of recorded events, their
# alerts and its own notices. Installs into a temporary environment.
#
#   tests/servers/ocsf.sh [KUBEWITNESS]   exits 1 on any violation, 3 where the schema cannot be had
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kubewitness=${1:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv" || exit 3
"$scratch/venv/bin/pip" install -q ocsf-json-schema==1.2.0 jsonschema || exit 3

# Runs the binary over the recorded sample until it writes no more.
recorded() {
    gunzip -c tests/corpus/sample.log.gz >"$scratch/audit.log"
    cat >"$scratch/config.yaml" <<YAML
cluster: prod-1
sources: [{type: log, path: "$scratch/audit.log"}]
spool: {dir: "$scratch/spool"}
sinks:
  - {type: file, name: ocsf, records: [events, alerts, notices], format: ocsf, path: "$scratch/lines"}
YAML
    "$kubewitness" run --config "$scratch/config.yaml" >"$scratch/log" 2>&1 &
    local pid=$! before=0 now=0
    for _ in $(seq 30); do
        sleep 3
        now=$(wc -c 2>/dev/null <"$scratch/lines" || echo 0)
        if [ "$now" -gt 0 ] && [ "$now" = "$before" ]; then break; fi
        before=$now
    done
    kill "$pid"
    wait "$pid" || true
}

if [ -n "$kubewitness" ]; then recorded; fi
touch "$scratch/lines"
"$scratch/venv/bin/python" - tests/golden/encode/ocsf.txt "$scratch/lines" "$kubewitness" <<'PYTHON'
import collections
import json
import sys

import jsonschema
from ocsf_json_schema import loader
from ocsf_json_schema.embedded import OcsfJsonSchemaEmbedded

CLASSES = {6003: "api_activity", 2004: "detection_finding"}
schemas = OcsfJsonSchemaEmbedded(loader.get_ocsf_schema(version="1.5.0"))
validators = {}
for number, name in CLASSES.items():
    schema = schemas.get_class_schema(name, [])
    validators[number] = jsonschema.validators.validator_for(schema)(schema)

documents = []
for block in open(sys.argv[1]).read().split("== ")[1:]:
    name, body = block.split("\n", 1)
    documents.append((f"golden {name}", json.loads(body)))
documents += [("recorded", json.loads(line)) for line in open(sys.argv[2])]

wrong, seen = 0, collections.Counter()
for name, document in documents:
    number = document["class_uid"]
    seen[name.split()[0], CLASSES[number]] += 1
    for error in validators[number].iter_errors(document):
        wrong += 1
        print(f"{name}:", "/".join(map(str, error.absolute_path)), error.message)
for (name, kind), count in sorted(seen.items()):
    print(f"{count} {name} documents of {kind}")
if sys.argv[3] and not {("recorded", kind) for kind in CLASSES.values()} <= seen.keys():
    sys.exit("the binary wrote no events or no alerts")
print(f"{wrong} violations of OCSF 1.5.0")
sys.exit(1 if wrong else 0)
PYTHON
