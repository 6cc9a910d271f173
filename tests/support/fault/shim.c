/* Preloaded into a process (LD_PRELOAD): counts the calls by which it would write under a folder, and at the n-th lets
   the disk fail, or kills the process. What the process had open, made or written before stays as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct state {
    char folder[PATH_MAX];
    long at;         /* the call that fails, from 1; 0: none, calls are counted only */
    int error;       /* its errno; -1: SIGKILL */
    int lasting;     /* whether every later call fails, too: a full disk stays full */
    long count;
    char failed[PATH_MAX + 32]; /* the first call that failed: its name and path */
};
static struct state *state; /* shared with the children that are forked from this process */

__attribute__((constructor)) static void begin(void) {
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void fault_arm(const char *folder, long at, int error, int lasting) {
    memset(state, 0, sizeof *state);
    state->at = at;
    state->error = error;
    state->lasting = lasting;
    strncpy(state->folder, folder, PATH_MAX - 1);
}
long fault_count(void) { return state->count; }
const char *fault_failed(void) { return state->failed; }

static int fails(const char *call, const char *path) {
    size_t length = strlen(state->folder);
    if (!length || strncmp(path, state->folder, length)) return 0;
    long number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (!state->at || number < state->at || (number > state->at && !state->lasting)) return 0;
    if (!state->failed[0]) snprintf(state->failed, sizeof state->failed, "%s %s", call, path);
    if (state->error == -1) kill(getpid(), SIGKILL);
    errno = state->error;
    return 1;
}

static int fails_fd(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    if (!state->folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    struct stat found;
    return fails(!fstat(fd, &found) && S_ISDIR(found.st_mode) ? "flush-folder" : call, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define UNNAMED(flags) (((flags) & O_TMPFILE) == O_TMPFILE)
#define CREATES(flags) (((flags) & (O_CREAT | O_TRUNC)) || UNNAMED(flags))
#define OPENING(flags) (UNNAMED(flags) ? "open-unnamed" : "open")
#define MODE(flags) \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = (CREATES(flags)) ? va_arg(list, mode_t) : 0; \
    va_end(list)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags); \
        return CREATES(flags) && fails(OPENING(flags), path) ? -1 : NEXT(name)(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags); \
        return CREATES(flags) && fails(OPENING(flags), path) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define ON_FD(type, name, parameters, arguments) \
    type name parameters { return fails_fd(#name, fd) ? -1 : NEXT(name) arguments; }
ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))

int rename(const char *from, const char *to) { return fails("rename", to) ? -1 : NEXT(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : NEXT(mkdir)(path, mode); }
