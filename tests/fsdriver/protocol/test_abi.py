"""Our layouts against the kernel's: a table taken from Linux 6.18's header (7.45), and the header installed here."""

import re
from pathlib import Path

import pytest

from fsdriver.protocol import abi

HEADER = Path("/usr/include/linux/fuse.h")

# sizeof() in include/uapi/linux/fuse.h of Linux 6.18; fuse_dirent without its flexible name.
SIZES = {
    "fuse_in_header": 40,
    "fuse_out_header": 16,
    "fuse_forget_in": 8,
    "fuse_forget_one": 16,
    "fuse_batch_forget_in": 8,
    "fuse_getattr_in": 16,
    "fuse_statx_in": 24,
    "fuse_setattr_in": 88,
    "fuse_mknod_in": 16,
    "fuse_mkdir_in": 8,
    "fuse_rename_in": 8,
    "fuse_rename2_in": 16,
    "fuse_link_in": 8,
    "fuse_open_in": 8,
    "fuse_create_in": 16,
    "fuse_release_in": 24,
    "fuse_flush_in": 24,
    "fuse_read_in": 40,
    "fuse_write_in": 40,
    "fuse_fsync_in": 16,
    "fuse_getxattr_in": 8,
    "fuse_lk_in": 48,
    "fuse_access_in": 8,
    "fuse_init_in": 64,
    "fuse_interrupt_in": 8,
    "fuse_bmap_in": 16,
    "fuse_ioctl_in": 32,
    "fuse_poll_in": 24,
    "fuse_fallocate_in": 32,
    "fuse_lseek_in": 24,
    "fuse_copy_file_range_in": 56,
    "fuse_syncfs_in": 8,
    "fuse_attr": 88,
    "fuse_entry_out": 128,
    "fuse_attr_out": 104,
    "fuse_open_out": 16,
    "fuse_write_out": 8,
    "fuse_statfs_out": 80,
    "fuse_getxattr_out": 8,
    "fuse_lk_out": 24,
    "fuse_init_out": 64,
    "fuse_bmap_out": 8,
    "fuse_ioctl_out": 16,
    "fuse_poll_out": 8,
    "fuse_lseek_out": 8,
    "fuse_copy_file_range_out": 8,
    "fuse_dirent": 24,
    "fuse_notify_inval_inode_out": 24,
    "fuse_notify_inval_entry_out": 16,
    "fuse_notify_delete_out": 24,
    "fuse_notify_prune_out": 16,
    "fuse_uring_ent_in_out": 32,
}


def test_every_layout_has_the_kernels_size():
    assert {name: layout.size for name, layout in abi.LAYOUTS.items()} == SIZES


def struct_sizes(header: str) -> dict[str, int]:
    """sizeof() of the structs in a C header that consist of fixed-width integers, arrays of them, and one another."""
    width = {"uint64_t": 8, "int64_t": 8, "uint32_t": 4, "int32_t": 4, "uint16_t": 2, "int16_t": 2, "char": 1}
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    sizes: dict[str, int] = {}
    for name, members in re.findall(r"^struct (\w+) \{(.*?)^\};", header, flags=re.DOTALL | re.MULTILINE):
        total = 0
        for kind, count in re.findall(r"^\s*(?:struct )?(\w+)\s+\w+(\[\d*\])?;", members, flags=re.MULTILINE):
            one = width.get(kind, 0) or sizes[kind]
            total += one * (int(count[1:-1] or 0) if count else 1)
        sizes[name] = total
    return sizes


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_the_installed_header_agrees():
    installed = struct_sizes(HEADER.read_text())
    assert len(installed) > 40
    for name, size in installed.items():
        if name in SIZES:
            assert SIZES[name] == size, name


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_numbers_and_flags_are_the_installed_headers():
    text = HEADER.read_text()
    for name, number in re.findall(r"^\tFUSE_(\w+)\s*= (\d+),", text, flags=re.MULTILINE):
        if name in abi.Opcode.__members__:
            assert abi.Opcode[name] == int(number), name
        if name.removeprefix("NOTIFY_") in abi.NotifyCode.__members__:
            assert abi.NotifyCode[name.removeprefix("NOTIFY_")] == int(number), name
    flags = re.findall(r"^#define FUSE_(\w+)\s+\(1(?:ULL)? << (\d+)\)", text, flags=re.MULTILINE)
    checked = [abi.InitFlag[name] == 1 << int(bit) for name, bit in flags if name in abi.InitFlag.__members__]
    assert len(checked) > 30
    assert all(checked)
    for name, bit in re.findall(r"^#define FATTR_(\w+)\s+\(1 << (\d+)\)", text, flags=re.MULTILINE):
        assert abi.SetattrValid[name] == 1 << int(bit), name
