#!/usr/bin/env bash
# The recipe of the guests' image: a small system with systemd, ssh and nginx, made for quick boots in a container.
# Run as root by scripts/image.sh, which makes the image anew when this file changes.
#
#   scripts/image-rootfs.sh ROOTFS CODENAME MIRROR SOURCES    SOURCES: a sources.list for inside the guest
#
# Speaks one line per package step on stdout, from which the caller draws its progress bar.
set -euo pipefail
rootfs=$1 codename=$2 mirror=$3 sources=$4

packages=systemd,systemd-sysv,udev,dbus,login,passwd,openssh-server,nginx,iproute2,iputils-ping,procps,ca-certificates,netbase
debootstrap --variant=minbase --include="$packages" "$codename" "$rootfs" "$mirror"

inside() { chroot "$rootfs" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

# The release as it was printed, plus what was mended since: from the same places as this machine's own updates.
cp "$sources" "$rootfs/etc/apt/sources.list"
rm -f "$rootfs"/etc/apt/sources.list.d/*
cp -L /etc/resolv.conf /etc/hosts "$rootfs/etc/"
cp /etc/apt/apt.conf.d/*proxy* "$rootfs/etc/apt/apt.conf.d/" 2>/dev/null || true
printf '#!/bin/sh\nexit 101\n' >"$rootfs/usr/sbin/policy-rc.d"
chmod 755 "$rootfs/usr/sbin/policy-rc.d"
inside apt-get update -qq && inside apt-get dist-upgrade -q -y ||
    echo 'warning: the image has the release as it was printed; updates could not be fetched' >&2
rm -f "$rootfs/usr/sbin/policy-rc.d" "$rootfs"/etc/apt/apt.conf.d/*proxy*

put() { install -D -m "${2:-0644}" /dev/stdin "$rootfs/$1"; }

# The panel hands out root passwords, so they must work over ssh.
put etc/ssh/sshd_config.d/10-innkeeper.conf <<'END'
PermitRootLogin yes
PasswordAuthentication yes
UseDNS no
END
# Every guest makes host keys of its own, at its first boot.
put etc/systemd/system/ssh-host-keys.service <<'END'
[Unit]
Description=SSH host keys of this very guest
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
END
# For whoever launches this by hand: Innkeeper writes a file that sorts before it.
put etc/systemd/network/zz-dhcp.network <<'END'
[Match]
Name=eth0
[Network]
DHCP=yes
END
echo 'LANG=C.UTF-8' | put etc/default/locale
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' | put etc/hosts

inside systemctl enable -q ssh-host-keys.service systemd-networkd.service
inside systemctl disable -q nginx.service
inside systemctl disable -q apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer 2>/dev/null || true
# What waits for, or wants to mount, things that a container doesn't have.
inside systemctl mask -q systemd-networkd-wait-online.service systemd-udev-settle.service systemd-modules-load.service \
    e2scrub_reap.service dev-hugepages.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount systemd-firstboot.service

# What must be each guest's own, and what only takes room. An empty machine-id is filled in at boot; a missing
# one would count as a first boot, which enables every service there is.
rm -f "$rootfs"/etc/ssh/ssh_host_* "$rootfs"/etc/resolv.conf "$rootfs"/etc/hostname "$rootfs"/var/lib/dbus/machine-id
: >"$rootfs/etc/machine-id"
rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/apt/*.bin "$rootfs"/var/cache/apt/archives/*.deb \
    "$rootfs"/var/cache/debconf/*-old "$rootfs"/var/log/*.log "$rootfs"/var/log/apt "$rootfs"/usr/share/man/?? \
    "$rootfs"/usr/share/man/??_* "$rootfs"/tmp/* "$rootfs"/usr/share/doc/*/changelog*
find "$rootfs/usr/share/locale" -mindepth 1 -maxdepth 1 -type d ! -name 'en*' -exec rm -rf {} +
