#!/usr/bin/env bash
# Writes every stub under generated/ from protos/. With --check it fails when what is committed is stale.
set -euo pipefail
cd "$(dirname "$0")/.."
# Apart at first: a program that runs from here is not to miss its stubs meanwhile.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for template in buf.gen.*.yaml; do
  buf generate --template "$template" --output "$made"
done
stubs=generated/python/src
touch "$made/$stubs"/{easyml/v1,buf/validate,inference}/py.typed
mkdir -p "$made/docs/reference"
python scripts/contract_reference.py > "$made/docs/reference/contract.md"
python scripts/settings_reference.py > "$made/docs/reference/settings.md"
if [ "${1:-}" = --check ]; then
  stale=$(diff --recursive --brief --exclude __pycache__ "$made/$stubs" "$stubs"; diff --recursive --brief "$made/docs/reference" docs/reference) || true
  [ -z "$stale" ] || { echo "Generated files are stale; run 'make generate' and commit:"; echo "$stale"; exit 1; }
  exit
fi
rm -rf "$stubs"
cp -R "$made/generated" "$made/docs" .
