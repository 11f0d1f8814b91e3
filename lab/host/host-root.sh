#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Gives a hypervisor of the lab its own root and becomes its PID 1. Run by lab/host/hypervisor.py in new mount,
# pid, network, uts and ipc namespaces: host-root.sh NAME LAB_DIR REPOSITORY [systemd]
#
# The root is an overlay on / that forgets its changes.

set -eu
name=$1 lab=$2 repository=$3

scratch=$lab/hosts/$name/root
# A systemd has its processes in a control group of its own, or two of them would mistake each other's.
if [ "${4-}" = systemd ] && [ "${5-}" != inside ]; then
    group=$scratch/$(basename "$lab")-$name
    mount -t cgroup -o none,name=systemd lab "$scratch"
    mkdir -p "$group"
    echo $$ >"$group/cgroup.procs"
    umount "$scratch"
    exec unshare --cgroup "$0" "$@" inside
fi

hostname "$name"
mount -t tmpfs -o mode=755 lab "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/new"
mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" lab "$scratch/new"
cd "$scratch/new"

mount -t proc proc proc
mount -t sysfs sysfs sys
for directory in run tmp dev; do mount -t tmpfs -o mode=755 lab $directory; done
chmod 1777 tmp

# No /dev/kvm: where it exists but does not work, libvirt probes QEMU anew at every start of a VM.
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 lab dev/shm
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/tty c 5 0
mknod -m 600 dev/net/tun c 10 200
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for fd in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${fd%:*}" "dev/${fd#*:}"; done

mkdir -p ".$repository" ".$lab"
mount --bind "$repository" ".$repository"
mount --bind "$lab" ".$lab"
# A hypervisor learns the monitors from the engine, and has no administrator's key lying about.
mount -t tmpfs -o mode=700 lab ".$lab/ceph"
rm -rf etc/ceph
# libvirt's socket and logs lie in the shared directory, where the engine's side reaches them, too.
mkdir -p run/libvirt var/log/libvirt
mount --bind "$lab/hosts/$name/libvirt" run/libvirt
mount --bind "$lab/log/$name" var/log/libvirt
# The machine's own domains, networks and secrets are not this hypervisor's.
rm -rf etc/libvirt/qemu etc/libvirt/storage etc/libvirt/secrets var/lib/libvirt/qemu

first='tini -- sleep infinity'
if [ "${4-}" = systemd ]; then
    # Without a cgroup2: here it has no controllers, and libvirt trips over that.
    first='env container=lab /lib/systemd/systemd --unit=lab.target
        systemd.unified_cgroup_hierarchy=no systemd.legacy_systemd_cgroup_controller=yes'
    mount -t tmpfs -o mode=755 lab sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd lab sys/fs/cgroup/systemd
    # What the machine has enabled is not for this host.
    rm -rf etc/systemd/system
    cp -R "$lab/hosts/$name/files/." .
fi

# A chroot would not do: libvirt enters the mount namespaces of its QEMUs, and that leads to the root of
# the mounts. Ours must be that root, also if the machine's / is a chroot and the root lies above it;
# lab-root.sh says how to get there.
pivot='bb=./bin/busybox; $bb pivot_root . . && $bb umount -l . && exec "$@"'
# shellcheck disable=SC2086  # a command and its arguments
exec nsenter --mount=/proc/self/ns/mnt --wd=. ./bin/busybox sh -c "$pivot" sh $first
