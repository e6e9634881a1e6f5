/* A load generator that knows which request an answer belongs to.
 *
 * Each connection sends its own list of requests, one at a time, and every answer of status 200 is compared byte for
 * byte with what is due there. Closed loop: a connection sends its next request as soon as it has its answer. Open loop:
 * arrivals are a Poisson process, drawn ahead from a seed; latency counts from the arrival, so that time spent waiting
 * for an idle connection counts too (no coordinated omission).
 *
 *   cc -O2 -std=c11 -pthread load.c -o load -lm
 *   load --port P [--threads T] [--limit S] (--closed S | --open S:RATE[,S:RATE...] [--seed N] [--deadline S] [--patience S]) PLAN
 *
 * PLAN, numbers unsigned 64-bit little-endian: "PFLOAD1\n"; the number of requests; for each, the sizes of the request
 * and of the body that is due (2^64 - 1: none is known); the number of connections; for each, the length of its list and the list
 * (indices of requests); then the bytes of each request and its body, in order. One JSON object comes out.
 *
 * What is counted, for each phase (a request belongs to the phase of its arrival):
 *   ok          answers of status 200 with the right body          wrong      of status 200 with another body
 *   refused     other statuses, by number                           unadvised  those of 429 and 503 without Retry-After
 *   resets      the connection was reset                            early      it was closed before its answer was whole
 *   hangs       no whole answer within --limit                      malformed  bytes that are no HTTP answer, or too many
 *   unreached   connections that could not be opened                given_up   waited longer than --patience for a connection
 *   late        of ok, those after --deadline                       unsent     waited for a connection when time was over
 *   closings    connections closed as HTTP allows                    last       when the last right answer came, in seconds
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_CAP = 16 << 10, READ_SIZE = 256 << 10, EVENTS = 256, STATUSES = 600, PHASES = 64 };
#define TICK 0.05 /* seconds between looks for hangs and for connections to open again */

struct request {
  const char *bytes, *due;
  size_t size, due_size;
};

struct floats {
  float *values;
  size_t count, room;
};

struct tally {
  uint64_t arrivals, ok, wrong, resets, early, hangs, malformed, unreached, given_up, unsent,
      late, closings, unadvised;
  uint64_t statuses[STATUSES];
  double last; /* when the last right answer came */
  struct floats from_arrival, from_send, others; /* seconds */
};

struct phase {
  double begins, ends, rate; /* seconds from the start; arrivals a second */
};

struct connection {
  int fd;
  enum { DOWN, CONNECTING, IDLE, BUSY } state;
  const uint64_t *list;
  size_t length, next;
  const struct request *now;
  size_t sent;
  double arrived, began; /* the request's arrival; when it was sent, or when a connection was tried */
  int phase;
  enum { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER } part;
  int status;
  bool closes, advised, differs;
  uint64_t left; /* of the body or the chunk */
  size_t matched;
  size_t held; /* bytes of an unfinished line or head */
  char *holding;
};

struct worker {
  pthread_t thread;
  int poll;
  struct connection *connections;
  size_t count;
  size_t *idle, idle_first, idle_count; /* a ring: the connection that has been idle longest is next */
  double *arrivals;
  size_t arrival_count, next_arrival, due_phase;
  struct tally tallies[PHASES];
  char *buffer;
};

static struct {
  struct sockaddr_in address;
  double limit, deadline, patience, ends;
  bool open;
  struct phase phases[PHASES];
  int phase_count;
  struct request *requests;
  uint64_t request_count;
  double start;
} run = {.limit = 10, .deadline = INFINITY, .patience = INFINITY};

static void fail(const char *message) {
  fprintf(stderr, "load: %s\n", message);
  exit(2);
}

static void *checked(void *memory) {
  if (memory == NULL) fail("out of memory");
  return memory;
}

static double now(void) { /* seconds from the start */
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec - run.start;
}

static void push(struct floats *list, double value) {
  if (list->count == list->room) {
    list->room = list->room ? 2 * list->room : 1 << 12;
    list->values = checked(realloc(list->values, list->room * sizeof *list->values));
  }
  list->values[list->count++] = (float)value;
}

/* ---- connections ---- */

static void set_idle(struct worker *w, struct connection *c) {
  c->state = IDLE;
  w->idle[(w->idle_first + w->idle_count++) % w->count] = (size_t)(c - w->connections);
}

static void watch(struct worker *w, struct connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(w->poll, operation, c->fd, &event) != 0) fail("epoll_ctl failed");
}

static void send_more(struct worker *w, struct connection *c) {
  bool waited = c->sent > 0;
  while (c->sent < c->now->size) {
    ssize_t n = send(c->fd, c->now->bytes + c->sent, c->now->size - c->sent, MSG_NOSIGNAL);
    if (n > 0) {
      c->sent += (size_t)n;
    } else if (errno == EAGAIN) {
      if (!waited) watch(w, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      return;
    } else if (errno != EINTR) {
      break; /* what was answered before the end can still be read; the reader meets the end itself */
    }
  }
  if (waited) watch(w, c, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin(struct worker *w, struct connection *c, double arrived, int phase) {
  c->now = &run.requests[c->list[c->next]];
  c->next = (c->next + 1) % c->length;
  c->state = BUSY;
  c->sent = 0;
  c->arrived = arrived;
  c->began = now();
  c->phase = phase;
  c->part = HEAD;
  w->tallies[phase].arrivals++;
  send_more(w, c);
}

static void ready(struct worker *w, struct connection *c) { /* the connection may take a request */
  if (run.open) {
    set_idle(w, c);
  } else if (now() < run.ends) {
    begin(w, c, now(), 0);
  } else {
    c->state = IDLE;
  }
}

static void drop(struct worker *w, struct connection *c) {
  if (c->state == IDLE && run.open) { /* take it out of the ring */
    size_t kept = 0;
    for (size_t i = 0; i < w->idle_count; i++) {
      size_t other = w->idle[(w->idle_first + i) % w->count];
      if (&w->connections[other] != c) w->idle[(w->idle_first + kept++) % w->count] = other;
    }
    w->idle_count = kept;
  }
  close(c->fd);
  c->fd = -1;
  c->state = DOWN;
  c->held = 0;
}

static void dial(struct worker *w, struct connection *c) {
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) fail("no socket is left: raise the limit of open files");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c->began = now();
  c->state = CONNECTING;
  if (connect(c->fd, (struct sockaddr *)&run.address, sizeof run.address) == 0 || errno == EINPROGRESS) {
    watch(w, c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
  } else {
    w->tallies[w->due_phase].unreached++;
    drop(w, c);
  }
}

static void connected(struct worker *w, struct connection *c) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
    w->tallies[w->due_phase].unreached++;
    drop(w, c); /* tried again at the next tick */
    return;
  }
  watch(w, c, EPOLL_CTL_MOD, EPOLLIN);
  ready(w, c);
}

/* ---- answers ---- */

static void renew(struct worker *w, struct connection *c) {
  drop(w, c);
  if (now() < run.ends) dial(w, c);
}

static void lose(struct worker *w, struct connection *c, uint64_t *counter) {
  ++*counter;
  renew(w, c);
}

static void finish(struct worker *w, struct connection *c) {
  struct tally *t = &w->tallies[c->phase];
  double at = now(), latency = at - c->arrived;
  if (c->status == 200) {
    if (c->differs || (c->now->due != NULL && c->matched != c->now->due_size)) {
      t->wrong++;
    } else {
      t->ok++;
      t->last = at;
      if (latency > run.deadline) t->late++;
    }
    push(&t->from_arrival, latency);
    push(&t->from_send, at - c->began);
  } else {
    t->statuses[c->status]++;
    if ((c->status == 429 || c->status == 503) && !c->advised) t->unadvised++;
    push(&t->others, latency);
  }
  if (c->closes || c->sent < c->now->size) { /* answered before the request was whole: it cannot be used again */
    t->closings++;
    renew(w, c);
  } else {
    ready(w, c);
  }
}

static const char *field(const char *line, size_t size, const char *name, size_t *length) {
  size_t n = strlen(name);
  if (size <= n || line[n] != ':' || strncasecmp(line, name, n) != 0) return NULL;
  const char *value = line + n + 1, *end = line + size;
  while (value < end && (*value == ' ' || *value == '\t')) value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
  *length = (size_t)(end - value);
  return value;
}

static bool is(const char *value, size_t length, const char *word) {
  return length == strlen(word) && strncasecmp(value, word, length) == 0;
}

static bool number(const char *text, size_t length, int base, uint64_t *value) {
  char digits[20], *end;
  if (length == 0 || length >= sizeof digits || text[0] == '-' || text[0] == '+' || text[0] == ' ') return false;
  memcpy(digits, text, length);
  digits[length] = 0;
  *value = strtoull(digits, &end, base);
  return *end == 0;
}

static bool read_head(struct connection *c, const char *head, size_t size) {
  uint64_t status;
  if (size < 12 || memcmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ' || !number(head + 9, 3, 10, &status)) return false;
  if (status < 200 || status >= STATUSES) return false;
  c->status = (int)status;
  c->closes = head[7] == '0';
  c->advised = c->differs = false;
  c->matched = 0;
  bool sized = false, chunked = false;
  const char *line = head, *end = head + size;
  while ((line = memmem(line, (size_t)(end - line), "\r\n", 2)) != NULL && (line += 2) < end) {
    const char *stop = memmem(line, (size_t)(end - line), "\r\n", 2), *value;
    size_t length, n = (size_t)((stop ? stop : end) - line);
    if ((value = field(line, n, "content-length", &length)) != NULL) {
      if (sized || !number(value, length, 10, &c->left)) return false;
      sized = true;
    } else if ((value = field(line, n, "transfer-encoding", &length)) != NULL) {
      if (!is(value, length, "chunked")) return false;
      chunked = true;
    } else if ((value = field(line, n, "connection", &length)) != NULL) {
      if (is(value, length, "close")) c->closes = true;
    } else if (field(line, n, "retry-after", &length) != NULL) {
      c->advised = length > 0;
    }
  }
  c->part = chunked ? CHUNK_SIZE : BODY;
  return sized != chunked; /* a body that ends with the connection cannot be told from one that was cut */
}

static void compare(struct connection *c, const char *data, size_t size) {
  if (c->status == 200 && c->now->due != NULL && !c->differs) {
    if (size > c->now->due_size - c->matched || memcmp(c->now->due + c->matched, data, size) != 0) c->differs = true;
  }
  c->matched += size;
}

/* Reads what has come; returns the bytes used, or -1 where this is no HTTP. `whole` says that the answer is whole. */
static ssize_t parse(struct connection *c, const char *data, size_t size, bool *whole) {
  size_t at = 0;
  *whole = false;
  while (at < size) {
    const char *here = data + at, *line;
    size_t left = size - at;
    if (c->part == BODY || c->part == CHUNK) {
      size_t take = left < c->left ? left : (size_t)c->left;
      compare(c, here, take);
      at += take;
      c->left -= take;
      if (c->left > 0) break;
      *whole = c->part == BODY;
      c->part = CHUNK_END;
    } else if (c->part == HEAD) {
      if ((line = memmem(here, left, "\r\n\r\n", 4)) == NULL) break;
      if (!read_head(c, here, (size_t)(line - here))) return -1;
      at += (size_t)(line - here) + 4;
      *whole = c->part == BODY && c->left == 0;
    } else {
      if ((line = memmem(here, left, "\r\n", 2)) == NULL) break;
      size_t n = (size_t)(line - here);
      at += n + 2;
      if (c->part == CHUNK_END) {
        if (n != 0) return -1;
        c->part = CHUNK_SIZE;
      } else if (c->part == CHUNK_SIZE) {
        const char *extension = memchr(here, ';', n);
        if (!number(here, extension ? (size_t)(extension - here) : n, 16, &c->left)) return -1;
        c->part = c->left ? CHUNK : TRAILER;
      } else {
        *whole = n == 0; /* the trailer's end */
      }
    }
    if (*whole) break;
  }
  return (ssize_t)at;
}

static void receive(struct worker *w, struct connection *c) {
  struct tally *t = &w->tallies[c->state == BUSY ? (size_t)c->phase : w->due_phase];
  memcpy(w->buffer, c->holding, c->held);
  ssize_t n = recv(c->fd, w->buffer + c->held, READ_SIZE, 0);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) lose(w, c, &t->resets);
    return;
  }
  if (n == 0) { /* an idle connection may be closed; one that owes an answer may not */
    lose(w, c, c->state == BUSY ? &t->early : &t->closings);
    return;
  }
  size_t size = c->held + (size_t)n;
  bool whole = false;
  ssize_t used = c->state == BUSY ? parse(c, w->buffer, size, &whole) : -1;
  size_t rest = used < 0 ? 0 : size - (size_t)used;
  if (used < 0 || rest > HEAD_CAP || (whole && rest > 0)) {
    lose(w, c, &t->malformed);
    return;
  }
  memcpy(c->holding, w->buffer + used, c->held = rest);
  if (whole) finish(w, c);
}

/* ---- time ---- */

static void tick(struct worker *w) {
  double at = now();
  for (size_t i = 0; i < w->count; i++) {
    struct connection *c = &w->connections[i];
    if (c->state == DOWN && at < run.ends) {
      dial(w, c);
    } else if (c->state == CONNECTING && at - c->began > run.limit) {
      lose(w, c, &w->tallies[w->due_phase].unreached);
    } else if (c->state == BUSY && at - c->began > run.limit) {
      lose(w, c, &w->tallies[c->phase].hangs);
    }
  }
}

static size_t phase_of(const struct worker *w, double arrival) {
  size_t phase = w->due_phase;
  while (arrival >= run.phases[phase].ends && phase + 1 < (size_t)run.phase_count) phase++;
  return phase;
}

static void dispatch(struct worker *w) {
  for (double at = now(); w->next_arrival < w->arrival_count; w->next_arrival++) {
    double arrival = w->arrivals[w->next_arrival];
    if (arrival > at) break;
    w->due_phase = phase_of(w, arrival);
    if (at - arrival > run.patience) {
      w->tallies[w->due_phase].arrivals++;
      w->tallies[w->due_phase].given_up++;
    } else if (w->idle_count > 0) {
      struct connection *c = &w->connections[w->idle[w->idle_first]];
      w->idle_first = (w->idle_first + 1) % w->count;
      w->idle_count--;
      begin(w, c, arrival, (int)w->due_phase);
    } else {
      break;
    }
  }
}

static bool busy(const struct worker *w) {
  for (size_t i = 0; i < w->count; i++)
    if (w->connections[i].state == BUSY) return true;
  return false;
}

static void *work(void *argument) {
  struct worker *w = argument;
  struct epoll_event events[EVENTS];
  double next_tick = now() + TICK;
  prctl(PR_SET_TIMERSLACK, 1UL); /* arrivals are microseconds apart */
  for (;;) {
    double at = now();
    if (at >= run.ends && !busy(w)) break;
    if (run.open && at < run.ends) dispatch(w);
    if (at >= next_tick) {
      tick(w);
      next_tick = at + TICK;
    }
    double until = next_tick;
    if (run.open && w->idle_count > 0 && w->next_arrival < w->arrival_count && w->arrivals[w->next_arrival] < until)
      until = w->arrivals[w->next_arrival];
    if (at < run.ends && run.ends < until) until = run.ends;
    double wait = until - now();
    if (wait > 0) { /* epoll_wait itself counts in milliseconds */
      struct pollfd any = {.fd = w->poll, .events = POLLIN};
      struct timespec t = {.tv_sec = 0, .tv_nsec = (long)(wait * 1e9)};
      ppoll(&any, 1, &t, NULL);
    }
    int count = epoll_wait(w->poll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state == CONNECTING) {
        connected(w, c);
        continue;
      }
      int fd = c->fd;
      if (events[i].events & EPOLLOUT) send_more(w, c);
      if (c->fd == fd && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(w, c);
    }
  }
  for (; w->next_arrival < w->arrival_count; w->next_arrival++) {
    w->due_phase = phase_of(w, w->arrivals[w->next_arrival]);
    w->tallies[w->due_phase].arrivals++;
    w->tallies[w->due_phase].unsent++;
  }
  return NULL;
}

/* ---- before and after ---- */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

static void draw_arrivals(struct worker *w, uint64_t seed, double share) {
  size_t room = 0;
  for (int p = 0; p < run.phase_count; p++) {
    double rate = run.phases[p].rate * share, at = run.phases[p].begins;
    while (rate > 0) {
      at -= log1p(-(double)(next_random(&seed) >> 11) * 0x1p-53) / rate;
      if (at >= run.phases[p].ends) break;
      if (w->arrival_count == room) {
        room = room ? 2 * room : 1 << 12;
        w->arrivals = checked(realloc(w->arrivals, room * sizeof *w->arrivals));
      }
      w->arrivals[w->arrival_count++] = at;
    }
  }
}

struct reader {
  const char *at, *end;
};

static const void *take(struct reader *r, uint64_t size) {
  if (size > (uint64_t)(r->end - r->at)) fail("the plan ends too soon");
  const void *here = r->at;
  r->at += size;
  return here;
}

static uint64_t take_number(struct reader *r) {
  uint64_t value;
  memcpy(&value, take(r, sizeof value), sizeof value);
  return value;
}

static struct connection *read_plan(const char *path, size_t *count) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat about;
  if (fd < 0 || fstat(fd, &about) != 0 || about.st_size == 0) fail("the plan cannot be read");
  const char *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (bytes == MAP_FAILED) fail("the plan cannot be read");
  close(fd);
  struct reader r = {bytes, bytes + about.st_size};
  if (memcmp(take(&r, 8), "PFLOAD1\n", 8) != 0) fail("this is not a plan");
  run.request_count = take_number(&r);
  if (run.request_count > (uint64_t)about.st_size) fail("the plan ends too soon");
  run.requests = checked(calloc(run.request_count + 1, sizeof *run.requests));
  for (uint64_t i = 0; i < run.request_count; i++) {
    run.requests[i].size = take_number(&r);
    run.requests[i].due_size = take_number(&r);
  }
  *count = take_number(&r);
  if (*count == 0 || *count > 1 << 16) fail("a plan has 1 to 65536 connections");
  struct connection *connections = checked(calloc(*count, sizeof *connections));
  for (size_t i = 0; i < *count; i++) {
    struct connection *c = &connections[i];
    c->fd = -1;
    c->length = take_number(&r);
    if (c->length == 0 || c->length > (uint64_t)about.st_size) fail("a connection's list has a wrong length");
    uint64_t *list = checked(malloc(c->length * sizeof *list));
    for (size_t j = 0; j < c->length; j++)
      if ((list[j] = take_number(&r)) >= run.request_count) fail("a connection's list names no request");
    c->list = list;
    c->holding = checked(malloc(HEAD_CAP));
  }
  for (uint64_t i = 0; i < run.request_count; i++) {
    struct request *q = &run.requests[i];
    q->bytes = take(&r, q->size);
    q->due = q->due_size == UINT64_MAX ? NULL : take(&r, q->due_size);
  }
  return connections;
}

static void read_phases(char *text) {
  double at = 0;
  for (char *part = strtok(text, ","); part != NULL; part = strtok(NULL, ",")) {
    double seconds, rate;
    if (run.phase_count == PHASES || sscanf(part, "%lf:%lf", &seconds, &rate) != 2 || seconds <= 0 || rate < 0)
      fail("--open takes SECONDS:RATE[,SECONDS:RATE...]");
    run.phases[run.phase_count++] = (struct phase){at, at + seconds, rate};
    at += seconds;
  }
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void print_latency(const char *name, struct floats *list) {
  static const struct {
    const char *name;
    double share;
  } points[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p999", .999}, {"max", 1}};
  qsort(list->values, list->count, sizeof *list->values, ascending);
  printf(", \"%s\": {", name);
  for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
    size_t rank = list->count ? (size_t)ceil(points[i].share * (double)list->count) - 1 : 0;
    printf(list->count ? "%s\"%s\": %.6f" : "%s\"%s\": null", i ? ", " : "", points[i].name,
           list->count ? (double)list->values[rank] : 0.0);
  }
  printf("}");
}

static void join(struct floats *all, const struct floats *part) {
  all->values = checked(realloc(all->values, (all->count + part->count + 1) * sizeof *all->values));
  if (part->count) memcpy(all->values + all->count, part->values, part->count * sizeof *part->values);
  all->count += part->count;
}

static void print_phase(struct worker *workers, int threads, int p) {
  struct tally all = {0};
  for (int i = 0; i < threads; i++) {
    const struct tally *t = &workers[i].tallies[p];
    const uint64_t *from = (const uint64_t *)t;
    uint64_t *to = (uint64_t *)&all; /* every counter comes before `last` */
    for (size_t k = 0; k < offsetof(struct tally, last) / sizeof *from; k++) to[k] += from[k];
    if (t->last > all.last) all.last = t->last;
    join(&all.from_arrival, &t->from_arrival);
    join(&all.from_send, &t->from_send);
    join(&all.others, &t->others);
  }
  printf("%s{\"seconds\": %.6f, \"rate\": %.6g, \"last\": %.6f", p ? ", " : "",
         run.phases[p].ends - run.phases[p].begins, run.phases[p].rate, all.last);
#define COUNT(name) printf(", \"" #name "\": %llu", (unsigned long long)all.name)
  COUNT(arrivals), COUNT(ok), COUNT(late), COUNT(wrong), COUNT(resets), COUNT(early), COUNT(hangs);
  COUNT(malformed), COUNT(unreached), COUNT(given_up), COUNT(unsent), COUNT(closings), COUNT(unadvised);
#undef COUNT
  printf(", \"refused\": {");
  const char *comma = "";
  for (int s = 0; s < STATUSES; s++) {
    if (all.statuses[s] == 0) continue;
    printf("%s\"%d\": %llu", comma, s, (unsigned long long)all.statuses[s]);
    comma = ", ";
  }
  printf("}");
  print_latency("from_arrival", &all.from_arrival);
  print_latency("from_send", &all.from_send);
  print_latency("refused_from_arrival", &all.others);
  printf("}");
}

int main(int count, char **arguments) {
  int threads = 1;
  uint64_t seed = 0;
  const char *plan = NULL;
  run.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  for (int i = 1; i < count; i++) {
    char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : NULL;
    if (name[0] != '-' && plan == NULL) {
      plan = name;
      continue;
    }
    if (value == NULL) fail("an option has no value");
    i++;
    if (!strcmp(name, "--port")) run.address.sin_port = htons((uint16_t)atoi(value));
    else if (!strcmp(name, "--threads")) threads = atoi(value);
    else if (!strcmp(name, "--limit")) run.limit = atof(value);
    else if (!strcmp(name, "--deadline")) run.deadline = atof(value);
    else if (!strcmp(name, "--patience")) run.patience = atof(value);
    else if (!strcmp(name, "--seed")) seed = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--closed")) run.phases[run.phase_count++] = (struct phase){0, atof(value), 0};
    else if (!strcmp(name, "--open")) run.open = true, read_phases(value);
    else fail("an option is not known");
  }
  if (plan == NULL || run.address.sin_port == 0 || run.phase_count == 0) fail("--port, --closed or --open, and a plan");
  if (run.phase_count != 1 && !run.open) fail("either --closed or --open");
  run.ends = run.phases[run.phase_count - 1].ends;
  size_t connection_count;
  struct connection *connections = read_plan(plan, &connection_count);
  if (threads < 1 || (size_t)threads > connection_count) fail("1 thread at least, and a connection for each");

  struct worker *workers = checked(calloc((size_t)threads, sizeof *workers));
  size_t first = 0;
  for (int i = 0; i < threads; i++) {
    struct worker *w = &workers[i];
    w->connections = connections + first;
    w->count = connection_count / (size_t)threads + ((size_t)i < connection_count % (size_t)threads);
    first += w->count;
    w->poll = epoll_create1(EPOLL_CLOEXEC);
    w->idle = checked(calloc(w->count, sizeof *w->idle));
    w->buffer = checked(malloc(HEAD_CAP + READ_SIZE));
    uint64_t own = seed + (uint64_t)i;
    if (run.open) draw_arrivals(w, next_random(&own), (double)w->count / (double)connection_count);
  }
  run.start = now(); /* it was 0: from here on, seconds from now */
  for (int i = 0; i < threads; i++)
    for (size_t j = 0; j < workers[i].count; j++) dial(&workers[i], &workers[i].connections[j]);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) fail("a thread cannot be started");
  for (int i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);

  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"threads\": %d, \"connections\": %zu, \"cpu_seconds\": %.3f, \"phases\": [", threads, connection_count,
         (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
             1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec));
  for (int p = 0; p < run.phase_count; p++) print_phase(workers, threads, p);
  printf("]}\n");
  return 0;
}
