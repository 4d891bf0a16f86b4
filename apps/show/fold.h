/* fold.h - a trace as it is shown: without the flicker of tokens that are erased only to return.
 *
 * The decoder erases tokens and writes them again, often for many steps in turn, which hides the
 * order that a person wants to see. In a folded trace a token stays in its place from the first
 * step that writes it to the last one that has it, regardless of the steps between, and an erased
 * token stays until another one takes its place. So no erased token ever comes back. Tokens that
 * end a text are dots. Proposals and alternatives are those of the trace, which is not changed (nor
 * is its JSON).
 */
#ifndef EASYFIRST_APPS_SHOW_FOLD_H
#define EASYFIRST_APPS_SHOW_FOLD_H

#include "apps/trace/trace.h"

/* Makes `shown`, a view of a trace that may still get steps: it shares texts, pieces and
 * alternatives, which the trace owns, and has its own entries. Free with fold_free; not needed
 * after a failure. */
int fold_make(Trace *shown, const Trace *trace, Error *err);
void fold_free(Trace *shown);

#endif
