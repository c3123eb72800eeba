#define _GNU_SOURCE
#include "CNodeSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__linux__)
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif
#include <sys/syscall.h>
#include <sys/wait.h>

static int renameWithFlags(const char *from, const char *to, unsigned flags) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}
#else
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
static int renameWithFlags(const char *from, const char *to, unsigned flags) {
    (void)from;
    (void)to;
    (void)flags;
    errno = ENOSYS;
    return -1;
}
#endif

int node_exchange_paths(const char *first, const char *second) {
    return renameWithFlags(first, second, RENAME_EXCHANGE);
}

int node_rename_without_replacing(const char *from, const char *to) {
    return renameWithFlags(from, to, RENAME_NOREPLACE);
}

#if defined(__linux__)
static int enterNamespacesOfInit(void) {
    // The mount namespace last, as it takes /proc with it.
    static const char *const names[] = {"/proc/1/ns/ipc", "/proc/1/ns/uts", "/proc/1/ns/net", "/proc/1/ns/pid", "/proc/1/ns/cgroup",
                                        "/proc/1/ns/mnt"};
    int descriptors[6];
    for (int i = 0; i < 6; i++) {
        descriptors[i] = open(names[i], O_RDONLY | O_CLOEXEC);
    }
    for (int i = 0; i < 6; i++) {
        // A kernel without cgroup namespaces has nothing to enter.
        if (descriptors[i] < 0 && i == 4) continue;
        if (descriptors[i] < 0 || setns(descriptors[i], 0) != 0) return -1;
    }
    return 0;
}
#else
static int enterNamespacesOfInit(void) { return -1; }
#endif

int node_spawn(const char *const argv[], const char *const envp[], int enter_host, int output) {
    pid_t child = fork();
    if (child != 0) return (int)child;
    // Only calls that are safe between fork and exec in a process with threads.
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
    if (dup2(output, 1) < 0 || dup2(output, 2) < 0) _exit(126);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0 && null != 0) dup2(null, 0);
    for (int descriptor = 3; descriptor < 4096; descriptor++) close(descriptor);
    if (enter_host && (enterNamespacesOfInit() != 0 || chdir("/") != 0)) {
        static const char message[] = "cannot enter the host's namespaces: run with the host's process namespace and as privileged\n";
        (void)!write(2, message, sizeof message - 1);
        _exit(126);
    }
#if defined(__linux__)
    // Processes enter a PID namespace only by being born in it.
    if (enter_host) {
        pid_t inner = fork();
        if (inner < 0) _exit(126);
        if (inner > 0) {
            int status = 0;
            while (waitpid(inner, &status, 0) < 0 && errno == EINTR) {
            }
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        }
    }
    environ = (char **)envp;
    execvp(argv[0], (char *const *)argv);
#else
    (void)envp;
    execv(argv[0], (char *const *)argv);
#endif
    static const char message[] = "cannot be started\n";
    (void)!write(2, message, sizeof message - 1);
    _exit(127);
}
