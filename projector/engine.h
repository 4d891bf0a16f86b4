/* engine.h - the parts of the library's engines (easyfirst.h): jobs (engine_job.c), the queue of
 * those that wait (engine_queue.c), encoded images (engine_images.c), jobs that are being answered
 * (engine_work.c), and the thread that does it (engine_run.c).
 */
#ifndef EASYFIRST_PROJECTOR_ENGINE_H
#define EASYFIRST_PROJECTOR_ENGINE_H

#include "language/infill_causal.h"
#include "projector/easyfirst_private.h"

/* ---- Jobs. ---- */

enum { IMAGE_HASH = 32 }; /* SHA-256 */

struct ef_job {
    pthread_mutex_t mutex; /* over what follows up to `why` */
    pthread_cond_t ending;
    bool ended, taken;
    ef_answers *answers; /* of a job that ended well, until they are handed over */
    Error why;           /* of one that failed; code 0: it did not */
    int users;           /* atomic: the caller's handle, and the engine */
    int cancelled;       /* atomic */
    ef_task task;
    int length; /* the given one */
    AnswerOptions how;
    StepTeller teller;
    Prompts prompts;       /* one */
    Answer *answer;        /* [1]; until it is answered, what is known of the prompt */
    int beam;              /* hypotheses that it has at most */
    const ef_image *image; /* NULL: none */
    uint8_t hash[IMAGE_HASH];
    ef_done_callback on_done;
    void *user;
    char *owner;
    struct ef_job *next; /* in the queue */
};

/* A job with copies of the inputs, for two users. Fails where the request cannot be answered. */
int job_new(ef_job **job, const ef_model *model, const ef_request *request,
            const ef_options *options, const char *owner, Error *err);

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

/* ---- Images: encoded once, kept as long as there is space. ---- */

typedef struct ImageEntry {
    bool present, encoded;
    uint8_t hash[IMAGE_HASH];
    const ef_image *image; /* to be encoded, borrowed from a job */
    int users;             /* jobs */
    uint64_t used;         /* when a job came last: the oldest one makes way first */
} ImageEntry;

typedef struct ImageCache {
    const Multimodal *model;
    Tensor tokens; /* [count * rows, D] f32 on the device */
    ImageEntry *entries;
    int count, rows;
    int top,
        present; /* entries from `top` on were never used; of the others so many have an image */
    uint64_t clock;
    int64_t hits, encodings;
} ImageCache;

/* For `bytes` of image tokens; nothing for a model without vision. */
int images_open(ImageCache *cache, const Multimodal *model, size_t bytes, Error *err);
void images_close(ImageCache *cache);

/* The entry of a job's image, from now on in use by it; *changed: it held another one, or none.
 * -1: all are in use. */
int images_take(ImageCache *cache, const ef_job *job, bool *changed);

/* The job no longer uses it. */
void images_drop(ImageCache *cache, int entry);

/* Encodes what was taken and is not encoded. */
int images_encode(ImageCache *cache, Error *err);

/* Bytes in use, and bytes of one image. */
size_t images_bytes(const ImageCache *cache);

/* ---- Jobs that are being answered. ---- */

typedef struct Work {
    ef_job *job;
    int image, slot;  /* entries of the caches; -1: none */
    Answers answers;  /* of one request */
    Decoder *decoder; /* NULL until it has hypotheses */
    bool kept;        /* their rows are kept by the engine's InfillCausal */
    DecodeBatch batch;
    ef_answers *result; /* when it has ended; NULL: it failed, see why */
    Error why;
    bool ended;
    double start, decoding; /* when it was taken, and when its steps began */
} Work;

/* ---- The engine. ---- */

struct ef_engine {
    ef_model *model;
    ef_engine_options options; /* without zeros */
    pthread_t thread;
    pthread_mutex_t mutex; /* over the queue, closing and counts */
    pthread_cond_t work;   /* a job came, or the engine is closing */
    Queue queue;
    bool closing;
    ef_engine_counts counts;
    /* The thread's own. */
    Infill *infill;
    InfillCausal *causal; /* of an autoregressive model; else NULL */
    ImageCache images;
    Work **works; /* [work_room], the first work_count in use */
    DecodeBatch *batches;
    int work_count, work_room;
    int hypotheses; /* of all works, at most */
    int *slots;     /* [work_room], of the works whose lengths are to be predicted */
    float *logits;
};

/* Memory for everything that a step needs; the model's lock is held. */
int engine_take(ef_engine *engine, Error *err);
void engine_give(ef_engine *engine);

/* The engine's thread; returns when the engine is closing and nothing is left to do. */
void *engine_run(void *engine);

/* ---- For engine_run.c (engine_work.c). ---- */

/* Takes the jobs whose turn it is and that fit, and computes what is before their first step. The
 * model's lock is held. */
void engine_admit(ef_engine *engine);

/* Ends a work as a failure; and frees what it holds of the engine. */
void work_fail(Work *work, const Error *why);
void work_release(ef_engine *engine, Work *work);

/* The answers of a work whose decoder is done. */
void work_complete(ef_engine *engine, Work *work);

#endif
