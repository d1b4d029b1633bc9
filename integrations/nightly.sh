#!/bin/sh
# One night: scans $RLSAUDIT_SOURCE into a directory of its own below $EVIDENCE_DIR, chained to the run before, and puts
# the figures into $TEXTFILE_DIR, where one is given. The exit code is that of the scan.
set -eu
: "${RLSAUDIT_SOURCE?name what to scan, such as service=production}"
: "${EVIDENCE_DIR?name where the evidence goes}"
mkdir -p "$EVIDENCE_DIR"
now="$EVIDENCE_DIR/$(date -u +%Y-%m-%dT%H%M%SZ)"
last=""
for manifest in "$EVIDENCE_DIR"/*/manifest.json; do # by name, which is by time
    if [ -f "$manifest" ]; then last="${manifest%/manifest.json}"; fi
done
code=0
rlsaudit scan --quiet --format json,html,junit,markdown,prometheus --output-dir "$now" --history "$EVIDENCE_DIR" \
    ${last:+--previous "$last"} -- "$RLSAUDIT_SOURCE" || code=$?
if [ -n "${TEXTFILE_DIR:-}" ] && [ -f "$now/rlsaudit.prom" ]; then
    cp "$now/rlsaudit.prom" "$TEXTFILE_DIR/rlsaudit.prom.new"
    chmod 0644 "$TEXTFILE_DIR/rlsaudit.prom.new"
    mv "$TEXTFILE_DIR/rlsaudit.prom.new" "$TEXTFILE_DIR/rlsaudit.prom" # whole or not at all
fi
exit "$code"
