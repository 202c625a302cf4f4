#!/bin/busybox sh
# The first process of the virtual machine, out of its initramfs: gives it the root folder of the
# machine that it runs on, which nothing in here changes, and hands over to the script beside.
b=/bin/busybox
$b mkdir -p /dev /lower /upper /new
$b mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for module in /modules/*; do $b insmod "$module" || echo "vm: no module $module"; done
options=trans=virtio,version=9p2000.L,ro,cache=loose,access=any,msize=512000
$b mount -t 9p -o "$options" machine /lower || echo "vm: no 9p"
# What is written goes to memory.
$b mount -t tmpfs -o size=75% upper /upper
$b mkdir /upper/data /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new ||
    echo "vm: no overlay"
$b mount -t devtmpfs dev /new/dev
$b mount -t proc proc /new/proc
$b mount -t sysfs sys /new/sys
$b mount -t tmpfs run /new/run
$b cp /run.sh /new/run/quadriga-vm.sh
# A private root needs one that can be exchanged, which that of an initramfs can't.
exec $b switch_root /new /bin/sh /run/quadriga-vm.sh
