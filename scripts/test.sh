#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every check and test there is, from a fresh clone.
#
#   scripts/test.sh           checks, unit tests, loom, corpora, release build, scenarios in namespaces
#   scripts/test.sh --slow    also what takes minutes: emulated Linux peers, tests marked slow
#   scripts/test.sh --quick   checks and unit tests only: what to run before a commit
#
# All stages run even when one fails; the last line is "N passed, N failed, N skipped". With CI or
# GREYHOUND_REQUIRE_ALL=1 set, DPDK and ipsec-mb must be there and only the skips in scripts/allowed-skips.txt may happen.
# Logs stay in target/test-logs.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Runs one stage: number, name and log, then the command. Its output is shown as it comes.
stage() {
    local name="$1" log began word=ok
    shift
    number=$((number + 1))
    log="$logs/$(printf '%02d' "$number")-$name"
    began=$SECONDS
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log.log" || word=FAILED
    [[ $word == ok ]] || printf '=== %s: FAILED\n' "$name"
    echo "$word $((SECONDS - began))" >"$log.status"
}

# A stage that cannot run here: printed and counted.
skip() {
    number=$((number + 1))
    local log
    log="$logs/$(printf '%02d' "$number")-$1"
    printf '\n=== %s\n' "$1"
    echo "skipped stage: $2" | tee "$log.log"
    echo "skipped 0" >"$log.status"
}

shell_scripts() {
    local file
    git -C "$GREYHOUND_ROOT" ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            [[ -f "$file" ]] || continue
            case "$file" in
                *.sh) printf '%s\0' "$file" ;;
                scripts/* | .ci/* | tests/*) head -n1 "$file" | grep -qE '^#!.*\b(ba)?sh\b' && printf '%s\0' "$file" ;;
            esac
        done || true
}

run_shellcheck() { shell_scripts | xargs -0 -r shellcheck -x; }

run_loom() {
    RUSTFLAGS="--cfg loom" \
        cargo test --release --locked -p greyhound-ring --test loom --target-dir "$GREYHOUND_TARGET/loom"
}

run_miri() {
    MIRIFLAGS="-Zmiri-disable-isolation" \
        cargo +nightly miri test --locked -p greyhound-ring --lib --test hostile --target-dir "$GREYHOUND_TARGET/miri"
}

run_scenarios() {
    GREYHOUND_BIN="$GREYHOUND_TARGET/release" PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest tests --basetemp="$GREYHOUND_TARGET/pytest" "$@"
}

quick=false
slow=false
for argument in "$@"; do
    case "$argument" in
        --quick) quick=true ;;
        --slow) slow=true ;;
        --help | -h)
            sed -n '4,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
            exit 0
            ;;
        *)
            complain "unknown argument $argument (--quick, --slow)"
            exit 2
            ;;
    esac
done

cd "$GREYHOUND_ROOT"
if [[ -n "${CI:-}" ]]; then
    export GREYHOUND_REQUIRE_ALL=1
fi
features=()
if [[ "${GREYHOUND_REQUIRE_ALL:-}" == 1 ]]; then
    features=(--features "greyhound-dataplane/require-dpdk greyhound-dataplane/require-ipsec-mb")
fi
slow_flag=()
include_ignored=()
if $slow; then
    slow_flag=(--slow)
    include_ignored=(-- --include-ignored)
fi

logs="$GREYHOUND_TARGET/test-logs"
rm -rf "$logs"
mkdir -p "$logs"
number=0

if $quick; then
    stage setup scripts/setup.sh --check
else
    stage setup scripts/setup.sh "${slow_flag[@]}"
fi
choose_libclang

stage fmt cargo fmt --all --check
stage edges scripts/check-edges
stage sources scripts/check-sources
stage licences scripts/check-licences
if have shellcheck; then
    stage shellcheck run_shellcheck
else
    skip shellcheck "shellcheck: not installed"
fi
stage clippy cargo clippy --locked --workspace --all-targets "${features[@]}" -- -D warnings
stage unit cargo test --locked --workspace --no-fail-fast "${features[@]}" "${include_ignored[@]}"

if ! $quick; then
    stage loom run_loom
    if cargo +nightly miri --version >/dev/null 2>&1; then
        stage miri run_miri
    else
        skip miri "miri: needs the nightly toolchain with its miri component"
    fi
    if [[ -x scripts/fuzz.sh ]]; then
        stage corpora scripts/fuzz.sh replay
    else
        skip corpora "fuzz: scripts/fuzz.sh is not there"
    fi
    stage release cargo build --locked --release -p greyhound-dataplane -p greyhound-control -p greyhound-pktgen \
        "${features[@]}"
    # The other half of this question, the AEAD example `timing`, needs a quiet machine: it is run by hand.
    if [[ "$(uname -m)" == x86_64 ]] && have objdump; then
        stage branches scripts/check-branches
    else
        skip branches "branches: needs x86-64 and objdump"
    fi
    stage scenarios run_scenarios "${slow_flag[@]}"
fi

scripts/tally "$logs"
