#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fuzzing: the targets of fuzz/, their corpora, and the replay of these. See docs/fuzzing.md.
#
#   scripts/fuzz.sh replay [TARGET]                  every input in the tree through its target, without libFuzzer (CI)
#   scripts/fuzz.sh run TARGET|all [--seconds N]     fuzz for N seconds each (default 60), one target after the other
#   scripts/fuzz.sh minimise TARGET|all              keep in fuzz/corpus what covers most with least
#   scripts/fuzz.sh seeds                            write the seeds anew and keep what the corpora do not cover yet
#   scripts/fuzz.sh check                            format, clippy, and all targets build
#   scripts/fuzz.sh list                             the targets and the size of their corpora
#
# The stable toolchain is enough, and cargo-fuzz is not needed. A finding ends a run with status 1; its input lies in
# fuzz/artifacts/TARGET and what it takes to see it again is printed. What a run finds new stays in fuzz/target/found.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fuzz="$GREYHOUND_ROOT/fuzz"
# Replay and seeds are built as the workspace is, and share what it has built.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$fuzz/target}"
found="$fuzz/target/found"
logs="$fuzz/target/logs"

# Inputs that need large tables would otherwise spend their time on getting the same pages again and again.
export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824

# What cargo-fuzz passes, less what needs a nightly toolchain (the address sanitizer).
coverage_flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1
)

usage() { sed -n '4,14p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }

targets() { sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' "$fuzz/Cargo.toml"; }

# The targets that an argument means, one a line.
named() {
    if [[ "$1" == all ]]; then
        targets
    elif targets | grep -qxF -- "$1"; then
        printf '%s\n' "$1"
    else
        complain "no target $1: wants all or one of $(targets | tr '\n' ' ')"
        exit 2
    fi
}

host() { rustc -vV | sed -n 's/^host: //p'; }

# Only what runs on the host's behalf in the target is instrumented: with --target, build scripts are not.
build() {
    choose_libclang
    local flags="${coverage_flags[*]}"
    (cd "$fuzz" && RUSTFLAGS="$flags" cargo build --release --features libfuzzer --target "$(host)" --bins)
}

program() { printf '%s/%s/release/%s' "$CARGO_TARGET_DIR" "$(host)" "$1"; }

replay() {
    choose_libclang
    [[ -z "${1:-}" ]] || export GREYHOUND_FUZZ_TARGET="$1"
    (cd "$fuzz" && cargo test --target-dir "$GREYHOUND_TARGET" --lib --test replay -- --nocapture) |
        grep --line-buffered -v '^/'
}

# Fuzzes one target; its status is that of libFuzzer. New inputs go to the first folder.
run_one() {
    local target="$1" seconds="$2" log="$logs/$1.log" status=0 folders=()
    mkdir -p "$found/$target" "$fuzz/artifacts/$target" "$logs"
    folders=("$found/$target" "$fuzz/corpus/$target")
    [[ ! -d "$fuzz/regressions/$target" ]] || folders+=("$fuzz/regressions/$target")
    say "=== $target: $seconds s, log $log"
    "$(program "$target")" "${folders[@]}" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 \
        -rss_limit_mb=2048 -max_len=4096 -artifact_prefix="$fuzz/artifacts/$target/" 2>&1 |
        tee "$log" | { grep --line-buffered -E 'INITED|pulse|DONE|panicked|ERROR|SUMMARY|Test unit' || true; } || status=$?
    summary "$target" "$log" "$status"
    return "$status"
}

summary() {
    local target="$1" log="$2" status="$3" runs covered word=ok
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    covered="$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -n1)" || true
    [[ "$status" == 0 ]] || word="FINDING, inputs in $fuzz/artifacts/$target"
    say "=== $target: ${runs:-no} executions, ${covered:-nothing covered}: $word"
    [[ "$status" == 0 ]] || say "    again: $(program "$target") fuzz/artifacts/$target/FILE"
}

run() {
    local which="${1:-}" seconds=60 target failed=0
    [[ -n "$which" ]] || { usage >&2 && exit 2; }
    shift
    while [[ $# -gt 0 ]]; do
        case "$1" in
            --seconds)
                seconds="${2:-}"
                [[ "$seconds" =~ ^[1-9][0-9]*$ ]] || { complain "--seconds wants a number" && exit 2; }
                shift 2
                ;;
            *) complain "unknown argument $1" && exit 2 ;;
        esac
    done
    which="$(named "$which")"
    build
    for target in $which; do
        run_one "$target" "$seconds" || failed=1
    done
    return "$failed"
}

# Keeps the seeds, and of everything else known of a target the few inputs that cover what the seeds do not.
minimise() {
    local which target merged log
    [[ -n "${1:-}" ]] || { usage >&2 && exit 2; }
    which="$(named "$1")"
    build
    for target in $which; do
        log="$logs/merge-$target.log"
        merged="$fuzz/target/merged/$target"
        rm -rf "$merged"
        mkdir -p "$merged" "$logs" "$found/$target" "$fuzz/corpus/$target"
        find "$found/$target" "$fuzz/corpus/$target" -name 'seed-*' -exec cp -n {} "$merged/" \;
        "$(program "$target")" -set_cover_merge=1 -use_counters=0 -max_len=1024 \
            "$merged" "$fuzz/corpus/$target" "$found/$target" >"$log" 2>&1 || {
            complain "$target: a merge failed: $log"
            return 1
        }
        rm -rf "${fuzz:?}/corpus/$target"
        mv "$merged" "$fuzz/corpus/$target"
    done
    list
}

seeds() {
    choose_libclang
    (cd "$fuzz" && cargo run --target-dir "$GREYHOUND_TARGET" --quiet --example seeds -- "$found")
    minimise all
}

check() {
    (cd "$fuzz" && cargo fmt --check)
    choose_libclang
    (cd "$fuzz" && cargo clippy --all-targets --features libfuzzer -- -D warnings)
    build
}

list() {
    local target files bytes
    for target in $(targets); do
        files="$(find "$fuzz/corpus/$target" -type f 2>/dev/null | wc -l)"
        bytes="$(find "$fuzz/corpus/$target" -type f -printf '%s\n' 2>/dev/null | awk '{ n += $1 } END { print n + 0 }')"
        printf '%-18s %5d inputs %7d bytes\n' "$target" "$files" "$bytes"
    done
}

case "${1:-}" in
    replay)
        [[ -z "${2:-}" ]] || named "$2" >/dev/null
        replay "${2:-}"
        ;;
    run) run "${@:2}" ;;
    minimise) minimise "${2:-}" ;;
    seeds) seeds ;;
    check) check ;;
    list) list ;;
    --help | -h | help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
