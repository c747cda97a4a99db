#!/usr/bin/env bash
# Most figures of docs/benchmarks.md that need a GPU, those not seen yet first: an hour on two GPUs, two on one.
#
#   bash benchmarks/bench_gpu.sh FOLDER
#
# PYTHON is the interpreter (default: python3). FOLDER takes a log and a result of each step, and steps.txt with the exit
# code and the seconds of each. What was done before is not done again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
out=$(mkdir -p "$1" && cd "$1" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

step() { # name, most seconds, command
  local name=$1 most=$2 begun=$SECONDS code
  shift 2
  grep -qs " $name exit 0 " "$out/steps.txt" && return
  timeout -k 5 "$most" "$python" "$@" >"$out/$name.log" 2>&1 && code=0 || code=$?
  echo "$(date +%T) $name exit $code $((SECONDS - begun)) s" >>"$out/steps.txt"
}

model() { # size, style: dynamic or exported
  local name=rtmo-$1${2:+-$2}
  echo "$out/$name"
  test -e "$out/$name.onnx" || "$python" scripts/build_rtmo.py "$1" ${2:+--$2} --output "$out/$name.onnx" >/dev/null
}

tune() { # name, most seconds, model, options
  local name=$1 most=$2 from=$3
  shift 3
  mkdir -p "$out/$name"
  step "$name" "$most" -m rtmo_optuna tune "$from.onnx" --input "$from.npz" --config "$out/$name/config.yaml" \
    --output "$out/$name" --storage "sqlite:///$out/$name.db" "$@"
}

grid() { # name, most seconds, model
  step "$1" $(($2 + 30)) benchmarks/replay.py record --model "$3.onnx" --input "$3.npz" --study benchmarks/data/grid-study.yaml --pin \
    --best 10 --held-out 6 --output "$out/$1.json" --time-limit "$2"
}

lab() { # what was changed after the last run on a GPU
  for n in 1 2 3; do tune "quick-$n" 200 "$exported" --shape 1x3x640x640 --quick; done
  tune camera 920 "$exported" --shape 1x3x640x640 --study realtime
  step gpu-cut 300 -m pytest -q -m gpu tests/test_cut_styles.py tests/test_dropin.py tests/test_gpu.py
  step doctor 90 -m rtmo_optuna doctor "$exported.onnx"
  step doctor-gpu 120 -m pytest -q -m gpu tests/test_doctor.py
  watched=(-m rtmo_optuna monitor "$exported.onnx" --input "$exported.npz" --config "$out/quick-1/config.yaml")
  step monitor 180 "${watched[@]}"
  "$python" benchmarks/bench_runtime.py soak "$exported.onnx" --input "$exported.npz" >"$out/neighbour.log" 2>&1 &
  step monitor-busy 240 "${watched[@]}" # beside another process on the GPU: 3, with its name
  kill $!
  for size in m l; do
    step "speed-exported-$size" 60 benchmarks/bench_runtime.py speed "$out/rtmo-$size-exported.onnx" \
      --input "$out/rtmo-$size-exported.npz" --output "$out/speed-exported-$size.json"
  done
}

first() {
  lab
  tune tune-full 640 "$s" --study cuda-full --trials 60 --timeout 10m
  step gpu 300 -m pytest -q -m gpu tests/test_gpu.py tests/test_machine.py
  step canary 170 benchmarks/aa.py record --model "$s.onnx" --input "$s.npz" --count 12 --quick --kinds plain canary \
    --output "$out/canary.json"
  step pool 150 benchmarks/bench_pool.py --model "$s.onnx" --input "$s.npz"
  tune tune-s 620 "$s" --trials 40
  step speed-s 80 benchmarks/bench_runtime.py speed "$s.onnx" --input "$s.npz" --output "$out/speed-s.json" \
    --config "$out/tune-s/config.yaml"
  step speed-busy 90 benchmarks/bench_runtime.py speed "$s.onnx" --input "$s.npz" --busy 0.5 --output "$out/speed-busy.json"
  grid grid-s 900 "$s"
}

second() {
  step together 480 benchmarks/bench_together.py "$exported.onnx" --input "$exported.npz" --seconds 60 \
    --settings "split+host, NHWC" --output "$out/together.json"
  step pace 420 benchmarks/bench_pace.py "$exported.onnx" --input "$exported.npz" --seconds 4 --output "$out/pace.json"
  step soak 750 benchmarks/bench_runtime.py soak "$s.onnx" --input "$s.npz"
  tune tune-l 620 "$l" --study cuda-full --trials 60 --timeout 10m
  grid grid-l 900 "$l"
  step live 580 benchmarks/aa.py live --model "$s.onnx" --input "$s.npz" --provider cuda --quick --studies 3 \
    --output "$out/live.json"
  tune throughput 620 "$dynamic" --study throughput --timeout 10m
  step batch-8 120 benchmarks/bench_runtime.py speed "$dynamic.onnx" --input "$dynamic.npz" --batch 8 --output "$out/batch-8.json"
  step speed-m 60 benchmarks/bench_runtime.py speed "$m.onnx" --input "$m.npz" --output "$out/speed-m.json"
  step equal 60 benchmarks/bench_runtime.py equal "$s.onnx" --input "$s.npz"
  step gate 150 -m pytest -q -m gpu tests/test_gpu_gate.py
}

s=$(model s) m=$(model m) l=$(model l) dynamic=$(model s dynamic) exported=$(model s exported)
model m exported >/dev/null
model l exported >/dev/null
if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
  (export CUDA_VISIBLE_DEVICES=0; first) &
  (export CUDA_VISIBLE_DEVICES=1; second) &
  wait
else
  first
  second
fi
cat "$out/steps.txt"
