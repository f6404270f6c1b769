/*
 * ticker start | status | stop: wakes up every millisecond and records the longest time between two wake-ups, by the
 * guest's monotonic clock: the pause that a program in the guest can notice. That clock stands still while QEMU has the
 * guest stopped, so the downtime of a switch-over does not show; what makes the guest wait while it runs does.
 * `start` also begins anew.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools.h"

static const char status_path[] = "/run/ticker";

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static void stop_running(void)
{
    FILE *file = fopen("/run/ticker.pid", "r");
    int pid;
    if (file && fscanf(file, "%d", &pid) == 1)
        kill(pid, SIGTERM);
    if (file)
        fclose(file);
    unlink("/run/ticker.pid");
}

int ticker(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "status") == 0)
        return print_status(status_path);
    if (strcmp(verb, "stop") == 0) {
        stop_running();
        return 0;
    }
    if (strcmp(verb, "start") != 0) {
        fputs("usage: ticker start|status|stop\n", stderr);
        return 2;
    }
    stop_running();
    run_in_background();
    signal(SIGTERM, stop);
    write_status("/run/ticker.pid", "%d\n", getpid());
    uint64_t longest = 0, ticks = 0, before = now_ns(), reported = 0;
    while (!stopped) {
        usleep(1000);
        uint64_t now = now_ns();
        uint64_t gap = now - before;
        before = now;
        ticks++;
        if (gap > longest)
            longest = gap;
        if (now - reported > 100000000 || gap == longest) {
            reported = now;
            write_status(status_path, "ticks %llu longest_us %llu\n", (unsigned long long)ticks,
                         (unsigned long long)longest / 1000);
        }
    }
    return 0;
}
