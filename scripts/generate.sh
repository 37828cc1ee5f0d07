#!/usr/bin/env bash
# Writes every stub under generated/ from protos/. With --check it fails when what is committed is stale.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf generated/python/src
mkdir -p generated/python/src
for template in buf.gen.*.yaml; do
  buf generate --template "$template"
done
touch generated/python/src/{easyml/v1,buf/validate,inference}/py.typed
mkdir -p docs/reference
python scripts/contract_reference.py > docs/reference/contract.md
python scripts/settings_reference.py > docs/reference/settings.md
if [ "${1:-}" = --check ]; then
  stale=$(git status --porcelain -- generated docs/reference)
  [ -z "$stale" ] || { echo "Generated files are stale; run 'make generate' and commit:"; echo "$stale"; exit 1; }
fi
