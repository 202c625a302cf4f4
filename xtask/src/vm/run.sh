# The rest of the first process of the virtual machine, in the root folder of the machine that it runs
# on. The variables `folder` and `temp` stand before it, and a `pass` for each run of tests after it.
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
[ -z "$temp" ] || mount -t tmpfs -o mode=1777 tmp "$temp"
ip link set lo up || ifconfig lo up
ulimit -n 65536
export NEXTEST_TEST_THREADS=2
# Emulated, a test has the machine for itself, and extensions more than ten seconds to load.
if grep -q 'QEMU TCG' /proc/cpuinfo; then export NEXTEST_TEST_THREADS=1 QUADRIGA_TEST_LOAD_TIMEOUT=120; fi
cd "$folder" || echo "vm: no folder $folder"

# As systemd has it: version 2 alone, with all controllers, and services in groups of their own.
groups=/sys/fs/cgroup
mount -t cgroup2 cgroup2 "$groups"
for controller in memory cpu pids; do echo "+$controller" >"$groups/cgroup.subtree_control"; done
landlock=$(dmesg 2>/dev/null | grep -c 'landlock: Up and running')
read -r kernel </proc/sys/kernel/osrelease
echo "vm: up: Linux $kernel; cgroup version 2: $(cat "$groups/cgroup.controllers"); Landlock: $landlock"

failed=0
# pass LAYOUT UID COMMAND: runs it as a user, in a group that is
#   root     the root of all groups
#   service  one of a service that runs in it: `Delegate=yes`
#   leaf     one in that of a service: `Delegate=yes` and `DelegateSubgroup=`
pass() {
    group=$groups
    [ "$1" = root ] || group=$groups/$1-$2.service
    mkdir -p "$group"
    [ "$2" = 0 ] || chown -R "$2:$2" "$group"
    if [ "$1" = leaf ]; then
        group=$group/main
        mkdir "$group"
        [ "$2" = 0 ] || chown -R "$2:$2" "$group"
    fi
    echo $$ >"$group/cgroup.procs"
    echo "vm: pass: $1, user $2"
    home=$HOME
    [ "$2" = 0 ] || home=/
    setpriv --reuid "$2" --regid "$2" --clear-groups -- env "HOME=$home" sh -c "$3" || failed=$((failed + 1))
    echo $$ >"$groups/cgroup.procs"
}

# Ends the machine, whose emulator then exits with twice this number, and one.
end() {
    echo "vm: over: $failed of the passes failed"
    [ "$failed" = 0 ] && code='\020' || code='\021'
    printf "$code" | dd of=/dev/port bs=1 seek=244 2>/dev/null
    echo "vm: it could not be ended"
    sleep 1000
}
