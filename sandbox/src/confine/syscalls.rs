//! Which system calls a confined process may make. What is in none of these lists doesn't exist for
//! it (`ENOSYS`), so that libc and engines fall back as on an older kernel.

#![allow(clippy::wildcard_imports, reason = "a list of names from one crate")]

use libc::*;

/// The same on all architectures, but the libc crate doesn't have it for each.
const FCHMODAT2: c_long = 452;

/// What ordinary programs do to themselves and to files that they may open.
pub(super) const ALLOWED: &[c_long] = &[
    // Files and descriptors.
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_openat,
    SYS_openat2,
    SYS_close,
    SYS_close_range,
    SYS_newfstatat,
    SYS_fstat,
    SYS_statx,
    SYS_lseek,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_fcntl,
    SYS_flock,
    SYS_truncate,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync_file_range,
    SYS_renameat2,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_umask,
    SYS_chdir,
    SYS_fchdir,
    SYS_getcwd,
    SYS_copy_file_range,
    SYS_sendfile,
    SYS_splice,
    SYS_tee,
    SYS_vmsplice,
    SYS_fadvise64,
    SYS_readahead,
    SYS_statfs,
    SYS_fstatfs,
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_fgetxattr,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_flistxattr,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    // Events.
    SYS_eventfd2,
    SYS_signalfd4,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_ppoll,
    SYS_pselect6,
    // Memory.
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_mprotect,
    SYS_msync,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    // Threads and processes.
    SYS_clone,
    SYS_exit,
    SYS_exit_group,
    SYS_execve,
    SYS_execveat,
    SYS_futex,
    SYS_futex_waitv,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_membarrier,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_getattr,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval,
    SYS_getcpu,
    SYS_getpriority,
    SYS_ioprio_get,
    SYS_wait4,
    SYS_waitid,
    SYS_getrusage,
    SYS_times,
    SYS_getrlimit,
    SYS_setrlimit,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getpgid,
    SYS_getsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_capget,
    SYS_pidfd_open,
    SYS_setpgid,
    SYS_setsid,
    // Signals.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pidfd_send_signal,
    // Time.
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_timer_create,
    SYS_timer_settime,
    SYS_timer_gettime,
    SYS_timer_getoverrun,
    SYS_timer_delete,
    SYS_setitimer,
    SYS_getitimer,
    // The machine.
    SYS_uname,
    SYS_sysinfo,
    SYS_getrandom,
    // Sockets that are there, and new ones.
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    SYS_socketpair,
    SYS_socket,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
];

/// The earlier forms of calls above, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY: &[c_long] = &[
    SYS_open,
    SYS_creat,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_getdents,
    SYS_rename,
    SYS_renameat,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_link,
    SYS_symlink,
    SYS_dup2,
    SYS_pipe,
    SYS_eventfd,
    SYS_signalfd,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_poll,
    SYS_select,
    SYS_fork,
    SYS_vfork,
    SYS_getpgrp,
    SYS_pause,
    SYS_alarm,
    SYS_time,
    SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
pub(super) const LEGACY: &[c_long] = &[SYS_renameat];

/// What changes files that it need not be able to open for writing. Landlock doesn't guard these;
/// read-only mounts do.
pub(super) const METADATA: &[c_long] = &[
    SYS_fchmod,
    SYS_fchmodat,
    FCHMODAT2,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
];
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY_METADATA: &[c_long] =
    &[SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat];
#[cfg(target_arch = "aarch64")]
pub(super) const LEGACY_METADATA: &[c_long] = &[];

/// What tells the names of files in folders that Landlock keeps closed: for a private root alone.
pub(super) const WATCHES: &[c_long] = &[SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch];
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY_WATCHES: &[c_long] = &[SYS_inotify_init];
#[cfg(target_arch = "aarch64")]
pub(super) const LEGACY_WATCHES: &[c_long] = &[];

/// To start programs, and to wait for and signal the processes.
pub(super) const PROCESSES: &[c_long] =
    &[SYS_execve, SYS_execveat, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_setpgid, SYS_setsid];
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY_PROCESSES: &[c_long] = &[SYS_fork, SYS_vfork];
#[cfg(target_arch = "aarch64")]
pub(super) const LEGACY_PROCESSES: &[c_long] = &[];

/// To name the other end of a socket, which those that were inherited have.
pub(super) const SOCKETS: &[c_long] = &[SYS_socket, SYS_connect];
/// To wait for others to connect.
pub(super) const LISTEN: &[c_long] = &[SYS_bind, SYS_listen, SYS_accept, SYS_accept4];

/// Never for a confined process, and a sign that something is wrong with it: the host is told of each
/// attempt.
pub(super) const TELLING: &[c_long] = &[
    // Other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    // Wide or young parts of the kernel.
    SYS_io_uring_setup,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    // Namespaces, roots and mounts.
    SYS_unshare,
    SYS_setns,
    SYS_chroot,
    SYS_pivot_root,
    SYS_mount,
    SYS_umount2,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_open_by_handle_at,
    // Who it is.
    SYS_setuid,
    SYS_setgid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_capset,
    // The machine.
    SYS_reboot,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
];

/// Never for a confined process either, whatever else it may do: `EPERM`, and the kernel logs the
/// attempt.
pub(super) const DENIED: &[c_long] = &[
    // Other processes.
    SYS_process_madvise,
    SYS_process_mrelease,
    SYS_kcmp,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_sched_setaffinity,
    SYS_sched_setscheduler,
    SYS_sched_setparam,
    SYS_sched_setattr,
    SYS_ioprio_set,
    // Wide or young parts of the kernel.
    SYS_seccomp,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_fanotify_init,
    SYS_fanotify_mark,
    SYS_personality,
    SYS_lookup_dcookie,
    SYS_remap_file_pages,
    SYS_memfd_secret,
    // Namespaces, roots and mounts.
    SYS_mount_setattr,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_name_to_handle_at,
    SYS_mknodat,
    // Who it is.
    SYS_setreuid,
    SYS_setregid,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_setgroups,
    // The machine.
    SYS_delete_module,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_syslog,
    SYS_vhangup,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_nfsservctl,
    SYS_mq_open,
    SYS_mq_unlink,
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_semget,
    SYS_semctl,
    SYS_msgget,
    SYS_msgctl,
];
#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY_DENIED: &[c_long] =
    &[SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_mknod, SYS__sysctl];
#[cfg(target_arch = "aarch64")]
pub(super) const LEGACY_DENIED: &[c_long] = &[];

/// Requests of `ioctl` that say something about a descriptor or how it is used. All others would
/// reach a device driver or a terminal.
pub(super) const IOCTLS: &[u64] =
    &[FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TCGETS2, TIOCGWINSZ, FS_IOC_GETFLAGS];
const FIONREAD: u64 = 0x541B;
const FIONBIO: u64 = 0x5421;
const FIOCLEX: u64 = 0x5451;
const FIONCLEX: u64 = 0x5450;
const TCGETS: u64 = 0x5401;
const TCGETS2: u64 = 0x802C_542A;
const TIOCGWINSZ: u64 = 0x5413;
const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
/// Types into a terminal, or pastes into one.
pub(super) const TYPING: [u64; 2] = [0x5412, 0x541C];

/// Options of `prctl` that concern the caller's name and looks. Others would take back what confines
/// it, such as its death with the parent.
pub(super) const PRCTLS: &[c_int] = &[
    PR_SET_NAME,
    PR_GET_NAME,
    PR_GET_DUMPABLE,
    PR_GET_PDEATHSIG,
    PR_GET_NO_NEW_PRIVS,
    PR_SET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_CAPBSET_READ,
    PR_SET_TIMERSLACK,
    PR_GET_TIMERSLACK,
    PR_SET_VMA,
    PR_SET_THP_DISABLE,
    PR_GET_THP_DISABLE,
];

/// The name of a call that the host is told of.
pub(super) fn name(call: c_long) -> Option<&'static str> {
    let name = NAMES.iter().find(|(number, _)| *number == call)?.1;
    Some(name.trim_start_matches("SYS_"))
}

macro_rules! names {
    ($($(#[$on:meta])* $call:ident)*) => { &[$($(#[$on])* ($call, stringify!($call))),*] };
}

const NAMES: &[(c_long, &str)] = names! {
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_io_uring_setup SYS_bpf
    SYS_perf_event_open SYS_userfaultfd SYS_keyctl SYS_add_key SYS_request_key SYS_unshare SYS_setns
    SYS_chroot SYS_pivot_root SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_fsopen
    SYS_open_by_handle_at SYS_setuid SYS_setgid SYS_setresuid SYS_setresgid SYS_capset SYS_reboot
    SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module
    SYS_ioctl SYS_clone SYS_execve SYS_execveat SYS_pidfd_open SYS_pidfd_send_signal SYS_setpgid SYS_setsid
    #[cfg(target_arch = "x86_64")] SYS_fork
    #[cfg(target_arch = "x86_64")] SYS_vfork
    SYS_kill SYS_tgkill SYS_tkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo
    SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept SYS_accept4
    SYS_sendto SYS_sendmsg SYS_sendmmsg
};
