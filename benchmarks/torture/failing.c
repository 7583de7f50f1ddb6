/* Lets one file operation below a folder fail; see benchmarks/torture/failures.py.

   Loaded by LD_PRELOAD in front of the C library.  failing_arm(N, ERRNO, LAST) lets the N-th
   operation from now on fail, and all up to the LAST-th; failing_count() is how many there were. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long first, last, count;
static int code;

void failing_root(const char *path) {
  snprintf(root, sizeof root, "%s", path);
  root_length = strlen(root);
}
void failing_arm(long n, int error, long until) {
  first = n, last = until, code = error;
  __atomic_store_n(&count, 0, __ATOMIC_SEQ_CST);
}
long failing_count(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }

static int fails(const char *path) {
  if (!root_length || strncmp(path, root, root_length)) return 0;
  long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
  if (n < first || n > last) return 0;
  errno = code;
  return 1;
}
static int fails_of(int fd) {
  if (!root_length) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int kept = errno;
  ssize_t n = readlink(link, path, sizeof path - 1);
  errno = kept;
  if (n < 0) return 0;
  path[n] = 0;
  return fails(path);
}
static int fails_at(int folder, const char *name) {
  if (!root_length) return 0;
  if (name[0] == '/') return fails(name);
  if (folder != AT_FDCWD) return fails_of(folder);
  char path[PATH_MAX];
  return getcwd(path, sizeof path) ? fails(path) : 0;
}

/* type, name, parameters, arguments, test, value of a failure */
#define HOOK(type, name, parameters, arguments, test, failed)            \
  type name parameters {                                                  \
    static type(*next) parameters;                                        \
    if (!next) next = (type(*) parameters)dlsym(RTLD_NEXT, #name);        \
    return (test) ? (failed) : next arguments;                            \
  }
#define OPEN(name)                                                        \
  int name(const char *path, int flags, ...) {                            \
    static int (*next)(const char *, int, ...);                           \
    if (!next) next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    __builtin_va_list rest;                                               \
    __builtin_va_start(rest, flags);                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? __builtin_va_arg(rest, mode_t) : 0; \
    __builtin_va_end(rest);                                               \
    return fails_at(AT_FDCWD, path) ? -1 : next(path, flags, mode);       \
  }
#define OPENAT(name)                                                      \
  int name(int folder, const char *path, int flags, ...) {                \
    static int (*next)(int, const char *, int, ...);                      \
    if (!next) next = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    __builtin_va_list rest;                                               \
    __builtin_va_start(rest, flags);                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? __builtin_va_arg(rest, mode_t) : 0; \
    __builtin_va_end(rest);                                               \
    return fails_at(folder, path) ? -1 : next(folder, path, flags, mode); \
  }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
HOOK(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fails_of(fd), -1)
HOOK(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
     fails_of(fd), -1)
HOOK(int, fsync, (int fd), (fd), fails_of(fd), -1)
HOOK(int, fdatasync, (int fd), (fd), fails_of(fd), -1)
HOOK(int, ftruncate64, (int fd, off64_t size), (fd, size), fails_of(fd), -1)
HOOK(int, flock, (int fd, int how), (fd, how), fails_of(fd), -1)
HOOK(int, rename, (const char *from, const char *to), (from, to), fails_at(AT_FDCWD, to), -1)
HOOK(int, renameat, (int f, const char *from, int t, const char *to), (f, from, t, to),
     fails_at(t, to), -1)
HOOK(int, unlink, (const char *path), (path), fails_at(AT_FDCWD, path), -1)
HOOK(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags),
     fails_at(folder, path), -1)
HOOK(int, rmdir, (const char *path), (path), fails_at(AT_FDCWD, path), -1)
HOOK(int, mkdir, (const char *path, mode_t mode), (path, mode), fails_at(AT_FDCWD, path), -1)
HOOK(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode),
     fails_at(folder, path), -1)
HOOK(DIR *, opendir, (const char *path), (path), fails_at(AT_FDCWD, path), NULL)
HOOK(DIR *, fdopendir, (int fd), (fd), fails_of(fd), NULL)

/* The file is closed all the same, as on a network disk that could not write the last of it. */
int close(int fd) {
  static int (*next)(int);
  if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "close");
  int flags = root_length ? fcntl(fd, F_GETFL) : -1;
  int failed = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fails_of(fd);
  int done = next(fd);
  if (!failed) return done;
  errno = code;
  return -1;
}
