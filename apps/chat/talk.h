/* talk.h - conversations: an image each (or none), and its turns; saved as JSON and loaded again.
 *
 *   {"format": 1, "current": index, "conversations":
 *       [{"image": path or null, "turns": [{"question": text, "answer": text}]}]}
 */
#ifndef EASYFIRST_APPS_CHAT_TALK_H
#define EASYFIRST_APPS_CHAT_TALK_H

#include "kernels/error.h"
#include "projector/easyfirst.h"

typedef struct Talk {
    char *path;      /* of the image; NULL: none */
    ef_image *image; /* opened for the model */
    ef_turn *turns;  /* [count], their texts owned */
    size_t count, room;
    int told; /* how many turns do not fit, as last said */
} Talk;

/* Zero-initialize; free with talks_free. */
typedef struct Talks {
    Talk *items;
    size_t count, room, current;
} Talks;

/* Makes the conversation about an image (NULL: about none) the current one: the one that there is,
 * else a new one. */
int talks_choose(Talks *talks, const ef_model *model, const char *path, Error *err);

int talk_add(Talk *talk, const char *question, const char *answer, Error *err);
void talk_clear(Talk *talk);

/* Writes all of them atomically. Images are named by absolute paths. The model's folder and the
 * images are never overwritten. */
int talks_save(const Talks *talks, const char *model, const char *path, Error *err);

/* Adds those of a file, whose current one becomes the current one. */
int talks_load(Talks *talks, const ef_model *model, const char *path, Error *err);

void talks_free(Talks *talks);

#endif
