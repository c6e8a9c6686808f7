/* Loaded before the C library: while the file named by CHAOS_IO_FLAG exists, every third write or sync of a database
 * file fails as a broken disk does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_uint calls;

static int breaks(int fd) {
  const char *flag = getenv("CHAOS_IO_FLAG");
  char link[64], path[1024];
  if (!flag || access(flag, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (!strstr(path, ".db")) return 0;
  if (atomic_fetch_add(&calls, 1) % 3 != 2) return 0;
  errno = EIO;
  return 1;
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  NEXT(pwrite);
  return breaks(fd) ? -1 : next(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  NEXT(pwrite64);
  return breaks(fd) ? -1 : next(fd, bytes, count, offset);
}

int fsync(int fd) {
  NEXT(fsync);
  return breaks(fd) ? -1 : next(fd);
}

int fdatasync(int fd) {
  NEXT(fdatasync);
  return breaks(fd) ? -1 : next(fd);
}
