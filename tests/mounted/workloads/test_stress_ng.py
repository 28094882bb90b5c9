"""stress-ng's stressors of filesystems, which verify what they do.

Left out: `access` wants to execute on a drive, which is noexec; fiemap, verity and chattr are of disks, not of FUSE.
"""

import pytest

from tests.mounted.mounted import run
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

NAMES = "chdir dentry dir dirdeep dirmany filename getdent link mknod rename symlink touch open handle dnotify inotify"
ATTRIBUTES = "chmod chown fstat inode-flags utime xattr"
LOCKS = "flock locka lockf lockofd lease fcntl dup"
CONTENT = "aio aiol copy-file fallocate fpunch fsize hdd io iomix readahead revio seek sendfile splice sync-file tee"
MAPPINGS = "madvise mmap mmapfixed mmapmany msync"
SMALL = {
    "copy-file": ["--copy-file-bytes", "128M"],
    "fallocate": ["--fallocate-bytes", "4M"],
    "hdd": ["--hdd-bytes", "4M", "--hdd-opts", "wr-rnd,rd-rnd,fsync"],
    "iomix": ["--iomix-bytes", "4M"],
    "mmap": ["--mmap-file", "--mmap-bytes", "4M"],
    "readahead": ["--readahead-bytes", "4M"],
    "revio": ["--revio-bytes", "4M"],
    "seek": ["--seek-size", "4M"],
    "sync-file": ["--sync-file-bytes", "4M"],
}


@pytest.mark.parametrize("stressors", [NAMES, ATTRIBUTES, LOCKS, CONTENT, MAPPINGS])
def test_stress_ng(place: Place, stressors: str) -> None:
    for stressor in stressors.split():
        options = ["--verify", f"--{stressor}", "2", "--timeout", "2", *SMALL.get(stressor, [])]
        said = run(["stress-ng", "--temp-path", place.folder, *options], timeout=100, cwd=place.folder)
        assert "fail:" not in said, said
        assert "successful run completed" in said
