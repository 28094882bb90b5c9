#!/bin/bash
# The emulated machine's first process, and its only script: devices, an NFS server and two clients of it, then tests.
#
# The server exports an ext4 filesystem (/srv/store) and a small one (/srv/small). Each of the two clients has a network
# of its own, an address and a name, so that to the server they are two machines: nothing that one has in memory is
# known to the other. They mount at /mnt/a and /mnt/b; /mnt/full is the small one, of client a.
set -u
ulimit -n 20000 # as a machine's service manager allows; the kernel's own limit is 1024
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

# The machine ends with its first process: "N" to isa-debug-exit is qemu's exit code 2N+1.
finish() {
  sync
  python3 -c 'import os, sys; os.pwrite(os.open("/dev/port", os.O_WRONLY), bytes([int(sys.argv[1])]), 0x501)' "$1"
}
trap 'finish $?' EXIT

devices() {
  mount -t proc proc /proc
  mountpoint -q /sys || mount -t sysfs sysfs /sys
  mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs /run
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  ln -sfn /proc/self/fd /dev/fd
  modprobe -a fuse loop veth nfsd nfs
  chmod 0666 /dev/fuse
  hostname server
  ip link set lo up
}

server() {
  local name size
  for name in store:4G small:40M; do
    size=${name#*:} name=${name%:*}
    mkdir -p "/srv/$name"
    truncate -s "$size" "/srv/$name.ext4"
    mke2fs -q -t ext4 -m 0 "/srv/$name.ext4"
    mount -o loop "/srv/$name.ext4" "/srv/$name"
    mkdir "/srv/$name/shared"
    echo "/srv/$name/shared *(rw,sync,no_root_squash,no_subtree_check)" >>/etc/exports
  done
  mount -t nfsd nfsd /proc/fs/nfsd
  mount -t rpc_pipefs sunrpc /var/lib/nfs/rpc_pipefs 2>/dev/null || true
  # What a client has open outlives a restart of the server only if it claims it within this time.
  echo 10 >/proc/fs/nfsd/nfsv4leasetime
  echo 10 >/proc/fs/nfsd/nfsv4gracetime
  nfsdcld
  exportfs -ra
  rpc.nfsd --no-nfs-version 3 --host 0.0.0.0 8
  rpc.mountd --no-nfs-version 3
}

# client NAME NUMBER: a network, joined to the server's
client() {
  local inside="nsenter --net=/run/netns/$1"
  ip netns add "$1"
  ip link add "to-$1" type veth peer name eth0 netns "$1"
  ip address add "10.0.$2.1/24" dev "to-$1"
  ip link set "to-$1" up
  $inside ip link set lo up
  $inside ip address add "10.0.$2.2/24" dev eth0
  $inside ip link set eth0 up
  ip netns exec "$1" sh -c "echo $1 >/sys/fs/nfs/net/nfs_client/identifier"
}

# mounted CLIENT NUMBER EXPORT POINT
mounted() {
  mkdir -p "$4"
  nsenter --net="/run/netns/$1" mount -t nfs4 -o vers=4.2,hard,nosharecache,noatime,actimeo=1 "10.0.$2.1:$3" "$4"
}

devices
server || exit 1
client a 1 && client b 2 || exit 1
mounted a 1 /srv/store/shared /mnt/a && mounted b 2 /srv/store/shared /mnt/b &&
  mounted a 1 /srv/small/shared /mnt/full || exit 1

cd /opt/grantfs || exit 1
mapfile -t arguments <arguments
echo "Linux $(uname -r) is up after $(cut -d ' ' -f 1 /proc/uptime) s"
if [ -n "${arguments[*]}" ]; then
  setsid /opt/venv/bin/python -m pytest -p no:cacheprovider "${arguments[@]}"
  exit
fi
code=0
setsid /opt/venv/bin/python -m pytest -p no:cacheprovider -v -m nfs tests/nfs || code=$?
setsid /opt/venv/bin/python -m pytest -p no:cacheprovider -v \
  tests/fsdriver/protocol tests/fsdriver/device tests/attacks tests/mounted || code=$?
exit "$code"
