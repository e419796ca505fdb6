#!/usr/bin/env bash
# Measures again all that the documentation says of the accuracy of the bundled weights: to be run
# when they change. About 23 minutes on two cores, one thread each.
#
#   bash benchmarks/bundled.sh OUT DATA OLD
#
# OUT      folder for the results; those of the documentation lie in benchmarks/results
# DATA     folder with the real sequences, as for benchmarks/real_footage.py
# OLD      model folder of the weights before, beside which benchmarks/depth_detail.py shows the new
#
# Needs `everview` and `python` of an environment with the extra `eval`. `python -P benchmarks/tables`
# then writes the tables of the documentation from benchmarks/results.
#
# The teacher is v1 with the global attention that it was trained with, taken from the history.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?OUT, DATA and OLD are needed} data=${2:?DATA is needed} old=${3:?OLD is needed}
mkdir -p "$out"
export OMP_NUM_THREADS=1 PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"

teacher=$(mktemp -d)
trap 'rm -rf "$teacher"; kill $(jobs -p) 2>/dev/null || true' EXIT
v1=831de2b:src/everview/assets/mini
git show "$v1/weights.safetensors" > "$teacher/weights.safetensors"
git show "$v1/config.json" | sed 's/"causal"/"global"/' > "$teacher/config.json"

procedural() { everview eval procedural --model mini --threads 1 "$@"; }
bench() { python -P "benchmarks/$1.py" -o "$out/$2.json" "${@:3}"; }
seeds() { procedural --clips 200 --first-seed "$1" -o "$out/procedural_mini_seeds_$1.json"; }

clips_and_bits() {
    procedural --clips 200 --teacher "$teacher" -o "$out/procedural_mini.json"
    everview eval longworld --model mini --limit 2 --frames 1000 --memory auto --threads 1 \
        -o "$out/longworld_mini.json"
    seeds 5000000
    seeds 7000000
    bench quantization_accuracy quantization_bundled --part methods --only w8a8:everview \
        w4a8:everview w4a4:everview w8a8:nearest w4a8:nearest w4a4:nearest w4a4:quarot
    bench key_range key_range
}

seeds_and_footage() {
    seeds 500000
    seeds 3000000
    bench real_footage real_footage --data "$data"
    procedural --clips 24 --frames 8,16,32,64 --teacher "$teacher" \
        -o "$out/procedural_mini_lengths.json"
    bench depth_detail depth_detail "$old" mini
}

clips_and_bits &
seeds_and_footage
wait $!
