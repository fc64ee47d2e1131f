/* The load generator: opens many event streams, counts what arrives, and when.
 *
 * usage: load ADDRESS PORT PATH CLIENTS
 *
 * It is told what to do on stdin, one command a line, and answers each with one line of JSON on stdout:
 *   open AT_ONCE EVENTS   connect every client, AT_ONCE of them under way at a time; each is to hear EVENTS events
 *   wait SECONDS          read until everyone has heard that many, or the time is up
 *   end SECONDS           read until every connection has ended, or the time is up
 *   close                 close every connection; what a client heard is forgotten, its last event id is not
 * A client that is opened again sends its last event id along, and the ticket, if "ticket":"…" stood in what it read.
 * LOAD_HEADER in the environment is a header of every request, such as "Cookie: sessionid=…".
 *
 * The data of each event holds "at":[NUMBER,NANOSECONDS] once; NANOSECONDS is CLOCK_MONOTONIC when it was published.
 * NUMBER grows from event to event: what comes twice or in another order is counted as disorder.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, SIZE, CHUNK, CHUNK_END, RAW, NOTHING };
enum { SEEK, NUMBER, NANOSECONDS };

#define ID_MAX 80
#define LINE_MAX 100
#define TICKET_MAX 2048
#define SAMPLES_MAX (1u << 22)
#define NUMBERS_MAX (1u << 16)

typedef struct {
  int fd;
  uint8_t stage, is_chunked, is_ready, is_opening; /* of the connection */
  uint8_t field, matched;                          /* how far "at":[ has been recognised */
  uint16_t column;                                 /* within the line that is being read */
  uint32_t chunk_left, events;
  int64_t number, previous;
  uint64_t nanoseconds;
  char line[LINE_MAX], id[ID_MAX];
  uint8_t ticket_matched;
  uint16_t ticket_length;
  char *ticket; /* kept from one connection to the next */
} Client;

static const char MARK[] = "\"at\":[", TICKET[] = "\"ticket\":\"";

static Client *clients;
static int client_count, at_once, epoll;
static const char *path, *address, *header;
static struct sockaddr_in server;
static uint32_t expected;
static int started, opening, ready, failed, closed, served; /* clients */
static uint64_t opened_at, ready_at, first_at, last_at, events, disorder, goodbyes;
static uint32_t *samples, sample_count; /* microseconds from publication to arrival */
static uint64_t number_first[NUMBERS_MAX], number_last[NUMBERS_MAX];
static uint64_t now_ns, connections;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void drop(Client *c) {
  if (c->fd < 0) return;
  close(c->fd);
  c->fd = -1;
  if (c->is_opening) { opening--; failed++; }
  else if (c->is_ready) { closed++; if (expected && c->events >= expected) served--; }
  c->is_opening = 0;
}

static void event_arrived(Client *c) {
  if (c->number <= c->previous) disorder++;
  c->previous = c->number;
  events++;
  if (++c->events == expected) served++;
  if (!first_at) first_at = now_ns;
  last_at = now_ns;
  if (sample_count < SAMPLES_MAX) samples[sample_count++] = now_ns > c->nanoseconds ? (now_ns - c->nanoseconds) / 1000 : 0;
  if (c->number < NUMBERS_MAX) {
    if (!number_first[c->number]) number_first[c->number] = now_ns;
    number_last[c->number] = now_ns;
  }
}

static void line_ended(Client *c) {
  int length = c->column < LINE_MAX ? c->column : LINE_MAX - 1;
  if (length && c->line[length - 1] == '\r') length--;
  c->line[length] = 0;
  if (!strncmp(c->line, "id:", 3)) {
    const char *value = c->line[3] == ' ' ? c->line + 4 : c->line + 3;
    if (strlen(value) < ID_MAX) strcpy(c->id, value);
  }
  if (!strcmp(c->line, "event: goodbye")) goodbyes++;
  c->column = 0;
}

static void ticket_byte(Client *c, char b) {
  if (TICKET[c->ticket_matched]) {
    c->ticket_matched = b == TICKET[c->ticket_matched] ? c->ticket_matched + 1 : b == TICKET[0];
    c->ticket_length = 0;
  } else if (b == '"' || c->ticket_length == TICKET_MAX - 1) {
    c->ticket[c->ticket_length] = 0;
    c->ticket_matched = 0;
  } else c->ticket[c->ticket_length++] = b;
}

static void body_byte(Client *c, char b) {
  if (c->ticket) ticket_byte(c, b);
  if (b == '\n') line_ended(c);
  else {
    if (c->column < LINE_MAX - 1) c->line[c->column] = b;
    if (c->column < LINE_MAX) c->column++;
  }
  if (b == ' ') return;
  if (c->field == SEEK) {
    if (b == '\\') return; /* within a string: the markup of a patch */
    if (b == MARK[c->matched]) c->matched++;
    else c->matched = b == MARK[0];
    if (c->matched == sizeof MARK - 1) { c->field = NUMBER; c->matched = 0; c->number = 0; c->nanoseconds = 0; }
  } else if (b >= '0' && b <= '9') {
    if (c->field == NUMBER) c->number = c->number * 10 + (b - '0');
    else c->nanoseconds = c->nanoseconds * 10 + (b - '0');
  } else if (b == ',' && c->field == NUMBER) c->field = NANOSECONDS;
  else { if (b == ']') event_arrived(c); c->field = SEEK; }
}

static void head_line(Client *c) {
  int length = c->column < LINE_MAX ? c->column : LINE_MAX - 1;
  if (length && c->line[length - 1] == '\r') length--;
  c->line[length] = 0;
  c->column = 0;
  if (!strncmp(c->line, "HTTP/", 5)) {
    if (strncmp(c->line + 8, " 200", 4)) { fprintf(stderr, "load: answered with %s\n", c->line); drop(c); }
  } else if (!strncasecmp(c->line, "transfer-encoding:", 18)) c->is_chunked = strcasestr(c->line + 18, "chunked") != NULL;
  else if (!length) {
    c->stage = c->is_chunked ? SIZE : RAW;
    c->is_ready = 1;
    c->is_opening = 0;
    opening--;
    ready++;
    if (ready + failed == client_count) ready_at = now_ns;
  }
}

static void feed(Client *c, const char *data, ssize_t length) {
  for (ssize_t i = 0; i < length && c->fd >= 0; i++) {
    char b = data[i];
    switch (c->stage) {
    case HEAD:
      if (b == '\n') head_line(c);
      else { if (c->column < LINE_MAX - 1) c->line[c->column] = b; if (c->column < LINE_MAX) c->column++; }
      break;
    case SIZE:
      if (b == '\n') { c->stage = c->chunk_left ? CHUNK : NOTHING; }
      else if (b >= '0' && b <= '9') c->chunk_left = c->chunk_left * 16 + (b - '0');
      else if ((b | 32) >= 'a' && (b | 32) <= 'f') c->chunk_left = c->chunk_left * 16 + ((b | 32) - 'a' + 10);
      break;
    case CHUNK:
      body_byte(c, b);
      if (!--c->chunk_left) c->stage = CHUNK_END;
      break;
    case CHUNK_END:
      if (b == '\n') c->stage = SIZE;
      break;
    case RAW:
      body_byte(c, b);
      break;
    }
  }
}

static void start(Client *c) {
  static int sources;
  char source[32], id[ID_MAX], *ticket = c->ticket;
  memcpy(id, c->id, ID_MAX);
  memset(c, 0, sizeof *c);
  c->ticket = ticket;
  memcpy(c->id, id, ID_MAX);
  c->previous = -1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) { perror("load: socket"); failed++; return; }
  if (!strncmp(address, "127.", 4)) {
    /* A source address has some 28,000 ports, and each rests for a minute after its connection was closed. */
    if (!c->ticket && connections++ % 10000 == 0) sources++; /* a ticket is good from where it was given */
    struct sockaddr_in from = {.sin_family = AF_INET};
    snprintf(source, sizeof source, "127.%d.%d.1", 1 + getpid() % 200, 1 + sources % 250);
    inet_pton(AF_INET, source, &from.sin_addr);
    bind(c->fd, (void *)&from, sizeof from);
  }
  c->is_opening = 1;
  opening++;
  if (connect(c->fd, (void *)&server, sizeof server) && errno != EINPROGRESS) { perror("load: connect"); drop(c); return; }
  struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
}

static void ask(Client *c) {
  char request[4096];
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  int length = snprintf(request, sizeof request,
                        "GET %s%s%s HTTP/1.1\r\nHost: %s:%d\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n%s%s%s%s%s\r\n",
                        path, c->ticket && *c->ticket ? "&ticket=" : "", c->ticket ? c->ticket : "", address,
                        ntohs(server.sin_port), *c->id ? "Last-Event-ID: " : "", c->id, *c->id ? "\r\n" : "", header,
                        *header ? "\r\n" : "");
  if (error || write(c->fd, request, length) != length) { drop(c); return; }
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void step(void) {
  static struct epoll_event es[512];
  static char buffer[1 << 18];
  while (started < client_count && opening < at_once) start(&clients[started++]);
  int n = epoll_wait(epoll, es, 512, 100);
  for (int i = 0; i < n; i++) {
    Client *c = es[i].data.ptr;
    if (c->fd < 0) continue;
    if (es[i].events & EPOLLOUT) { ask(c); continue; }
    ssize_t length = read(c->fd, buffer, sizeof buffer);
    now_ns = now();
    if (length > 0) feed(c, buffer, length);
    else if (length == 0 || (errno != EAGAIN && errno != EINTR)) drop(c);
  }
  now_ns = now();
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static int by_size_32(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double percentile_ms(double q) { return sample_count ? samples[(uint32_t)((sample_count - 1) * q)] / 1e3 : 0; }

static void report(void) {
  uint64_t *spans = malloc(NUMBERS_MAX * sizeof *spans), n = 0;
  for (uint32_t i = 0; i < NUMBERS_MAX; i++)
    if (number_first[i]) spans[n++] = number_last[i] - number_first[i];
  qsort(spans, n, sizeof *spans, by_size);
  qsort(samples, sample_count, sizeof *samples, by_size_32);
  printf("{\"events\":%lu,\"expected\":%lu,\"disorder\":%lu,\"closed\":%d,\"goodbyes\":%lu,\"since_open_s\":%.4f,\"span_s\":%.4f,"
         "\"first_to_last_ms\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
         (unsigned long)events, (unsigned long)ready * expected, (unsigned long)disorder, closed, (unsigned long)goodbyes,
         last_at ? (last_at - opened_at) / 1e9 : 0.0, last_at ? (last_at - first_at) / 1e9 : 0.0,
         n ? spans[n / 2] / 1e6 : 0.0, percentile_ms(.5), percentile_ms(.99), percentile_ms(1));
  free(spans);
}

static void open_all(int many, uint32_t each) {
  at_once = many;
  expected = each;
  started = opening = ready = failed = closed = served = 0;
  events = disorder = goodbyes = first_at = last_at = ready_at = 0;
  sample_count = 0;
  memset(number_first, 0, sizeof number_first);
  memset(number_last, 0, sizeof number_last);
  opened_at = now_ns = now();
  while (ready + failed < client_count && now_ns - opened_at < 180000000000u) step();
  printf("{\"open\":%d,\"failed\":%d,\"seconds\":%.4f}\n", ready, client_count - ready,
         ((ready_at ? ready_at : now_ns) - opened_at) / 1e9);
}

int main(int argc, char **argv) {
  char line[256];
  if (argc != 5) { fprintf(stderr, "usage: load ADDRESS PORT PATH CLIENTS\n"); return 2; }
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  address = argv[1];
  path = argv[3];
  client_count = atoi(argv[4]);
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, address, &server.sin_addr);
  clients = calloc(client_count, sizeof *clients);
  samples = malloc(SAMPLES_MAX * sizeof *samples);
  epoll = epoll_create1(0);
  header = getenv("LOAD_HEADER") ? getenv("LOAD_HEADER") : "";
  for (int i = 0; i < client_count; i++) {
    clients[i].fd = -1;
    if (strchr(path, '?')) clients[i].ticket = calloc(TICKET_MAX, 1);
  }
  while (fgets(line, sizeof line, stdin)) {
    int many = 0;
    unsigned each = 0;
    double seconds = 0;
    if (sscanf(line, "open %d %u", &many, &each) == 2) open_all(many, each);
    else if (sscanf(line, "wait %lf", &seconds) == 1) {
      uint64_t until = now() + (uint64_t)(seconds * 1e9);
      /* Who has been cut off hears no more; the rest is waited for. */
      while (served + closed < ready && now() < until) step();
      report();
    } else if (sscanf(line, "end %lf", &seconds) == 1) {
      uint64_t until = now() + (uint64_t)(seconds * 1e9);
      while (closed < ready && now() < until) step();
      report();
    } else if (!strncmp(line, "close", 5)) {
      for (int i = 0; i < client_count; i++) { clients[i].is_ready = 0; drop(&clients[i]); }
      printf("{}\n");
    } else { fprintf(stderr, "load: %s", line); return 2; }
    fflush(stdout);
  }
  return 0;
}
