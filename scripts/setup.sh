#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what Greyhound needs on Debian 12 or 13 and says what it does; nothing is done twice.
#
#   scripts/setup.sh           install what is missing (apt, as root or with sudo), then fetch the Rust dependencies
#   scripts/setup.sh --check   only report; exit 1 when something required is missing
#   scripts/setup.sh --slow    also what the emulated Linux guest needs (test.sh --slow)
#
# A compiler, Rust, Python and git are required. All else is optional: what is then left out is said beside it.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# One piece a line: required|optional|slow, package, what it is for (optional: what is left out without it).
pieces() {
    cat <<'END'
required|gcc|the C parts (shims) and linking
required|libc6-dev|the C parts (shims) and linking
required|pkg-config|finding DPDK
required|git|the sources
required|python3|checks in scripts/
required|ca-certificates|fetching dependencies
optional|libdpdk-dev|DPDK: without it only memory ports are built
optional|dpdk|DPDK's drivers and tools
optional|libipsec-mb-dev|a second fast AEAD engine
optional|libclang-dev|bindings to DPDK and ipsec-mb
optional|clang|the headers that libclang reads
optional|iproute2|namespaces and veth, for scenarios and demo
optional|ethtool|offloads off on veth, for scenarios and demo
optional|iputils-ping|ping, for scenarios and demo
optional|procps|sysctl, for scenarios and demo
optional|tcpdump|captures, for scenarios and demo
optional|tshark|decryption of captures, for scenarios and demo
optional|iperf3|TCP transfers, for scenarios and demo
optional|chromium|the packet generator's report, opened in a test
optional|curl|trying the API by hand
optional|python3-pytest|the scenarios' runner
optional|python3-scapy|the scenarios' packets
optional|python3-cryptography|the scenarios' ESP judge
optional|shellcheck|the check of the scripts
END
    if $slow; then
        cat <<'END'
slow|qemu-system-x86|the emulated Linux peer
slow|kmod|the emulated Linux peer
END
    fi
}

installed() { [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

# Fills `missing` with the lines of what is not installed.
find_missing() {
    missing=()
    local kind package reason
    while IFS='|' read -r kind package reason; do
        installed "$package" || missing+=("$kind|$package|$reason")
    done < <(pieces)
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

install_missing() {
    local packages=() line package
    for line in "${missing[@]}"; do
        IFS='|' read -r _ package _ <<<"$line"
        packages+=("$package")
    done
    say "installing with apt: ${packages[*]}"
    as_root apt-get update -q
    if ! as_root apt-get install -y -q --no-install-recommends "${packages[@]}"; then
        say "together they cannot be installed; trying one by one"
        for package in "${packages[@]}"; do
            as_root apt-get install -y -q --no-install-recommends "$package" || complain "$package: not installed"
        done
    fi
}

# Says what is still missing; returns 1 if something required is among it.
report_missing() {
    local line kind package reason status=0
    for line in "${missing[@]}"; do
        IFS='|' read -r kind package reason <<<"$line"
        say "missing ($kind): $package: $reason"
        [[ "$kind" != required ]] || status=1
    done
    return "$status"
}

check_rust() {
    local wanted found
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$GREYHOUND_ROOT/Cargo.toml")"
    if ! have cargo; then
        say "missing (required): Rust $wanted or later: https://rustup.rs, then: rustup toolchain install stable"
        return 1
    fi
    found="$(rustc --version | cut -d' ' -f2)"
    if [[ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]]; then
        say "missing (required): Rust $wanted or later (this is $found): rustup update stable"
        return 1
    fi
    check_component fmt rustfmt
    check_component clippy clippy
}

check_component() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    if ! $check_only && have rustup; then
        say "adding the Rust component $2"
        rustup component add "$2" && return 0
    fi
    say "missing (optional): $2: scripts/test.sh fails at that check"
}

fetch_crates() {
    local manifest
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        [[ -f "$GREYHOUND_ROOT/$manifest" ]] || continue
        cargo fetch --quiet --locked --target x86_64-unknown-linux-gnu --manifest-path "$GREYHOUND_ROOT/$manifest"
    done
}

check_only=false
slow=false
for argument in "$@"; do
    case "$argument" in
        --check) check_only=true ;;
        --slow) slow=true ;;
        --help | -h)
            sed -n '4,10p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
            exit 0
            ;;
        *)
            complain "unknown argument $argument (--check, --slow)"
            exit 2
            ;;
    esac
done

missing=()
if have dpkg-query; then
    find_missing
    if [[ ${#missing[@]} -gt 0 ]] && ! $check_only; then
        if [[ $EUID -eq 0 ]] || have sudo; then
            install_missing
            find_missing
        else
            complain "neither root nor sudo: nothing can be installed"
        fi
    fi
else
    complain "this is not Debian: install the pieces of this script's list by hand"
fi

status=0
report_missing || status=1
check_rust || status=1
if [[ $status -ne 0 ]]; then
    complain "something required is missing"
    exit 1
fi
choose_libclang
$check_only || fetch_crates
say "set up: $(rustc --version | cut -d' ' -f1,2), DPDK $(pkg-config --modversion libdpdk 2>/dev/null || echo absent)," \
    "ipsec-mb $(dpkg-query -W -f '${Version}' libipsec-mb-dev 2>/dev/null || echo absent)"
