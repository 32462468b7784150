/* Makes every sync take 2 ms longer, for programs started with LD_PRELOAD: a tracer that does it costs what is measured. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int late(int result) {
    struct timespec wait = {0, 2000000};
    nanosleep(&wait, 0);
    return result;
}

int fdatasync(int file) {
    return late(((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file));
}

int fsync(int file) {
    return late(((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file));
}
