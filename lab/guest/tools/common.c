#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tools.h"

void run_in_background(void)
{
    if (fork() > 0)
        _exit(0);
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

void write_status(const char *path, const char *format, ...)
{
    char temporary[128];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "w");
    if (!file)
        return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    if (fclose(file) == 0)
        rename(temporary, path);
}

int print_status(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        puts("not running");
        return 1;
    }
    for (int c; (c = getc(file)) != EOF;)
        putchar(c);
    fclose(file);
    return 0;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DULL;
}

uint64_t checksum_words(const uint64_t *words, size_t count)
{
    uint64_t sum = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ words[i]) * 0x100000001b3ULL;
    return sum;
}
