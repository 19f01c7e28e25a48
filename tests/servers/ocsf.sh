#!/usr/bin/env bash
# Validates the golden OCSF documents against the schema that OCSF publishes (the Python package
# ocsf-json-schema embeds it). Installs into a temporary environment. Exits 1 on any violation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q ocsf-json-schema==1.2.0 jsonschema
"$scratch/venv/bin/python" - tests/golden/encode/ocsf.txt <<'PYTHON'
import json
import sys

import jsonschema
from ocsf_json_schema import loader
from ocsf_json_schema.embedded import OcsfJsonSchemaEmbedded

CLASSES = {6003: "api_activity", 2004: "detection_finding"}
schemas = OcsfJsonSchemaEmbedded(loader.get_ocsf_schema(version="1.5.0"))
wrong = 0
for block in open(sys.argv[1]).read().split("== ")[1:]:
    name, body = block.split("\n", 1)
    document = json.loads(body)
    schema = schemas.get_class_schema(CLASSES[document["class_uid"]], [])
    errors = list(jsonschema.validators.validator_for(schema)(schema).iter_errors(document))
    wrong += len(errors)
    print(f"{name}: {len(errors)} violations of OCSF {document['metadata']['version']}")
    for error in errors:
        print("  ", "/".join(map(str, error.absolute_path)), error.message)
sys.exit(1 if wrong else 0)
PYTHON
