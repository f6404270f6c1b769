/* counter: counts up every 100 ms in /run/counter, from boot on. A guest that was reset or cloned shows here. */
#include <unistd.h>

#include "tools.h"

int counter(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (uint64_t count = 1;; count++) {
        write_status("/run/counter", "%llu\n", (unsigned long long)count);
        usleep(100000);
    }
}
