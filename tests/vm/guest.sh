#!/bin/sh
# First process of the virtual machine once the host's files are its root: what a booted Debian would have, the modules
# that the tests want to find there, then the agent. Stays as process 1: reaps orphans, and switches off at the end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb TMPDIR=/run/tmp

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/tmp /run/lock /run/netns
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
ln -snf /proc/self/fd /dev/fd
hostname vm
ip link set lo up

# Loaded once and for all: a missing one is named on the console now instead of in the middle of a test.
[ -z "$VM_KERNEL_MODULES" ] || modprobe -a $VM_KERNEL_MODULES || echo "vm: some modules are missing"
# Loading `dummy` makes a device that nobody asked for.
ip link delete dummy0 2>/dev/null
sysctl -qw kernel.bpf_stats_enabled=0 net.core.bpf_jit_enable=1 kernel.panic_on_oops=1

/usr/bin/python3 -I -S "$VM_AGENT"
echo "vm: the agent ended with status $?"
busybox poweroff -f
