"""Makes the root of a Debian host out of this machine's /usr, in mount and PID namespaces of its own, and holds it: host.py ROOT

Nothing of the host's /etc but what programs need to run, nothing in /var; writes to /usr stay in the host. `systemctl` is a stand-in, since a
chroot has no systemd: it runs what the units say, with their environment files, without their sandbox.
"""

import os
import shutil
import subprocess
import sys
import time

SYSTEMCTL = r"""#!/usr/bin/python3
import os, re, shlex, signal, subprocess, sys
arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
if arguments[0] == "daemon-reload":
    sys.exit()
for unit in arguments[1:]:
    text = open(f"/usr/lib/systemd/system/{unit}").read()
    values = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    identifier = f"/run/{unit}.pid"
    if arguments[0] == "disable":
        if os.path.exists(identifier):
            os.kill(int(open(identifier).read()), signal.SIGTERM)
            os.remove(identifier)
        continue
    environment = {"PATH": "/usr/bin", "STATE_DIRECTORY": "/var/lib/spegel", "SWIFT_BACKTRACE": "enable=no"}
    for line in open(values["EnvironmentFile"].removeprefix("-")):
        if re.match(r"[A-Z_]+=", line):
            name, _, value = line.strip().partition("=")
            environment[name] = value
    for directory in re.findall(r"^ConfigurationDirectory=(.*)$", text, re.M):
        os.makedirs(f"/etc/{directory}", exist_ok=True)
    command = [re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], word) for word in shlex.split(values["ExecStart"])]
    log = open(f"/var/log/{unit}.log", "w")
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    if values["Type"] == "oneshot":
        sys.exit(process.wait()) if process.wait() else None
    else:
        open(identifier, "w").write(str(process.pid))
"""


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def main():
    root = sys.argv[1]
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", root)
    for name in ("usr", "proc", "dev", "run", "tmp", "root", "var/lib", "var/log", "etc", ".upper", ".work"):
        os.makedirs(f"{root}/{name}")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
    mount("-t", "overlay", "overlay", "-o", f"lowerdir=/usr,upperdir={root}/.upper,workdir={root}/.work", f"{root}/usr")
    for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group", "nsswitch.conf", "alternatives", "ssl"):
        source = f"/etc/{name}"
        (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, f"{root}/etc/{name}", **({"symlinks": True} if os.path.isdir(source) else {}))
    # A debug build finds Swift's libraries there.
    if os.path.isdir("/opt"):
        os.makedirs(f"{root}/opt")
        mount("--rbind", "/opt", f"{root}/opt")
    mount("-t", "proc", "proc", f"{root}/proc")
    for device in ("null", "zero", "random", "urandom"):
        open(f"{root}/dev/{device}", "w").close()
        mount("--bind", f"/dev/{device}", f"{root}/dev/{device}")
    with open(f"{root}/usr/bin/systemctl.stand-in", "w") as file:
        file.write(SYSTEMCTL)
    os.chmod(f"{root}/usr/bin/systemctl.stand-in", 0o755)
    os.replace(f"{root}/usr/bin/systemctl.stand-in", f"{root}/usr/bin/systemctl")
    os.chroot(root)
    os.chdir("/root")
    open("/run/host-is-made", "w").close()
    while True:
        time.sleep(3600)


main()
