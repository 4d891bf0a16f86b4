/* http.h - the files of the server that speak to libmicrohttpd. */
#ifndef EASYFIRST_APPS_SERVE_HTTP_H
#define EASYFIRST_APPS_SERVE_HTTP_H

#include <sys/socket.h>

#include "apps/serve/exchange.h"

/* ---- The head of a request (guard.c). ---- */

/* Sees what is asked for, and whether it may be: exchange_fail with a refusal. `url` is the path.
 * Names of hosts that are not ours, requests of other sites' pages, missing keys, bodies that are
 * too large or of another type are refused before anything of a body is read. */
void guard_check(Exchange *e, const char *url, const char *method);

/* Whether an address is this machine's own. */
bool address_is_loopback(const struct sockaddr *address);

/* An address as text, IPv6 in brackets. */
void address_text(char *out, size_t size, const struct sockaddr *address);

/* ---- Connections (daemon.c). ---- */

/* Listens and starts libmicrohttpd's thread. */
int daemon_start(Server *server, Error *err);

/* Takes no new connections. */
void daemon_quiesce(Server *server);

/* No exchange may be undecided. */
void daemon_stop(Server *server);

/* Ten times a second: cancels what takes too long and what no client waits for, and closes connections
 * that do not move. */
void daemon_tick(Server *server);

/* ---- Workers (work.c): a request that was read is handled by one of a few threads. ---- */

int work_start(Server *server, Error *err);
void work_stop(Server *server);
void work_add_exchange(Server *server, Exchange *e);

/* ---- Requests for answers (api_*.c), in a worker. ---- */

void api_answer(Exchange *e);

/* GET /v1/models, and of one. */
void api_models(Exchange *e);

#endif
