/* session.h - a device and an open model, as the common options name them. */
#ifndef EASYFIRST_APPS_CLI_SESSION_H
#define EASYFIRST_APPS_CLI_SESSION_H

#include "apps/cli/common.h"

/* A device and an open model. Exactly one close for every open, failed or not. A model that is to
 * answer, but neither knows lengths nor was given one, is refused here, not line by line (unless no
 * answers are wanted: no_answers). */
typedef struct Session {
    Device *device;
    Model model;
    bool open; /* the model is */
    double load_s;
} Session;

int session_open(Session *session, const CommonOptions *o, Error *err);
void session_close(Session *session);

#endif
