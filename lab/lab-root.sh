#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Becomes the lab's PID 1. Run by lab/lifecycle.py in new mount, pid, network and ipc namespaces.
#
# Nothing that is mounted here may reach the machine, so all mounts become private. unshare can do that,
# but not if / is a chroot: then the root of the mounts lies above it, where entering our own namespace
# leads. busybox does the work there, because nothing else in that place can be relied on.

set -eu
private='bb=./bin/busybox; $bb mount --make-rprivate / && exec $bb chroot . "$0" inside'
[ "${1-}" = inside ] || exec nsenter --mount=/proc/self/ns/mnt --wd=/ ./bin/busybox sh -c "$private" "$0"

mount -t proc proc /proc
# tini reaps the orphans. The shell below it waits for a line that `up` writes when all is done: if `up`
# dies before that, the shell reads an end of file, and all that was started so far ends.
exec tini -- sh -c 'read -r _ && exec sleep infinity'
