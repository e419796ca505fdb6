#!/usr/bin/env bash
# Trains mini-teacher, then mini, on one large GPU with 16 cores; v1 of the bundled model came from
# the first of them.
#
#   bash recipes/mini_on_gpu.sh DIR          writes DIR/mini-teacher and DIR/mini
#
# TEACHER_MINUTES, STUDENT_MINUTES set the lengths; START (a model folder) goes on from weights of an
# earlier run, whose moments are lost. TEACHER_SET and STUDENT_SET hold more `--set` options. Models
# are saved in files of at most 15 MB. Needs torch with CUDA, tyro, rich, scipy, safetensors,
# jaxtyping; no installation.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
everview() { python3 -c 'from everview.cli.main import script; script()' "$@"; }

# shellcheck disable=SC2086  -- options of several words
everview train mini-teacher -o "$out/mini-teacher" --minutes "${TEACHER_MINUTES:-3.9}" \
    --set run.shard_megabytes=15 ${START:+--set "network.start=$START"} ${TEACHER_SET:-}
everview distill mini -o "$out/mini" --teacher "$out/mini-teacher/model" \
    --minutes "${STUDENT_MINUTES:-2.9}" --set run.shard_megabytes=15 ${STUDENT_SET:-}
