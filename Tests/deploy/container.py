"""Turns itself into a container's first process: its own root, the mounts, no capabilities, then the program.

    python container.py SPEC.json        in mount and PID namespaces of its own

Written for the tests: what a container runtime does for a pod of the chart, but for seccomp and cgroups.
"""

import ctypes
import json
import os
import shutil
import sys

libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24


def check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source, target, kind=None, flags=0, data=None):
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    check(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() if data else None))


def place(path, source):
    """Makes what a mount point has to be, for a file or a directory."""
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()


def main():
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    root = spec["root"]
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    if spec["image"]:
        shutil.copytree(spec["image"], root, symlinks=True, dirs_exist_ok=True)
    for source, target, is_read_only in spec["mounts"]:
        path = root + target
        place(path, source)
        mount(source, path, flags=MS_BIND | MS_REC)
        if is_read_only:
            mount(source, path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    for name, text in spec["files"].items():
        os.makedirs(os.path.dirname(root + name), exist_ok=True)
        with open(root + name, "w") as file:
            file.write(text)
    os.makedirs(f"{root}/proc", exist_ok=True)
    mount("proc", f"{root}/proc", "proc")
    for device in ("null", "zero", "random", "urandom"):
        place(f"{root}/dev/{device}", f"/dev/{device}")
        mount(f"/dev/{device}", f"{root}/dev/{device}", flags=MS_BIND)
    if spec["read_only_root"]:
        mount("tmpfs", root, flags=MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chroot(root)
    os.chdir("/")
    if spec["drop_all"]:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            last = int(file.read())
        for capability in range(last + 1):
            check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
    if spec["no_new_privileges"]:
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    # As uid 0, exec gives the capabilities of the bounding set: none are left there.
    os.execve(spec["command"][0], spec["command"], spec["environment"])


main()
