#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two headends and two sites on this machine, in four network namespaces: traffic flows throughout, every SA is
# replaced ten times, one control process is killed, and the wire between the headends is captured and decrypted.
#
#   scripts/demo.sh                set up (scripts/setup.sh), build, run; about a minute after the build
#   scripts/demo.sh --seconds N    traffic for N seconds (default 15)
#   scripts/demo.sh --keep         leave it standing to play with, until Ctrl-C; says what to type
#   scripts/demo.sh --no-build     skip set-up and build: the programs in GREYHOUND_BIN, or in target/release
#
# Exit status: 0 all holds; 1 something does not; 2 it cannot run here; 3 inconclusive, the machine was too busy.
# Nothing leaves the machine, and nothing is left behind. Needs root, for namespaces.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Under sudo, Rust may be the caller's own, and so is the tree.
as_caller() {
    local home
    if [[ -z "${SUDO_USER:-}" || "$SUDO_USER" == root ]]; then
        "$@"
        return
    fi
    home="$(getent passwd "$SUDO_USER" | cut -d: -f6)"
    sudo -u "$SUDO_USER" -H env PATH="$home/.cargo/bin:$PATH" "$@"
}

build=true
options=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --keep) options+=("$1") ;;
        --seconds)
            if [[ ! "${2:-}" =~ ^[0-9]+$ ]]; then
                complain "--seconds needs a whole number"
                exit 2
            fi
            options+=("$1" "$2")
            shift
            ;;
        --no-build) build=false ;;
        --help | -h)
            sed -n '4,13p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
            exit 0
            ;;
        *)
            complain "unknown argument $1 (--seconds N, --keep, --no-build)"
            exit 2
            ;;
    esac
    shift
done

if [[ $EUID -ne 0 ]]; then
    complain "network namespaces need root: sudo scripts/demo.sh"
    exit 2
fi

cd "$GREYHOUND_ROOT"
if $build; then
    as_caller scripts/setup.sh
    if ! pkg-config --exists libdpdk; then
        complain "the demo needs DPDK (libdpdk-dev), see above"
        exit 2
    fi
    choose_libclang
    say "building; the first time this takes some minutes"
    as_caller cargo build --locked --release -p greyhound-dataplane -p greyhound-control -p greyhound-pktgen
fi
export GREYHOUND_BIN="${GREYHOUND_BIN:-$GREYHOUND_TARGET/release}" PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 scripts/demo "${options[@]}"
