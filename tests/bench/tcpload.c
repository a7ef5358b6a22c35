/* tcpload ADDRESS PORT CLIENTS ROUNDS COPY FIRST_SOURCE hello HELLO_PORT
 * tcpload ADDRESS PORT CLIENTS ROUNDS COPY FIRST_SOURCE http PATH
 * CLIENTS connections at once, connection i from FIRST_SOURCE + i, each reads to the end; ROUNDS times. Each must bring
 * exactly COPY; the length and the first 64 bytes of each piece that is read are compared with it. With `hello` each Pi
 * first asks on HELLO_PORT to be installed (version 2 of the protocol, Pi i has the MAC b8:27:eb:XX:XX:XX with i in its
 * last three bytes), until it is told to format; with `http` it sends a GET and passes over the header of the answer.
 * What is timed begins with the connections to PORT. Prints one JSON line; exits with 1 if anything was wrong. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAMPLE = 64, PIECE = 1 << 18, STALLED_MS = 20000 };

struct connection {
    int channel, control; /* control: of the hello session, -1 without one */
    size_t taken;
    int in_header;
    unsigned matched; /* bytes of the blank line that ends a header */
    double began;
};

static struct sockaddr_in server;
static uint32_t first_source;
static const unsigned char *copy;
static size_t size;

static int connect_from(uint32_t number, int port) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(first_source + number)}, to = server;
    to.sin_port = htons((uint16_t)port);
    int channel = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(channel, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    if (channel < 0 || bind(channel, (struct sockaddr *)&from, sizeof from))
        die("bind");
    if (connect(channel, (struct sockaddr *)&to, sizeof to))
        die("connect");
    return channel;
}

static void write_text(int channel, const char *text) {
    if (write(channel, text, strlen(text)) != (ssize_t)strlen(text))
        die("write");
}

/* Reads a command, up to the line EOM; `begin` is how it must begin. */
static void expect(int channel, const char *begin) {
    char text[8192] = "";
    size_t length = 0;
    while (length < 5 || strcmp(text + length - 5, "\nEOM\n")) {
        ssize_t got = read(channel, text + length, sizeof text - 1 - length);
        if (got <= 0)
            die("the hello session ended");
        length += (size_t)got;
        text[length] = 0;
    }
    if (strncmp(text, begin, strlen(begin))) {
        fprintf(stderr, "told: %sexpected: %s\n", text, begin);
        exit(1);
    }
}

static int begin_install(uint32_t number, int port) {
    char text[200];
    int control = connect_from(number, port);
    snprintf(text, sizeof text, "HELLO 2 mac=b8:27:eb:%02x:%02x:%02x serial=%08x model=load sd=8000000000\n",
             number >> 16 & 255, number >> 8 & 255, number & 255, number);
    write_text(control, text);
    expect(control, "date ");
    write_text(control, "SET_DATE\nIS_UNINSTALLED card=blank\n");
    expect(control, "format ");
    write_text(control, "RECEIVED_FORMAT\nFORMATTING\nFORMATTED\n");
    return control;
}

/* Passes over an HTTP header; returns how many bytes of the piece belong to it. */
static size_t pass_header(struct connection *c, const unsigned char *piece, size_t length) {
    static const char end[] = "\r\n\r\n";
    size_t i = 0;
    while (i < length && c->in_header) {
        c->matched = piece[i] == end[c->matched] ? c->matched + 1 : piece[i] == '\r';
        i++;
        c->in_header = c->matched < 4;
    }
    return i;
}

/* 1: it goes on; 0: it ended right; -1: it is wrong. */
static int take(struct connection *c) {
    static unsigned char piece[PIECE];
    ssize_t got = read(c->channel, piece, sizeof piece);
    if (got < 0)
        return errno == EAGAIN ? 1 : -1;
    if (got == 0)
        return c->taken == size ? 0 : -1;
    size_t skipped = c->in_header ? pass_header(c, piece, (size_t)got) : 0, length = (size_t)got - skipped;
    if (c->taken + length > size || memcmp(piece + skipped, copy + c->taken, length < SAMPLE ? length : SAMPLE))
        return -1;
    c->taken += length;
    return 1;
}

static void map_copy(const char *path) {
    struct stat found;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &found))
        die(path);
    size = (size_t)found.st_size;
    copy = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (copy == MAP_FAILED)
        die(path);
    close(file);
}

int main(int count, char **words) {
    if (count != 9) {
        fprintf(stderr, "usage: tcpload ADDRESS PORT CLIENTS ROUNDS COPY FIRST_SOURCE hello|http HELLO_PORT|PATH\n");
        return 2;
    }
    server.sin_family = AF_INET;
    inet_pton(AF_INET, words[1], &server.sin_addr);
    int port = atoi(words[2]), clients = atoi(words[3]), rounds = atoi(words[4]), hello = !strcmp(words[7], "hello");
    map_copy(words[5]);
    first_source = ntohl(inet_addr(words[6]));
    char get[300];
    snprintf(get, sizeof get, "GET %s HTTP/1.0\r\n\r\n", words[8]);

    struct connection *all = calloc((size_t)clients, sizeof *all);
    double *times = calloc((size_t)clients * (size_t)rounds, sizeof *times), took = 0;
    size_t ok = 0, wrong = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < clients; i++)
            all[i] = (struct connection){.control = hello ? begin_install((uint32_t)i, atoi(words[8])) : -1};
        int poller = epoll_create1(0), open_ones = clients;
        double began = now();
        for (int i = 0; i < clients; i++) {
            struct connection *c = &all[i];
            c->began = now();
            c->channel = connect_from((uint32_t)i, port);
            c->in_header = !hello;
            if (!hello)
                write_text(c->channel, get);
            fcntl(c->channel, F_SETFL, O_NONBLOCK);
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
            epoll_ctl(poller, EPOLL_CTL_ADD, c->channel, &event);
        }
        while (open_ones > 0) {
            struct epoll_event events[64];
            int ready = epoll_wait(poller, events, 64, STALLED_MS);
            if (ready <= 0) {
                fprintf(stderr, "nothing comes any more\n");
                return 4;
            }
            for (int i = 0; i < ready; i++) {
                struct connection *c = &all[events[i].data.u32];
                int state = take(c);
                if (state > 0)
                    continue;
                if (state == 0)
                    times[ok++] = now() - c->began;
                wrong += state < 0;
                close(c->channel);
                open_ones--;
            }
        }
        took += now() - began;
        close(poller);
        for (int i = 0; i < clients && hello; i++)
            close(all[i].control);
    }
    printf("{\"ok\": %zu, \"wrong\": %zu, \"seconds\": %.3f, \"mb_per_s\": %.0f, \"p50_ms\": %.1f, \"p99_ms\": %.1f}\n", ok, wrong,
           took, (double)ok * (double)size / took / 1e6, percentile(times, ok, .5) * 1e3, percentile(times, ok, .99) * 1e3);
    return wrong > 0 || ok == 0;
}
