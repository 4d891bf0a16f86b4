/* frame.h - one image of a trace as lines for a terminal; private to player.c. */
#ifndef EASYFIRST_APPS_SHOW_FRAME_H
#define EASYFIRST_APPS_SHOW_FRAME_H

#include "apps/show/text.h"
#include "apps/trace/trace.h"

typedef struct FrameLine {
    size_t begin, size; /* bytes of the frame */
    int width;          /* columns */
    bool changed;       /* something new is in it */
} FrameLine;

/* Zero-initialize; free with frame_free. */
typedef struct Frame {
    int columns, colors;
    char *bytes; /* lines with their colors, without ends */
    size_t size, capacity;
    FrameLine *lines;
    size_t count, room;
    bool hint;       /* the last line is one */
    StyledText text; /* scratch */
    Layout layout;
} Frame;

/* A trace has frames 0 (all masks) to the largest number of planned steps. */
int frame_total(const Trace *trace);

/* Whether any hypothesis changes in frame `number` (from 1). */
bool frame_changes(const Trace *trace, int number);

/* Makes the lines of frame `number`: the progress, then the hypotheses, then the longest of the
 * `hints` (separated by '\n') that fits, unless it is empty. After a hypothesis's last step, that
 * step is shown. No line is wider than `columns`. */
int frame_make(Frame *frame, const Trace *trace, int number, const char *hints, int columns,
               int colors, Error *err);

/* The same with a finished trace's hypotheses and scores, the best marked, and the answer; lines
 * may be longer than the terminal is wide, which breaks them itself and so can join them again. */
int frame_make_end(Frame *frame, const Trace *trace, Error *err);

void frame_free(Frame *frame);

#endif
