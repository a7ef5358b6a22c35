/* What the load generators share: the clock, percentiles, and one way to give up. */
#ifndef LOAD_H
#define LOAD_H
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline double now(void) { return seconds_of(CLOCK_MONOTONIC); }

static inline int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values; of none the answer is 0. */
static inline double percentile(double *values, size_t count, double share) {
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare_doubles);
    size_t place = (size_t)((double)count * share);
    return values[place < count ? place : count - 1];
}

static inline void die(const char *what) {
    perror(what);
    exit(3);
}
#endif
