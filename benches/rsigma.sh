#!/usr/bin/env bash
# kubewitness beside rsigma 0.26's command line: CPU seconds of both on the same file and rules, in turns.
#
#   benches/rsigma.sh FILE RULES...
#
# FILE holds audit events as JSON lines, each of RULES is a directory of Sigma rules that both can read.
# kubewitness matches, sorts by time, folds the stages of a request and makes whole alerts; rsigma matches.
# rsigma is installed by cargo below target/, and is part of nothing else.
set -euo pipefail

version=0.26.0
rounds=5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$here/target/rsigma
ours=$here/target/release/kubewitness

if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
file=$1
shift
[ -x "$tool/bin/rsigma" ] ||
    cargo install rsigma --version "=$version" --ignore-rust-version --root "$tool" >&2
cargo build --release --manifest-path "$here/Cargo.toml" >&2

# CPU seconds of a command, user's and system's.
cpu() {
    local TIMEFORMAT='%U %S'
    { time "$@" >/dev/null 2>&1 || true; } 2>&1 | awk '{ printf "%.2f\n", $1 + $2 }'
}

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

bytes=$(wc -c <"$file")
printf '%-32s%12s%12s%12s%12s%8s\n' rules 'ours CPU s' MB/s 'rsigma' MB/s ratio
for rules in "$@"; do
    a=() b=()
    for _ in $(seq "$rounds"); do
        a+=("$(cpu "$ours" replay --rules "$rules" --pack paranoid --threads 1 --format jsonl "$file")")
        b+=("$(cpu "$tool/bin/rsigma" engine eval -r "$rules" -e "@$file" --input-format json \
            --output-format ndjson)")
    done
    a=$(printf '%s\n' "${a[@]}" | median)
    b=$(printf '%s\n' "${b[@]}" | median)
    awk -v name="$(find "$rules" -name '*.yml' | wc -l) ($(basename "$rules"))" -v a="$a" -v b="$b" -v mb="$bytes" \
        'BEGIN { mb /= 1e6; printf "%-32s%12.2f%12.0f%12.2f%12.0f%8.1f\n", name, a, mb/a, b, mb/b, b/a }'
done
