# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts share. Sourced, never run.

GREYHOUND_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck disable=SC2034 # used by those who source this file
GREYHOUND_TARGET="${CARGO_TARGET_DIR:-$GREYHOUND_ROOT/target}"

say() { printf '%s\n' "$*"; }

complain() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# Several libclangs on one machine: bindgen must load the one whose headers `clang` finds, or it fails inside them.
choose_libclang() {
    [[ -n "${LIBCLANG_PATH:-}" ]] && return 0
    local folders=() folder major
    for folder in /usr/lib/llvm-*/lib; do
        compgen -G "$folder/libclang*.so*" >/dev/null && folders+=("$folder")
    done
    [[ ${#folders[@]} -gt 1 ]] || return 0
    have clang || return 0
    major="$(clang -dumpversion | cut -d. -f1)"
    folder="/usr/lib/llvm-$major/lib"
    if compgen -G "$folder/libclang*.so*" >/dev/null; then
        export LIBCLANG_PATH="$folder"
        say "several libclangs (${folders[*]}): LIBCLANG_PATH=$LIBCLANG_PATH, as clang is version $major"
    fi
}
