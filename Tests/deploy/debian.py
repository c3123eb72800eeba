"""Boots a Debian root in namespaces of its own, with systemd as its first process: debian.py BASE ROOT

BASE (made by debootstrap) stays as it is; writes go to memory over it at ROOT. Runs as the first process of a PID namespace, in the network
namespace that the host is to have.
"""

import os
import subprocess
import sys

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def main():
    base, root = sys.argv[1:]
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", root)
    for name in ("upper", "work", "root"):
        os.makedirs(f"{root}/{name}")
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={base},upperdir={root}/upper,workdir={root}/work", f"{root}/root")
    os.chdir(f"{root}/root")
    mount("-t", "proc", "proc", "proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", "sys")
    for name in ("run", "tmp", "dev"):
        mount("-t", "tmpfs", "-o", "mode=755" if name != "tmp" else "mode=1777", "tmpfs", name)
    cgroups()
    for name in DEVICES:
        open(f"dev/{name}", "w").close()
        mount("--bind", f"/dev/{name}", f"dev/{name}")
    # What is said on the console is in the journal.
    open("dev/console", "w").close()
    mount("--bind", "/dev/null", "dev/console")
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}")
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", "dev/pts")
    os.symlink("pts/ptmx", "dev/ptmx")
    mount("-t", "tmpfs", "tmpfs", "dev/shm")
    os.mkdir("mnt/former")
    subprocess.run(["pivot_root", ".", "mnt/former"], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/mnt/former"], check=True)
    os.execve("/lib/systemd/systemd", ["systemd", "--show-status=false"], {"container": "namespaces", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def cgroups():
    """The hierarchy in which systemd keeps its units: the unified one where the machine has only that, else its own."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        mount("-t", "cgroup2", "cgroup2", "sys/fs/cgroup")
        return
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "sys/fs/cgroup")
    os.mkdir("sys/fs/cgroup/systemd")
    mount("-t", "cgroup", "-o", "none,name=systemd", "cgroup", "sys/fs/cgroup/systemd")


main()
