#!/bin/bash
# Run the tests of another kernel, and of a store on NFS: deploy/emulated/run.sh PYTHON [PYTEST ARGUMENT ...]
#
# Starts an emulated machine with Debian 12 and its kernel, gives it a copy of this checkout, shows what its console
# says, and ends with the exit code of the tests in it. Without arguments it runs what `init.sh` names. The machine has
# no network but its own, and what it changes on its disk is gone with it. Root only: it makes a disk image.
#
#   EMULATED  folder that keeps the image and the kernel (`emulated`)
#   MINUTES   time limit (90)
#   ACCEL     kvm or tcg; else kvm where a kernel gets to its first message with it
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
checkout=$(readlink -f "$here/../..")
kept=${EMULATED:-$checkout/emulated}
minutes=${MINUTES:-90}
python=$1
shift

# The disk: Debian 12 with its kernel, an NFS server, what tests need, and the Python packages of the checkout.
packages=(linux-image-amd64 nfs-kernel-server nfs-common iproute2 kmod procps e2fsprogs python3-venv
  fuse3 attr bubblewrap git libc6-dev rsync sqlite3 strace vim-tiny xz-utils)
modules=(virtio_pci virtio_blk ext4)

work=$(mktemp -d)
qemu=
finish() {
  if [ -n "$qemu" ]; then kill "$qemu" 2>/dev/null || true; fi
  rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# What setup.cfg requires to run and to test.
requirements() {
  "$python" - "$checkout/setup.cfg" <<'END'
import configparser, sys
setup = configparser.ConfigParser()
setup.read(sys.argv[1])
lines = setup["options"]["install_requires"] + "\n" + setup["options.extras_require"]["dev"]
print("\n".join(line.replace(" ", "") for line in lines.splitlines()))
END
}

build() {
  echo "Making the emulated machine's disk in $kept (some minutes, once)"
  local root=$work/root site=opt/venv/lib/python3.11/site-packages
  mkdir -p "$kept"
  if ! mmdebstrap --quiet --variant=minbase --include="${packages[*]}" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"' \
    --essential-hook="printf '%s\n' ${modules[*]} >\"\$1/etc/initramfs-tools/modules\"" \
    bookworm "$root" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    return 1
  fi
  chroot "$root" python3 -m venv --without-pip /opt/venv
  # By the host's pip, as it is set up here, for the machine's interpreter.
  "$python" -m pip install -qq --disable-pip-version-check --target "$root/$site" --python-version 3.11 \
    --only-binary=:all: --no-compile $(requirements)
  chroot "$root" /opt/venv/bin/python -m compileall -qq "/$site" || true
  mkdir "$root/opt/grantfs"
  ln -s /proc/self/mounts "$root/etc/mtab"
  printf '#!/bin/sh\n%s\n' "tar -xf /dev/vdb -C /opt/grantfs" "exec /opt/grantfs/deploy/emulated/init.sh" \
    >"$root/opt/init"
  chmod 0755 "$root/opt/init"
  cp "$root"/boot/vmlinuz-* "$work/kernel"
  cp "$root"/boot/initrd.img-* "$work/initrd"
  rm -rf "$root"/boot/*
  truncate -s 6G "$work/disk"
  mke2fs -q -t ext4 -m 0 -d "$root" "$work/disk"
  cp --sparse=always "$work/kernel" "$work/initrd" "$work/disk" "$kept/"
  wanted >"$kept/made-of"
}

# What the disk depends on: another one is made when this changes.
wanted() { { cat "$here/run.sh"; requirements; } | sha256sum; }

if ! cmp -s "$kept/made-of" <(wanted); then
  rm -rf --one-file-system "$kept"
  build
  rm -rf --one-file-system "$work/root" "$work/disk"
fi

machine=(qemu-system-x86_64 -cpu max -m 3G -smp 2 -nodefaults -display none -serial stdio -no-reboot
  -kernel "$kept/kernel")

# A machine that is emulated itself may have a /dev/kvm that leads nowhere.
works_with_kvm() {
  [ -w /dev/kvm ] || return 1
  timeout 20 "${machine[@]}" -accel kvm -append "console=ttyS0 panic=-1" 2>&1 </dev/null | grep -q "Linux version"
}

accel=${ACCEL:-}
if [ -z "$accel" ]; then accel=$(works_with_kvm && echo kvm || echo tcg,thread=multi); fi
git -C "$checkout" ls-files -z --cached --others --exclude-standard |
  tar -C "$checkout" --null --files-from=- --ignore-failed-read --warning=no-failed-read -cf "$work/checkout"
printf '%s\n' "$@" >"$work/arguments"
tar -C "$work" -rf "$work/checkout" arguments

echo "Starting the emulated machine (${accel%%,*}), for $minutes minutes at most; Ctrl-C ends it"
# The disk is copied on write into a file of $work that has no name.
TMPDIR=$work timeout --foreground "$((minutes * 60))" "${machine[@]}" -accel "$accel" -initrd "$kept/initrd" \
  -append "console=ttyS0 root=/dev/vda rw quiet panic=-1 init=/opt/init" \
  -drive "file=$kept/disk,format=raw,if=virtio,snapshot=on,cache=unsafe" \
  -drive "file=$work/checkout,format=raw,if=virtio,read-only=on" \
  -device isa-debug-exit </dev/null &
qemu=$!
code=0
wait "$qemu" || code=$?
qemu=
# isa-debug-exit makes N into 2N+1; whatever else comes was not said by the tests.
if [ "$code" = 124 ]; then
  echo "The emulated machine was not ready after $minutes minutes" >&2
elif [ $((code % 2)) = 0 ]; then
  echo "The emulated machine ended without a result" >&2
  code=1
else
  code=$((code / 2))
fi
exit "$code"
