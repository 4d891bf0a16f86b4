/* preload.c - an LD_PRELOAD library that makes one of a program's calls fail.
 *
 *   FAULT_KIND  alloc: the FAULT_AT-th allocation gives NULL
 *               EIO, ENOSPC, EINTR: the FAULT_AT-th change of a file fails so
 *               short: the FAULT_AT-th write writes half
 *               full: from the FAULT_AT-th change on, nothing can be written or made (ENOSPC)
 *               kill-before, kill-after: the process gets SIGKILL at the FAULT_AT-th change
 *   FAULT_AT    from 1; 0: nothing fails
 *   FAULT_LOG   a file: what failed, and at the end how many there were: "alloc N", "file N"
 *
 * Calls are counted from the begin of main to its end. Allocations are the functions of malloc's
 * family, which the library's own definitions replace. Changes of files are system calls: functions
 * inside the C library (what stdio does) cannot be replaced by name, so a seccomp filter redirects
 * the calls to a signal handler, which makes them from the one address that the filter allows. A
 * process that hangs ends with SIGALRM. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { LONGEST_RUN = 60 }; /* seconds */

typedef enum Kind { NOTHING, ALLOC, ERROR, SHORT, FULL, KILL_BEFORE, KILL_AFTER } Kind;

static Kind kind;
static int error_number;
static long fail_at;
static const char *log_path;
static atomic_long allocations, changes;
static atomic_bool active;

#if defined(__x86_64__)

/* fault_syscall(number, six arguments): the kernel's result, -errno on failure. */
long fault_syscall(long number, long a, long b, long c, long d, long e, long f);
extern const char fault_syscall_end[];
__asm__(".text\n.globl fault_syscall\n.type fault_syscall, @function\n"
        "fault_syscall:\n"
        "  movq %rdi, %rax\n  movq %rsi, %rdi\n  movq %rdx, %rsi\n  movq %rcx, %rdx\n"
        "  movq %r8, %r10\n  movq %r9, %r8\n  movq 8(%rsp), %r9\n"
        "  syscall\n"
        ".globl fault_syscall_end\nfault_syscall_end:\n"
        "  ret\n");

static long call3(long number, long a, long b, long c) {
    return fault_syscall(number, a, b, c, 0, 0, 0);
}

static void log_line(const char *what, long number) {
    char line[128];
    if (!log_path) return;
    int size = snprintf(line, sizeof line, "%s %ld\n", what, number);
    long fd = fault_syscall(SYS_openat, AT_FDCWD, (long)log_path,
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600, 0, 0);
    if (fd < 0) return;
    call3(SYS_write, fd, (long)line, size);
    call3(SYS_close, fd, 0, 0);
}

/* ---- Allocations. ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t align, size_t size);

/* The address ranges of these libraries: some of their functions (making a primitive; the first
 * fetch of a digest) do not check malloc's result, and crash. Callers cannot prevent that, so their
 * own allocations do not fail. (Those by C++'s new do.) */
static const char *const excluded_names[] = {"libdnnl", "libcrypto"};
enum { EXCLUDED = sizeof excluded_names / sizeof excluded_names[0] };
static uintptr_t excluded_begin[EXCLUDED], excluded_end[EXCLUDED];

static int exclude(struct dl_phdr_info *info, size_t size, void *user) {
    (void)size, (void)user;
    for (int e = 0; e < EXCLUDED; e++) {
        if (!strstr(info->dlpi_name, excluded_names[e])) continue;
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const ElfW(Phdr) *part = &info->dlpi_phdr[i];
            if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
            excluded_begin[e] = info->dlpi_addr + part->p_vaddr;
            excluded_end[e] = excluded_begin[e] + part->p_memsz;
        }
    }
    return 0;
}

static bool is_excluded(uintptr_t caller) {
    for (int e = 0; e < EXCLUDED; e++)
        if (caller >= excluded_begin[e] && caller < excluded_end[e]) return true;
    return false;
}

/* Only in the function that the program called, for its return address. */
#define REFUSE() refuse((uintptr_t)__builtin_return_address(0))

static bool refuse(uintptr_t caller) {
    if (!atomic_load_explicit(&active, memory_order_relaxed)) return false;
    if (is_excluded(caller)) return false;
    long n = atomic_fetch_add(&allocations, 1) + 1;
    if (kind != ALLOC || n != fail_at) return false;
    log_line("failed allocation", n);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size) {
    return REFUSE() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return REFUSE() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return REFUSE() ? NULL : __libc_realloc(memory, size);
}

void *memalign(size_t align, size_t size) {
    return REFUSE() ? NULL : __libc_memalign(align, size);
}

void *aligned_alloc(size_t align, size_t size) {
    return REFUSE() ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **memory, size_t align, size_t size) {
    if (REFUSE()) return ENOMEM;
    void *new = __libc_memalign(align, size);
    if (!new) return ENOMEM;
    *memory = new;
    return 0;
}

/* ---- Changes of files. ---- */

static const struct {
    int number;
    const char *name;
} calls[] = {
    {SYS_open, "open"},
    {SYS_openat, "openat"},
    {SYS_write, "write"},
    {SYS_pwrite64, "pwrite"},
    {SYS_writev, "writev"},
    {SYS_fsync, "fsync"},
    {SYS_fdatasync, "fdatasync"},
    {SYS_rename, "rename"},
    {SYS_renameat, "renameat"},
    {SYS_link, "link"},
    {SYS_linkat, "linkat"},
    {SYS_renameat2, "renameat2"},
    {SYS_unlink, "unlink"},
    {SYS_unlinkat, "unlinkat"},
    {SYS_mkdir, "mkdir"},
    {SYS_mkdirat, "mkdirat"},
    {SYS_rmdir, "rmdir"},
    {SYS_ftruncate, "ftruncate"},
    {SYS_symlink, "symlink"},
    {SYS_fallocate, "fallocate"},
    {SYS_sendfile, "sendfile"},
    {SYS_creat, "creat"},
    {SYS_truncate, "truncate"},
    {SYS_fchmod, "fchmod"},
    {SYS_symlinkat, "symlinkat"},
    {SYS_pwritev, "pwritev"},
    {SYS_pwritev2, "pwritev2"},
    {SYS_chmod, "chmod"},
    {SYS_copy_file_range, "copy_file_range"},
};
enum { CALLS = sizeof calls / sizeof calls[0] };

static const char *call_name(long number) {
    for (int i = 0; i < CALLS; i++)
        if (calls[i].number == number) return calls[i].name;
    return "?";
}

static bool is_write(long number) {
    return number == SYS_write || number == SYS_pwrite64;
}

/* Whether a call changes a file, other than standard error. */
static bool is_change(long number, const greg_t *regs) {
    long flags = number == SYS_open ? regs[REG_RSI] : regs[REG_RDX];
    if (number == SYS_open || number == SYS_openat)
        return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;
    if (is_write(number) || number == SYS_writev) return regs[REG_RDI] != STDERR_FILENO;
    return true;
}

/* Whether a full disk makes this call fail. */
static bool needs_room(long number) {
    switch (number) {
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_fchmod:
    case SYS_chmod:
    case SYS_ftruncate:
    case SYS_truncate:
        return false;
    default:
        return true;
    }
}

static long make_call(long number, const greg_t *r) {
    return fault_syscall(number, r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8],
                         r[REG_R9]);
}

static void kill_self(void) {
    call3(SYS_kill, call3(SYS_getpid, 0, 0, 0), SIGKILL, 0);
}

static long fail(long number, greg_t *regs, long n) {
    if (n == fail_at) log_line(call_name(number), n);
    switch (kind) {
    case ERROR:
        return n == fail_at ? -error_number : make_call(number, regs);
    case FULL:
        return needs_room(number) ? -ENOSPC : make_call(number, regs);
    case SHORT:
        if (n == fail_at && is_write(number) && regs[REG_RDX] > 1) regs[REG_RDX] /= 2;
        return make_call(number, regs);
    case KILL_BEFORE:
        kill_self();
        return 0;
    case KILL_AFTER:
        make_call(number, regs), kill_self();
        return 0;
    default:
        return make_call(number, regs);
    }
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    int before = errno;
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    long number = info->si_syscall;
    bool counted = atomic_load(&active) && is_change(number, regs);
    long n = counted ? atomic_fetch_add(&changes, 1) + 1 : 0;
    bool hit =
        counted && fail_at && kind > ALLOC && (n == fail_at || (kind == FULL && n > fail_at));
    regs[REG_RAX] = hit ? fail(number, regs, n) : make_call(number, regs);
    errno = before;
}

static bool install(void) {
    struct sock_filter code[CALLS + 8];
    uint64_t end = (uint64_t)(uintptr_t)fault_syscall_end;
    int n = 0;
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++, n++)
        code[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number,
                                               (uint8_t)(CALLS - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, instruction_pointer));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)end, 0, 3);
    code[n++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    code[n++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(end >> 32), 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* ---- Around main. ---- */

static void read_environment(void) {
    static const struct {
        const char *name;
        Kind kind;
        int error;
    } kinds[] = {{"alloc", ALLOC, 0},
                 {"EIO", ERROR, EIO},
                 {"ENOSPC", ERROR, ENOSPC},
                 {"EINTR", ERROR, EINTR},
                 {"short", SHORT, 0},
                 {"full", FULL, 0},
                 {"kill-before", KILL_BEFORE, 0},
                 {"kill-after", KILL_AFTER, 0}};
    const char *name = getenv("FAULT_KIND"), *at = getenv("FAULT_AT");
    log_path = getenv("FAULT_LOG");
    fail_at = at ? atol(at) : 0;
    for (size_t i = 0; name && i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(name, kinds[i].name)) kind = kinds[i].kind, error_number = kinds[i].error;
}

static void at_end(void) {
    if (!atomic_exchange(&active, false)) return;
    log_line("alloc", atomic_load(&allocations));
    log_line("file", atomic_load(&changes));
}

static int (*real_main)(int, char **, char **);

static int main_with_faults(int argc, char **argv, char **envp) {
    read_environment();
    if (!install()) {
        log_line("no filter", errno);
        return 125;
    }
    dl_iterate_phdr(exclude, NULL);
    alarm(LONGEST_RUN);
    atexit(at_end); /* handlers run in reverse order of registration: this one after the program's
                       own */
    atomic_store(&active, true);
    int status = real_main(argc, argv, envp);
    at_end();
    return status;
}

typedef int StartMain(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                      void (*)(void), void *);
StartMain __libc_start_main;

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
    union {
        void *object;
        StartMain *function;
    } real = {dlsym(RTLD_NEXT, "__libc_start_main")};
    real_main = main;
    return real.function(main_with_faults, argc, argv, init, fini, rtld_fini, stack_end);
}

#endif
