/* A disk that forgets what was not synced: LD_PRELOAD for the broker under test.
 *
 * The broker works on real files. Each change below $POWER_CUT_DIR is also written, in its order, to
 * the journal $POWER_CUT_JOURNAL, and so is each fsync once it is done, with the changes that it covers.
 * After SIGKILL, disk_image.py makes from the journal what the disk would hold: all that a recorded
 * sync covers, and of the rest what chance wants.
 *
 *   POWER_CUT_DIR        the data directory, an absolute path without links
 *   POWER_CUT_JOURNAL    appended to
 *   POWER_CUT_DELAY_US   a sync takes at least so long
 *   POWER_CUT_FAIL_SYNC  n: the nth sync of a file below the directory gives EIO, once
 *   POWER_CUT_LIE_SYNC   1: syncs do nothing and say that they did, so that the tests can be tested
 *
 * Why a caller cannot get ahead of the journal: a change is recorded before its hook returns, with its
 * lock held, so the journal has the order in which changes happened. A sync covers what was recorded
 * when it began, and is itself recorded before it returns. What SIGKILL cuts off in between was never
 * reported to the caller.
 *
 * The hooks use raw system calls and no memory of the heap, so they can run before main, within malloc,
 * and in any thread. What could write past them (shared mappings, copy_file_range, sendfile, splice,
 * io_uring) is refused with an error for which callers have a way around, or ends the process.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Kinds of records; disk_image.py has the same. */
enum {
    START = 1,     /* -: the shim is loaded */
    WRITE = 2,     /* offset, data */
    TRUNCATE = 3,  /* a: new size */
    ALLOCATE = 4,  /* a: offset, b: length; the size grows */
    ZERO = 5,      /* a: offset, b: length; the size stays */
    SYNC = 6,      /* a: covers the records of the file before this number */
    SYNC_FAILED = 7,
    CREATE = 8,    /* name */
    RENAME = 9,    /* name, 0, name */
    UNLINK = 10,   /* name */
    LINK = 11,     /* name of the new link */
    SYNC_DIR = 12, /* a: as with SYNC */
    SYNC_ALL = 13, /* a: as with SYNC, of everything */
};

struct record {
    uint32_t magic;
    uint32_t kind;
    uint64_t inode;
    uint64_t a, b;
    uint64_t length; /* of what follows */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX];
static size_t dir_length;
static dev_t dir_device;
static ino_t dir_inode;
static int journal = -1;
static long delay_us, fail_sync, lie_sync;
static uint64_t records, syncs;

static void die(const char *what)
{
    char text[256];
    int length = snprintf(text, sizeof text, "power_cut: %s\n", what);
    syscall(SYS_write, 2, text, length);
    abort();
}

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void start(void);

/* The parts are one write, so a record is there whole or at the torn end of the journal. */
static void append(uint32_t kind, uint64_t inode, uint64_t a, uint64_t b, const struct iovec *parts,
                   int count, uint64_t length)
{
    struct record record = {0x54554350, kind, inode, a, b, length};
    struct iovec all[17] = {{&record, sizeof record}};
    uint64_t left = length;
    int used = 1;
    for (int i = 0; i < count && left; i++) {
        if (used == 17)
            die("too many parts of a write");
        all[used].iov_base = parts[i].iov_base;
        all[used].iov_len = parts[i].iov_len < left ? parts[i].iov_len : left;
        left -= all[used++].iov_len;
    }
    if (syscall(SYS_writev, journal, all, used) != (long)(sizeof record + length))
        die("cannot write the journal");
    records++;
}

static void append_name(uint32_t kind, uint64_t inode, const char *name, const char *second)
{
    struct iovec parts[3] = {{(char *)name, strlen(name)}, {"", 1}, {(char *)second, 0}};
    uint64_t length = parts[0].iov_len;
    if (second) {
        parts[2].iov_len = strlen(second);
        length += 1 + parts[2].iov_len;
    }
    append(kind, inode, 0, 0, parts, second ? 3 : 1, length);
}

static void start(void)
{
    const char *wanted = getenv("POWER_CUT_DIR"), *path = getenv("POWER_CUT_JOURNAL");
    struct stat status;
    if (!wanted || !path)
        return;
    if (strlen(wanted) >= sizeof dir || stat(wanted, &status) || !S_ISDIR(status.st_mode))
        die("POWER_CUT_DIR is no directory");
    strcpy(dir, wanted);
    dir_length = strlen(dir);
    dir_device = status.st_dev;
    dir_inode = status.st_ino;
    delay_us = number("POWER_CUT_DELAY_US");
    fail_sync = number("POWER_CUT_FAIL_SYNC");
    lie_sync = number("POWER_CUT_LIE_SYNC");
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    /* Far from the numbers that a program may expect to get. */
    journal = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    if (fd < 0 || journal < 0)
        die("cannot open POWER_CUT_JOURNAL");
    syscall(SYS_close, fd);
    append(START, 0, 0, 0, NULL, 0, 0);
}

/* The directory is flat and on one device of which nothing else is written, but to be sure the path of
 * the descriptor decides. */
static int is_ours(int fd, struct stat *status)
{
    char link[64], path[PATH_MAX];
    if (journal < 0 || fstat(fd, status) || status->st_dev != dir_device)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (S_ISDIR(status->st_mode))
        return status->st_ino == dir_inode;
    /* An unlinked file has " (deleted)" behind its name and matters no more, but does no harm. */
    return S_ISREG(status->st_mode) && !strncmp(path, dir, dir_length) && path[dir_length] == '/';
}

/* The name below the directory, or NULL. */
static const char *name_below(int at, const char *path, char buffer[PATH_MAX])
{
    if (journal < 0)
        return NULL;
    if (path[0] != '/') {
        char link[64];
        ssize_t length = 0;
        if (at == AT_FDCWD) {
            if (!getcwd(buffer, PATH_MAX))
                return NULL;
            length = strlen(buffer);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
        }
        if (length < 0 || length + strlen(path) + 2 > PATH_MAX)
            return NULL;
        buffer[length] = '/';
        strcpy(buffer + length + 1, path);
    } else {
        if (strlen(path) >= PATH_MAX)
            return NULL;
        strcpy(buffer, path);
    }
    if (strncmp(buffer, dir, dir_length) || buffer[dir_length] != '/')
        return NULL;
    const char *name = buffer + dir_length + 1;
    while (*name == '/' || (name[0] == '.' && name[1] == '/'))
        name++;
    if (!*name || strcmp(name, ".") == 0)
        return NULL;
    if (strchr(name, '/'))
        die("the directory is not flat");
    return name;
}

/* --- files */

static int do_open(int at, const char *path, int flags, mode_t mode)
{
    char buffer[PATH_MAX];
    struct stat status;
    const char *name = NULL;
    if (journal >= 0 && (flags & (O_CREAT | O_TRUNC)))
        name = name_below(at, path, buffer);
    if (!name)
        return syscall(SYS_openat, at, path, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE || flags & (O_SYNC | O_DSYNC))
        die("O_TMPFILE, O_SYNC and O_DSYNC are not known here");
    pthread_mutex_lock(&lock);
    int existed = fstatat(at, path, &status, 0) == 0;
    int fd = syscall(SYS_openat, at, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fstat(fd, &status) == 0) {
        if (!existed)
            append_name(CREATE, status.st_ino, name, NULL);
        else if (flags & O_TRUNC)
            append(TRUNCATE, status.st_ino, 0, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE                                  \
    mode_t mode = 0;                          \
    if (flags & (O_CREAT | O_TMPFILE)) {      \
        va_list list;                         \
        va_start(list, flags);                \
        mode = va_arg(list, mode_t);          \
        va_end(list);                         \
    }

int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int creat(const char *path, mode_t mode)
{
    return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* `offset` -1: at the position of the descriptor, which then is behind what was written. */
static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct stat status;
    ssize_t written;
    int ours = is_ours(fd, &status);
    if (ours)
        pthread_mutex_lock(&lock);
    if (offset < 0)
        written = syscall(SYS_writev, fd, parts, count);
    else
        written = syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L);
    int error = errno;
    if (ours) {
        if (written > 0) {
            int appends = fcntl(fd, F_GETFL) & O_APPEND;
            if (offset >= 0 && appends)
                die("pwrite with O_APPEND is not known here");
            if (offset < 0)
                offset = syscall(SYS_lseek, fd, 0L, SEEK_CUR) - written;
            append(WRITE, status.st_ino, offset, 0, parts, count, written);
        }
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t length)
{
    struct iovec part = {(void *)data, length};
    return do_write(fd, &part, 1, -1);
}
/* At most 16 parts of ours at a time, which is a short write. */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return do_write(fd, parts, count > 16 ? 16 : count, -1);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    struct iovec part = {(void *)data, length};
    return do_write(fd, &part, 1, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, offset);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return do_write(fd, parts, count > 16 ? 16 : count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(fd, parts, count, offset);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    struct stat status;
    if (flags && is_ours(fd, &status))
        die("pwritev2 with flags is not known here");
    return pwritev(fd, parts, count, offset);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    return pwritev2(fd, parts, count, offset, flags);
}

static int do_resize(int fd, uint32_t kind, int mode, off_t a, off_t b)
{
    struct stat status;
    int ours = is_ours(fd, &status);
    if (ours)
        pthread_mutex_lock(&lock);
    long result = kind == TRUNCATE ? syscall(SYS_ftruncate, fd, a) : syscall(SYS_fallocate, fd, mode, a, b);
    int error = errno;
    if (ours) {
        if (result == 0)
            append(kind, status.st_ino, a, b, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int ftruncate(int fd, off_t size) { return do_resize(fd, TRUNCATE, 0, size, 0); }
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct stat status;
    if (mode & FALLOC_FL_PUNCH_HOLE || mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        return do_resize(fd, ZERO, mode, offset, length);
    if (mode == FALLOC_FL_KEEP_SIZE)
        return syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode && is_ours(fd, &status))
        die("this mode of fallocate is not known here");
    return do_resize(fd, ALLOCATE, mode, offset, length);
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length)
{
    int before = errno, result = fallocate(fd, 0, offset, length) ? errno : 0;
    errno = before;
    return result;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }
int truncate(const char *path, off_t size)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = ftruncate(fd, size), error = errno;
    syscall(SYS_close, fd);
    errno = error;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

/* --- syncs */

static void wait_us(long us)
{
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && syscall(SYS_nanosleep, &time, &time) && errno == EINTR)
        ;
}

static int do_sync(int fd, long call)
{
    struct stat status;
    if (!is_ours(fd, &status))
        return syscall(call, fd);
    if (lie_sync)
        return 0;
    pthread_mutex_lock(&lock);
    uint64_t covers = records;
    int fails = !S_ISDIR(status.st_mode) && ++syncs == (uint64_t)fail_sync;
    pthread_mutex_unlock(&lock);
    wait_us(delay_us);
    pthread_mutex_lock(&lock);
    int kind = fails ? SYNC_FAILED : S_ISDIR(status.st_mode) ? SYNC_DIR : SYNC;
    append(kind, status.st_ino, covers, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = fails ? EIO : 0;
    return fails ? -1 : 0;
}

int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
/* It makes nothing durable that can be relied on. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags)
{
    return syscall(SYS_sync_file_range, fd, offset, length, flags);
}
int syncfs(int fd)
{
    struct stat status;
    if (journal < 0 || fstat(fd, &status) || status.st_dev != dir_device)
        return syscall(SYS_syncfs, fd);
    pthread_mutex_lock(&lock);
    if (!lie_sync)
        append(SYNC_ALL, 0, records, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}
void sync(void)
{
    pthread_mutex_lock(&lock);
    if (journal >= 0 && !lie_sync)
        append(SYNC_ALL, 0, records, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
}

/* --- names */

static int do_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    char first[PATH_MAX], second[PATH_MAX];
    const char *old = name_below(from_at, from, first), *new = name_below(to_at, to, second);
    if (!old && !new)
        return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!old || !new || flags & ~RENAME_NOREPLACE)
        die("a rename into or out of the directory, or with flags");
    pthread_mutex_lock(&lock);
    long result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    int error = errno;
    if (result == 0)
        append_name(RENAME, 0, old, new);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return do_rename(from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    return do_rename(from_at, from, to_at, to, flags);
}

int unlinkat(int at, const char *path, int flags)
{
    char buffer[PATH_MAX];
    const char *name = name_below(at, path, buffer);
    if (!name)
        return syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    long result = syscall(SYS_unlinkat, at, path, flags);
    int error = errno;
    if (result == 0)
        append_name(UNLINK, 0, name, NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int remove(const char *path)
{
    int result = unlinkat(AT_FDCWD, path, 0);
    return result && errno == EISDIR ? (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) : result;
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    char buffer[PATH_MAX];
    struct stat status;
    const char *name = name_below(to_at, to, buffer);
    if (!name)
        return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    long result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    int error = errno;
    if (result == 0 && fstatat(to_at, to, &status, 0) == 0)
        append_name(LINK, status.st_ino, name, NULL);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* --- what would go past us */

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags)
{
    struct stat status;
    if (is_ours(out, &status)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t length)
{
    struct stat status;
    if (is_ours(out, &status)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, offset, length);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t length)
{
    return sendfile(out, in, offset, length);
}
ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags)
{
    struct stat status;
    if (is_ours(out, &status)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_splice, in, in_at, out, out_at, length, flags);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    struct stat status;
    if (fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && is_ours(fd, &status))
        die("a shared mapping of a file in the directory");
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return mmap(address, length, protection, flags, fd, offset);
}
