/* trace_parts.h - shared by trace.c and trace_json.c; private to them. */
#ifndef EASYFIRST_APPS_TRACE_TRACE_PARTS_H
#define EASYFIRST_APPS_TRACE_TRACE_PARTS_H

#include "apps/trace/trace.h"

/* An empty trace that can take hypotheses. */
int trace_open(Trace *trace, Error *err);

/* Grows the trace to at least `count` hypotheses; new ones have no length yet. */
int trace_hypotheses(Trace *trace, int count, Error *err);

/* Marks a position as fixed; the hypothesis has a length. */
int trace_fix(TraceHypothesis *h, int position, Error *err);

/* Reserves one more step of a hypothesis whose length and planned steps are set. */
int trace_room(TraceHypothesis *h, Error *err);

/* The trace's own text of an id (not negative): the first that was given for it. NULL: out of
 * memory.
 */
const char *trace_piece(Trace *trace, int32_t id, const char *piece, Error *err);

#endif
