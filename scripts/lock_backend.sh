#!/usr/bin/env bash
# Lock a backend again: scripts/lock_backend.sh swiftcore/backends/NAME
# Reads requirements.in (and override.txt, where a tool's pins are wrong) and writes requirements.lock
# with a hash for every package. torch comes in builds of its own for each machine: it is pinned
# without a hash, and what a CUDA build needs is left to its own requirements (backends/building.py).
# A tool that needs a GPU has one build of torch that fits: there everything has its hash.
set -euo pipefail
folder="$1"
lock="$folder/requirements.lock"
torch_needs=(torch triton pytorch-triton cuda-toolkit cuda-bindings cuda-pathfinder)
grep -q "needs_gpu=True" "$folder/__init__.py" && torch_needs=()
leave_out=()
for name in "${torch_needs[@]}"; do leave_out+=(--no-emit-package "$name"); done
overrides=()
[ ! -f "$folder/override.txt" ] || overrides=(--override "$folder/override.txt")
resolve() {
    uv pip compile --quiet --no-config --universal --python-version 3.11 --no-header --no-annotate \
        "${overrides[@]}" "$@" "$folder/requirements.in"
}
pinned="$(resolve --no-emit-index-url --no-emit-find-links)"
nvidia="$(grep -oE '^nvidia-[a-z0-9-]+' <<< "$pinned" || true)"
[ ${#torch_needs[@]} = 0 ] || for name in $nvidia; do leave_out+=(--no-emit-package "$name"); done
resolve --generate-hashes --no-emit-index-url --no-emit-find-links "${leave_out[@]}" > "$lock"
sed -i '/^# /d' "$lock"
[ ${#torch_needs[@]} = 0 ] || grep -oE '^torch==[^ +;]+' <<< "$pinned" >> "$lock" || true
