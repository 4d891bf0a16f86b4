#include "projector/engine.h"

#include <stdlib.h>
#include <string.h>

static QueueOwner *owner_find(const Queue *q, const char *owner) {
    QueueOwner *o = q->first;
    while (o && strcmp(o->first->owner, owner) != 0) o = o->next;
    return o;
}

int queue_count(const Queue *q, const char *owner) {
    const QueueOwner *o = owner_find(q, owner);
    return o ? o->count : 0;
}

static void owner_append(Queue *q, QueueOwner *o) {
    o->next = NULL;
    if (q->last)
        q->last->next = o;
    else
        q->first = o;
    q->last = o;
}

int queue_add(Queue *q, ef_job *job, Error *err) {
    QueueOwner *o = owner_find(q, job->owner);
    if (!o) {
        o = calloc(1, sizeof *o);
        if (!o) return error_set(err, "out of memory for a request's owner");
        owner_append(q, o);
    }
    job->next = NULL;
    if (o->last)
        o->last->next = job;
    else
        o->first = job;
    o->last = job;
    o->count++, q->count++;
    return 0;
}

ef_job *queue_peek(const Queue *q) {
    return q->first ? q->first->first : NULL;
}

ef_job *queue_take(Queue *q) {
    QueueOwner *o = q->first;
    if (!o) return NULL;
    ef_job *job = o->first;
    o->first = job->next;
    o->count--, q->count--;
    q->first = o->next;
    if (!q->first) q->last = NULL;
    if (o->count)
        owner_append(q, o);
    else
        free(o);
    return job;
}

/* Takes an owner without jobs out; `before` is the one in front of it. */
static void owner_remove(Queue *q, QueueOwner *before, QueueOwner *o) {
    if (before)
        before->next = o->next;
    else
        q->first = o->next;
    if (q->last == o) q->last = before;
    free(o);
}

static ef_job *owner_take_cancelled(QueueOwner *o) {
    ef_job *before = NULL, *job = o->first;
    while (job && !job_cancelled(job)) before = job, job = job->next;
    if (!job) return NULL;
    if (before)
        before->next = job->next;
    else
        o->first = job->next;
    if (o->last == job) o->last = before;
    o->count--;
    return job;
}

ef_job *queue_take_cancelled(Queue *q) {
    QueueOwner *before = NULL;
    for (QueueOwner *o = q->first; o; before = o, o = o->next) {
        ef_job *job = owner_take_cancelled(o);
        if (!job) continue;
        q->count--;
        if (!o->count) owner_remove(q, before, o);
        return job;
    }
    return NULL;
}
