#!/bin/bash
# Give this machine what a make target needs: deploy/machine.sh run|test|slow|nfs|bench [PYTHON]
#
# As root it installs the Debian packages that are missing. As a plain user it installs nothing and names the one
# command that root must run. `deploy/machine.sh python [PYTHON]` prints the interpreter for the virtual environment.
set -eu

RUN_PACKAGES=(python3-venv)
# What a plain user's mount needs on top.
USER_PACKAGES=(fuse3)
# Listed programs that tests work with, and what tests build their situations from.
TEST_PACKAGES=(python3-venv fuse3 attr btrfs-progs bubblewrap git libreoffice-calc-nogui libreoffice-writer-nogui
  libc6-dev restic rsync sqlite3 strace vim-tiny xfsprogs xz-utils)
# What tries filesystems, and a database server, for the tests that take minutes.
SLOW_PACKAGES=(dbench fio postgresql-15 stress-ng)
# What makes the emulated machine's disk, and runs it (deploy/emulated).
NFS_PACKAGES=(python3-venv e2fsprogs git mmdebstrap qemu-system-x86)
BENCH_PACKAGES=(python3-venv fuse3 gocryptfs securefs encfs cryfs fio e2fsprogs)

# The system's own interpreter first: every user can run it, which tests that change the user need.
interpreter() {
  local candidate
  for candidate in ${1:+"$1"} /usr/bin/python3.11 /usr/bin/python3 python3.11 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "GrantFS needs Python 3.11 or later with its venv module." >&2
  return 1
}

missing() {
  command -v dpkg-query >/dev/null || return 0 # another distribution: its own packages are its admin's business
  local name
  for name; do
    if [ "$name" = python3-venv ] && interpreter "$python" >/dev/null 2>&1; then continue; fi
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then echo "$name"; fi
  done
}

install() {
  [ $# -gt 0 ] || return 0
  echo "Installing $*"
  local log
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get -q update && apt-get -q install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  rm -f "$log"
}

# The command that root must run before this user can mount; empty if nothing is missing.
for_root() {
  local names command=
  names=$(missing "$@" | xargs)
  if [ -n "$names" ]; then command="apt-get install -y --no-install-recommends $names"; fi
  if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then command+="${command:+ && }chmod 0666 /dev/fuse"; fi
  echo "$command"
}

purpose=${1:-}
python=${2:-}
case $purpose in
python) interpreter "$python" ;;
run)
  if [ "$(id -u)" = 0 ]; then
    install $(missing "${RUN_PACKAGES[@]}")
  else
    command=$(for_root "${RUN_PACKAGES[@]}" "${USER_PACKAGES[@]}")
    if [ -n "$command" ]; then
      printf 'This user cannot mount a drive here yet. root must run:\n  %s\n' "$command" >&2
      exit 1
    fi
  fi
  ;;
test | slow)
  packages=("${TEST_PACKAGES[@]}")
  if [ "$purpose" = slow ]; then packages+=("${SLOW_PACKAGES[@]}"); fi
  if [ "$(id -u)" = 0 ]; then
    install $(missing "${packages[@]}")
  else
    command=$(for_root "${packages[@]}")
    if [ -n "$command" ]; then
      printf 'Tests of what is missing here are skipped. root can run:\n  %s\n' "$command" >&2
    fi
  fi
  ;;
bench)
  if [ "$(id -u)" != 0 ]; then
    echo "The comparison mounts loop devices: only root can run it." >&2
    exit 1
  fi
  install $(missing "${BENCH_PACKAGES[@]}")
  ;;
nfs)
  if [ "$(id -u)" != 0 ]; then
    echo "The emulated machine's disk is made with other users' files on it: only root can make it." >&2
    exit 1
  fi
  install $(missing "${NFS_PACKAGES[@]}")
  ;;
*)
  echo "usage: $0 run|test|slow|nfs|bench|python [PYTHON]" >&2
  exit 2
  ;;
esac
