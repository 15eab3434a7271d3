"""The seccomp profile that ``RuntimeDefault`` means here, and that a container has which names none. Pure.

A list of permissions, those of containerd's default profile, and what a capability that the container was given adds to
them.  Two things differ: a call that is in no list is answered ENOSYS rather than EPERM, so that a C library newer than the
host's libseccomp takes its older way, and ``socketcall`` is left out, through which a 32-bit program would pass by the check
of the socket's family.  Source: containerd 2.4.2, contrib/seccomp/seccomp_default.go; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_EPERM = 1
_ENOSYS = 38
_AF_ALG, _AF_VSOCK, _AF_UNKNOWN = 38, 40, 46
"""Families of sockets that are refused: the kernel's ciphers, the hypervisor's, and those that Linux did not have yet."""
_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""clone's flags for a new mount, cgroup, UTS, IPC, user, PID and network namespace. Source: linux/sched.h."""
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_ALLOWED = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown
    lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2
    prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
    semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4
    waitid waitpid write writev
    """
_OF_MACHINE = {
    "x86_64": ("arch_prctl", "modify_ldt"),
    "aarch64": ("arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"),
}
_BY_CAPABILITY = {
    "CAP_BPF": ("bpf",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
        "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
        "syslog", "umount", "umount2", "unshare",
    ),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_SYS_MODULE": ("delete_module", "init_module", "finit_module"),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_TIME": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
}  # fmt: skip
_NEVER = (
    "add_key", "create_module", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup",
    "kexec_file_load", "kexec_load", "keyctl", "migrate_pages", "move_pages", "nfsservctl", "pivot_root", "query_module",
    "request_key", "socketcall", "swapoff", "swapon", "_sysctl", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip
"""Known and refused whatever the capabilities: EPERM, which says that it is not permitted rather than unknown."""


def runtime_default(capabilities: Collection[str], machine: str) -> dict[str, Any]:
    """The ``linux.seccomp`` member of config.json for a container with these capabilities on this kind of machine."""
    added = {name for capability in capabilities for name in _BY_CAPABILITY.get(capability, ())}
    known = {name for names in _BY_CAPABILITY.values() for name in names}
    rules: list[dict[str, Any]] = [
        {"names": sorted({*_ALLOWED.split(), *_OF_MACHINE.get(machine, ()), *added}), "action": "SCMP_ACT_ALLOW"},
        _refused(sorted({*_NEVER, *known} - added), _EPERM),
        *_socket_rules(),
        *(_when("personality", "SCMP_ACT_ALLOW", _argument(value, "SCMP_CMP_EQ")) for value in _PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" in capabilities:
        rules.append({"names": ["clone", "clone3"], "action": "SCMP_ACT_ALLOW"})
    else:
        # clone3 keeps its flags in memory, where no filter can read them: libraries that hear ENOSYS use clone.
        rules.append(_refused(["clone3"], _ENOSYS))
        rules.append(_when("clone", "SCMP_ACT_ALLOW", _argument(sum(_NAMESPACES), "SCMP_CMP_MASKED_EQ", 0)))
        for flag in _NAMESPACES:
            rule = _when("clone", "SCMP_ACT_ERRNO", _argument(flag, "SCMP_CMP_MASKED_EQ", flag))
            rules.append({**rule, "errnoRet": _EPERM})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": list(_ARCHITECTURES.get(machine, ())),
        "syscalls": rules,
    }


def _socket_rules() -> list[dict[str, Any]]:
    refused = [(_AF_ALG, "SCMP_CMP_EQ"), (_AF_VSOCK, "SCMP_CMP_EQ"), (_AF_UNKNOWN, "SCMP_CMP_GE")]
    allowed = [family for family in range(_AF_ALG, _AF_UNKNOWN) if family not in (_AF_ALG, _AF_VSOCK)]
    return [
        _when("socket", "SCMP_ACT_ALLOW", _argument(_AF_ALG, "SCMP_CMP_LT")),
        *(_when("socket", "SCMP_ACT_ALLOW", _argument(family, "SCMP_CMP_EQ")) for family in allowed),
        *({**_when("socket", "SCMP_ACT_ERRNO", _argument(*one)), "errnoRet": _EPERM} for one in refused),
    ]


def _refused(names: list[str], errno: int) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}


def _when(name: str, action: str, argument: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": action, "args": [argument]}


def _argument(value: int, comparison: str, masked: int | None = None) -> dict[str, Any]:
    """A condition on the first argument; for a masked comparison ``value`` is the mask and ``masked`` what has to be left."""
    found: dict[str, Any] = {"index": 0, "value": value, "op": comparison}
    return found if masked is None else {**found, "valueTwo": masked}
