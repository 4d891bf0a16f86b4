/* page.h - a trace as one HTML page that holds everything it shows and asks no network for
 * anything.
 *
 * The page (apps/show/page/: page.html with the places where the rest goes, page.css, page.js; they
 * are part of the program) shows the image, the question and the answer with a slider through the
 * steps, each word's probability, alternatives and place in the order, a grid of positions and
 * steps, all hypotheses, and where in the image the model looked for a word.
 *
 * What cannot happen: a Content-Security-Policy allows this one script and this one style, by their
 * hashes, and images that are written in the page; nothing else, and no request at all. Every
 * text is made harmless (show_text.h), stands in the markup with its special characters escaped or
 * in a block of JSON in which no "<", ">" and "&" is left, and the script puts it into text nodes
 * only. The image is encoded anew from its pixels, at most PAGE_EDGE on a side: upright, and
 * without whatever else its file held (places, dates, names, thumbnails).
 *
 * The block of JSON, in the element "trace", is smaller than a trace file (trace.h):
 *
 *   image, model  texts, if they are known; of their paths only the end
 *   question      text; prompt: whether it is a prompt
 *   dropped_tokens    of its beginning, that the model did not read; not there: none
 *   strategy, seed, evaluations, prompt_tokens    the seed as a text, all its digits
 *   best          index of the best hypothesis
 *   pieces        list of texts that others name by index
 *   image       as in a trace file, if it is there
 *   hypotheses    list of {"text", "length", "sample", "score", "evaluations", "steps"} and
 *     attention   if there is one: for each position a list of grid * grid whole numbers, shares of
 *                 the attention in millionths
 *
 * A step is [whether the network ran: 0 or 1, cell, ...] with those cells only that are not what
 * they were in the step before (before the first: masks without proposals). A cell is [position,
 * piece or -1 for a mask, log-probability (0 if masked), [piece, log-probability, ...]], the last
 * what the network held likely in this step, its proposal first, alternatives after it.
 */
#ifndef EASYFIRST_APPS_SHOW_PAGE_H
#define EASYFIRST_APPS_SHOW_PAGE_H

#include "apps/show/trace.h"
#include "vision/image.h"

enum { PAGE_EDGE = 1024 }; /* pixels */

/* Writes the page of a finished trace to a file, which appears whole or not at all; "-" is standard
 * output, which the caller flushes. `image` (NULL: the page has none) is the trace's, upright, as
 * image_read gives it; one of another size than the trace's is refused. The same trace and image
 * give the same bytes. */
int page_write(const Trace *trace, const Image *pixels, const char *path, Error *err);

/* The same as text, terminated; the caller's to free. *size (may be NULL) does not count the
 * terminator. NULL on failure. */
char *page_text(const Trace *trace, const Image *pixels, size_t *size, Error *err);

#endif
