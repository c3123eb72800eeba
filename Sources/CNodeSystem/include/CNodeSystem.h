// System calls that Swift's C library module does not show.
#pragma once

/// Exchanges two paths atomically: renameat2(2) with RENAME_EXCHANGE.
/// Returns 0, or -1 with errno set (EINVAL and ENOSYS where the file system or kernel cannot do it).
int node_exchange_paths(const char *first, const char *second);

/// Renames a path unless the target exists: renameat2(2) with RENAME_NOREPLACE. Returns 0, or -1 with errno set.
int node_rename_without_replacing(const char *from, const char *to);

/// Starts a program with no descriptors but the given output, in a process group of its own.
///
/// argv and envp end with NULL; the program is searched in the PATH of envp. With enter_host, which needs CAP_SYS_ADMIN and the host's
/// process namespace, the child first enters all namespaces of process 1. Standard output and error go to output.
/// Returns the process ID, or -1 with errno set. A child that cannot enter or start exits with 126 or 127.
int node_spawn(const char *const argv[], const char *const envp[], int enter_host, int output);
