/* engine.h - the parts of the library's engines (easyfirst.h): jobs, the queue of those that wait,
 * and the thread that answers them.
 */
#ifndef EASYFIRST_PROJECTOR_ENGINE_H
#define EASYFIRST_PROJECTOR_ENGINE_H

#include "projector/easyfirst_private.h"

/* ---- Jobs. ---- */

struct ef_job {
    pthread_mutex_t mutex; /* over what follows up to `taken` */
    pthread_cond_t ending;
    bool ended, taken;
    ef_answers *answers; /* of a job that ended well, until they are handed over */
    Error why;           /* of one that failed; code 0: it did not */
    int users;           /* atomic: the caller's handle, and the engine */
    int cancelled;       /* atomic */
    ef_request request;  /* its texts are the job's own, its image is shared */
    ef_options options;  /* likewise */
    ef_done_callback on_done;
    void *user;
    char *owner;
    struct ef_job *next; /* in the queue */
};

/* A job with copies of the inputs, for two users. */
int job_new(ef_job **job, const ef_request *request, const ef_options *options, const char *owner,
            Error *err);

/* Ends a job, whose answers it takes over (NULL: it failed, see why), calls on_done and drops the
 * engine's share of it. No mutex is held. */
void job_end(ef_job *job, ef_answers *answers, const Error *why);

bool job_cancelled(const ef_job *job);

/* ---- The queue: owners take turns. ---- */

/* The jobs of one owner that wait, in the order of their arrival; there is at least one. */
typedef struct QueueOwner {
    ef_job *first, *last;
    int count;
    struct QueueOwner *next;
} QueueOwner;

typedef struct Queue {
    QueueOwner *first, *last; /* in the order of their turns */
    int count;                /* of all jobs */
} Queue;

/* Of an owner: jobs that wait. */
int queue_count(const Queue *queue, const char *owner);

int queue_add(Queue *queue, ef_job *job, Error *err);

/* The job whose turn it is, which stays; NULL if none waits. And the same, taken out. */
ef_job *queue_peek(const Queue *queue);
ef_job *queue_take(Queue *queue);

/* Takes out a job that was cancelled; NULL if there is none. */
ef_job *queue_take_cancelled(Queue *queue);

/* ---- The engine. ---- */

struct ef_engine {
    ef_model *model;
    ef_engine_options options; /* without zeros */
    pthread_t thread;
    pthread_mutex_t mutex; /* over what follows */
    pthread_cond_t work;   /* a job came, or the engine is closing */
    Queue queue;
    bool closing;
    ef_engine_counts counts;
};

/* The engine's thread; returns when the engine is closing and nothing is left to do. */
void *engine_run(void *engine);

#endif
