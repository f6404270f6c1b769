#ifndef LAB_TOOLS_H
#define LAB_TOOLS_H

#include <stdint.h>
#include <stddef.h>

int command_server(int argc, char **argv);
int counter(int argc, char **argv);
int pattern(int argc, char **argv);
int ticker(int argc, char **argv);
int fswriter(int argc, char **argv);
int dm_linear(int argc, char **argv);

/* Goes on in the background; the caller's process ends at once. */
void run_in_background(void);

/* Replaces the file at path with a line, so that a reader sees the old one or the new one. */
void write_status(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the file at path; the exit status of a `… status` command. */
int print_status(const char *path);

uint64_t now_ns(void);

/* xorshift64*: reproducible contents, not secrets. The state must not be 0. */
uint64_t next_random(uint64_t *state);

/* FNV-1a over 64-bit words: enough to see a stale or torn block. */
uint64_t checksum_words(const uint64_t *words, size_t count);

#endif
