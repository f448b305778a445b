#!/bin/busybox sh
# First process of the virtual machine, from the initramfs: make the host's files the root, writable in memory only.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
. /etc/settings

fail() {
    echo "vm: $*"
    poweroff -f
}

while read -r module; do
    insmod "/modules/$module" || fail "cannot load $module"
done </etc/modules

# cache=loose: nothing else writes what we read, so nothing needs to be asked twice (docs/decisions, virtual machine).
mount -t 9p -o "ro,trans=virtio,version=9p2000.L,msize=1048576,cache=$VM_9P_CACHE" root /lower || fail "cannot mount the host's root"
mount -t tmpfs -o size=80%,mode=755 upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot || fail "cannot make the root writable"

modules=/newroot/usr/lib/modules/$(uname -r)
mkdir -p "$modules"
mount --bind "/lower$VM_MODULES" "$modules" || fail "no modules at $VM_MODULES"

umount /proc /sys
mount --move /dev /newroot/dev
exec switch_root /newroot /bin/sh "$VM_GUEST_SCRIPT"
