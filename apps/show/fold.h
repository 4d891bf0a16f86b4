/* fold.h - a trace as it is shown: without the flicker of words that are taken back only to return.
 *
 * The network takes words back and puts them again, often for many steps in turn, which hides the
 * order that a person wants to see. In a folded trace a word stays in its place from the first step
 * that writes it to the last one that has it, whatever stood there between, and a word that is
 * taken back stays until another one takes its place. So no erased word ever comes back. Proposals
 * and alternatives are those of the trace, which itself stays as it is (as does its JSON).
 */
#ifndef EASYFIRST_APPS_SHOW_FOLD_H
#define EASYFIRST_APPS_SHOW_FOLD_H

#include "apps/show/trace.h"

/* Makes `shown`, a view of a trace whose steps may still be coming: it has the same texts, pieces
 * and alternatives, which stay the trace's, and entries of its own. Free with fold_free. Nothing is
 * left to be freed after a failure. */
int fold_make(Trace *shown, const Trace *trace, Error *err);
void fold_free(Trace *shown);

#endif
