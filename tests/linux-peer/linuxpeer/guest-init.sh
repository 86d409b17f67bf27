#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
# First process of the guest. Mounts what is needed, then serves the port "control":
#   request:  ID SECONDS BASE64-OF-A-SHELL-SCRIPT   (killed after so many seconds)
#   answer:   ID EXIT-STATUS BASE64-OF-ITS-OUTPUT
/bin/busybox --install -s /applets
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/applets HOME=/root TERM=dumb LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
while read -r module; do
    insmod "$module" || echo "guest: cannot load $module"
done </etc/modules.early
[ -e /etc/passwd ] || echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
[ -e /etc/group ] || echo 'root:x:0:' >/etc/group
ip link set lo up
# A quiet peer: new devices do no address detection and solicit no routers.
for name in accept_dad accept_ra router_solicitations; do
    sysctl -qw net.ipv6.conf.default.$name=0
done

port=
attempts=50
while [ -z "$port" ] && [ "$attempts" -gt 0 ]; do
    attempts=$((attempts - 1))
    for entry in /sys/class/virtio-ports/*; do
        if [ -e "$entry/name" ] && [ "$(cat "$entry/name")" = control ]; then
            port=/dev/${entry##*/}
        fi
    done
    [ -n "$port" ] || usleep 100000
done
if [ -z "$port" ]; then
    echo "guest: no control port"
    poweroff -f
fi

exec 3<>"$port"
echo "guest: ready after $(cut -d' ' -f1 /proc/uptime) s"
echo ready >&3
while :; do
    if ! read -r id seconds script <&3; then
        usleep 50000
        continue
    fi
    echo "$script" | base64 -d >/run/request.sh
    timeout -s KILL "$seconds" /bin/sh /run/request.sh >/run/request.out 2>&1 </dev/null 3>&-
    status=$?
    { printf '%s %s ' "$id" "$status"; base64 -w 0 /run/request.out; echo; } >&3
done
